//! Who is measured. Pure.

use serde::Serialize;

use crate::sets::SetName;

/// What takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contestant {
    /// The benchmark's own insert-only loader, and the indexes after it.
    Baseline,
    /// `step all` with its defaults, the state in a folder.
    Mongoferry,
    /// The same, saving so rarely that it happens once at the end of each step.
    RareSaves,
    /// The same as mongoferry, the state in MinIO.
    Minio,
    /// The same as mongoferry, without digests.
    NoDigests,
    /// The same as mongoferry, from a cluster of two shards that have a half of the set each.
    TwoShards,
    /// `mongodump --archive | mongorestore --archive`.
    DumpRestore,
    /// MongoShake's `collector`, `sync_mode = full`.
    MongoShake,
    /// Percona ClusterSync, until its clone is complete.
    Pcsm,
}

impl Contestant {
    /// All of them, the baseline first.
    pub const ALL: [Contestant; 9] = [
        Contestant::Baseline,
        Contestant::Mongoferry,
        Contestant::RareSaves,
        Contestant::Minio,
        Contestant::NoDigests,
        Contestant::TwoShards,
        Contestant::DumpRestore,
        Contestant::MongoShake,
        Contestant::Pcsm,
    ];

    /// Its name in `BENCH_CONTESTANTS` and in the report.
    pub fn as_str(self) -> &'static str {
        match self {
            Contestant::Baseline => "baseline",
            Contestant::Mongoferry => "mongoferry",
            Contestant::RareSaves => "rare-saves",
            Contestant::Minio => "minio",
            Contestant::NoDigests => "no-digests",
            Contestant::TwoShards => "two-shards",
            Contestant::DumpRestore => "dump-restore",
            Contestant::MongoShake => "mongoshake",
            Contestant::Pcsm => "pcsm",
        }
    }

    /// Whether it takes part in a set. What saving costs is measured where a copy takes longest, what digests cost where the
    /// bytes are many; MongoShake does not copy empty collections.
    pub fn takes_part_in(self, set: SetName) -> bool {
        match self {
            Contestant::RareSaves | Contestant::Minio | Contestant::TwoShards => set == SetName::A,
            Contestant::NoDigests => matches!(set, SetName::B | SetName::C),
            Contestant::MongoShake => set != SetName::E,
            _ => true,
        }
    }

    /// The programs that it needs beside those that are always there.
    pub fn programs(self) -> &'static [&'static str] {
        match self {
            Contestant::DumpRestore => &["mongodump", "mongorestore"],
            Contestant::MongoShake => &["collector"],
            Contestant::Pcsm => &["pcsm"],
            _ => &[],
        }
    }
}
