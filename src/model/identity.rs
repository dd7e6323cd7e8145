//! Which deployment a connection string leads to, told by what it is and not by its address.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// How a sharded cluster that is reached through a mongos is called where a replica set has its name. MongoShake calls
/// the checkpoint of such a source so too.
pub const MONGOS: &str = "mongos";

/// What identifies a replica set, or a sharded cluster that is reached through a mongos.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The replica set's name (`hello.setName`), or [`MONGOS`].
    pub set_name: String,
    /// Whether it is reached through a mongos (`hello.msg` is `isdbgrid`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_mongos: bool,
    /// The id of the cluster that it is, or is a part of (`config.version`, `clusterId`). Needs a right that not every
    /// user has, so it may be missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_id: Option<String>,
    /// Its id (`replSetGetConfig`, `settings.replicaSetId`), made when it was initiated and kept for good. Needs a
    /// right that not every user has, so it may be missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica_set_id: Option<String>,
    /// The random ids of the processes that answered (`hello.topologyVersion.processId`): no right is needed, but a
    /// restart changes them.
    #[serde(default)]
    pub processes: BTreeSet<String>,
    /// Its members' addresses, for people.
    #[serde(default)]
    pub hosts: Vec<String>,
}

impl Identity {
    /// Whether both are surely the same deployment *now*, or one is a part of the other.
    pub fn is_same_as(&self, other: &Identity) -> bool {
        let is_known = match (self.is_mongos || other.is_mongos, &self.cluster_id, &self.replica_set_id) {
            (true, Some(_), _) => self.cluster_id == other.cluster_id,
            (false, _, Some(_)) => self.replica_set_id == other.replica_set_id,
            _ => false,
        };
        is_known || !self.processes.is_disjoint(&other.processes)
    }

    /// Whether a deployment that is seen now may be the one that was recorded earlier. Without the right to read its id
    /// only its name tells.
    pub fn still_is(&self, now: &Identity) -> bool {
        let (recorded_id, id) = match self.is_mongos {
            true => (&self.cluster_id, &now.cluster_id),
            false => (&self.replica_set_id, &now.replica_set_id),
        };
        self.is_mongos == now.is_mongos
            && match (recorded_id, id) {
                (Some(recorded), Some(now)) => recorded == now,
                _ => self.set_name == now.set_name,
            }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.set_name)?;
        let id = if self.is_mongos { &self.cluster_id } else { &self.replica_set_id };
        if let Some(id) = id {
            write!(f, " (id {id})")?;
        }
        if !self.hosts.is_empty() {
            write!(f, " at {}", self.hosts.join(","))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(name: &str, id: Option<&str>, process: &str) -> Identity {
        Identity {
            set_name: name.into(),
            is_mongos: false,
            cluster_id: None,
            replica_set_id: id.map(str::to_owned),
            processes: [process.to_owned()].into(),
            hosts: vec![],
        }
    }

    #[test]
    fn the_replica_set_id_decides_where_both_have_one() {
        assert!(identity("rs", Some("1"), "p").is_same_as(&identity("rs", Some("1"), "q")));
        assert!(!identity("rs", Some("1"), "p").is_same_as(&identity("rs", Some("2"), "q")));
        assert!(!identity("rs", Some("1"), "p").still_is(&identity("rs", Some("2"), "p")));
    }

    #[test]
    fn a_cluster_is_the_same_through_any_mongos_and_as_any_of_its_parts() {
        let mongos = |cluster: Option<&str>, process: &str| Identity {
            is_mongos: true,
            cluster_id: cluster.map(str::to_owned),
            ..identity(MONGOS, None, process)
        };
        let shard = |cluster: &str| Identity { cluster_id: Some(cluster.into()), ..identity("rs", Some("1"), "q") };
        assert!(mongos(Some("c"), "p").is_same_as(&mongos(Some("c"), "q")));
        assert!(!mongos(Some("c"), "p").is_same_as(&mongos(Some("d"), "q")));
        assert!(!mongos(None, "p").is_same_as(&mongos(None, "q")));
        assert!(mongos(Some("c"), "p").is_same_as(&shard("c")) && shard("c").is_same_as(&mongos(Some("c"), "p")));
        assert!(!mongos(Some("c"), "p").is_same_as(&shard("d")));
        assert!(!mongos(Some("c"), "p").is_same_as(&identity("rs", Some("1"), "q")));
        assert!(mongos(Some("c"), "p").still_is(&mongos(Some("c"), "q")));
        assert!(!mongos(Some("c"), "p").still_is(&mongos(Some("d"), "p")));
        assert!(!mongos(Some("c"), "p").still_is(&shard("c")));
    }

    #[test]
    fn without_rights_the_process_decides_now_and_the_name_later() {
        assert!(identity("rs", None, "p").is_same_as(&identity("rs", None, "p")));
        assert!(!identity("rs", None, "p").is_same_as(&identity("rs", Some("1"), "q")));
        assert!(identity("rs", None, "p").still_is(&identity("rs", Some("1"), "q")));
        assert!(!identity("rs", None, "p").still_is(&identity("other", None, "q")));
    }
}
