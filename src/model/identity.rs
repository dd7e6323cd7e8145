//! Which deployment a connection string leads to, told by what it is and not by its address.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// What identifies a replica set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Its name (`hello.setName`).
    pub set_name: String,
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
    /// Whether both are surely the same deployment *now*.
    pub fn is_same_as(&self, other: &Identity) -> bool {
        match (&self.replica_set_id, &other.replica_set_id) {
            (Some(mine), Some(others)) => mine == others,
            _ => !self.processes.is_disjoint(&other.processes),
        }
    }

    /// Whether a deployment that is seen now may be the one that was recorded earlier. Without the right to read the
    /// replica set's id only its name tells.
    pub fn still_is(&self, now: &Identity) -> bool {
        match (&self.replica_set_id, &now.replica_set_id) {
            (Some(recorded), Some(now)) => recorded == now,
            _ => self.set_name == now.set_name,
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.set_name)?;
        if let Some(id) = &self.replica_set_id {
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
    fn without_rights_the_process_decides_now_and_the_name_later() {
        assert!(identity("rs", None, "p").is_same_as(&identity("rs", None, "p")));
        assert!(!identity("rs", None, "p").is_same_as(&identity("rs", Some("1"), "q")));
        assert!(identity("rs", None, "p").still_is(&identity("rs", Some("1"), "q")));
        assert!(!identity("rs", None, "p").still_is(&identity("other", None, "q")));
    }
}
