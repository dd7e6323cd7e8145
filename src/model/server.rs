//! What a server says of itself that decides how it is written to: its limits (`hello`) and its version (`buildInfo`).

use std::fmt;

/// What a server takes at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The bytes of one document (`maxBsonObjectSize`).
    pub document: usize,
    /// The bytes of one message (`maxMessageSizeBytes`).
    pub message: usize,
    /// The documents of one write command (`maxWriteBatchSize`).
    pub documents: usize,
}

/// What a command may be larger than a document, in bytes: the server's `BSONObjMaxInternalSize` is this much above its
/// `BSONObjMaxUserSize` (mongo `src/mongo/bson/bsonobj.h`).
const ROOM: usize = 16 * 1024;

/// What the fields of a write command take beside its documents, in bytes; half of the room is left for what the driver
/// adds (session, cluster time).
const FIELDS: usize = ROOM / 2;

/// What an array takes for each document beside its bytes: the type, and the place as text.
const ELEMENT: usize = 1 + 6 + 1;

impl Default for Limits {
    /// Those of all servers from 4.4 on.
    fn default() -> Self {
        Self { document: 16 * 1024 * 1024, message: 48_000_000, documents: 100_000 }
    }
}

impl Limits {
    /// How many of the documents with these sizes, from the first on, one command takes: at least one, since what is
    /// too large alone is the server's to refuse.
    pub fn fitting(&self, sizes: impl IntoIterator<Item = usize>) -> usize {
        let most = (self.document + FIELDS).min(self.message - FIELDS);
        let mut total = 0;
        let mut count = 0;
        for size in sizes {
            total += size + ELEMENT;
            if count == self.documents || (count > 0 && total > most) {
                break;
            }
            count += 1;
        }
        count
    }
}

/// A server's version, as in 6.0.17.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 6
    pub major: i32,
    /// 0
    pub minor: i32,
    /// 17
    pub patch: i32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl Version {
    /// Whether writes take `bypassEmptyTsReplacement`, with which `Timestamp(0, 0)` stays what it is (SERVER-88750: 5.0.29,
    /// 6.0.17, 7.0.13, 8.0). Other versions refuse the field (40415).
    pub fn keeps_empty_timestamps(self) -> bool {
        match (self.major, self.minor) {
            (5, 0) => self.patch >= 29,
            (6, 0) => self.patch >= 17,
            (7, 0) => self.patch >= 13,
            (major, _) => major >= 8,
        }
    }

    /// Whether chunks are split by themselves unless `config.settings` says otherwise: no longer from 6.0.3 on
    /// (<https://www.mongodb.com/docs/v6.0/core/sharding-data-partitioning/>).
    pub fn splits_chunks(self) -> bool {
        self < Version { major: 6, minor: 0, patch: 3 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn versions_that_keep_empty_timestamps() {
        let keeps = |major, minor, patch| Version { major, minor, patch }.keeps_empty_timestamps();
        for (major, minor, patch) in [(5, 0, 29), (6, 0, 17), (6, 0, 27), (7, 0, 13), (8, 0, 0), (8, 2, 1), (9, 0, 0)] {
            assert!(keeps(major, minor, patch), "{major}.{minor}.{patch}");
        }
        for (major, minor, patch) in [(4, 4, 29), (5, 0, 28), (5, 3, 40), (6, 0, 5), (6, 3, 20), (7, 0, 12), (7, 3, 99)]
        {
            assert!(!keeps(major, minor, patch), "{major}.{minor}.{patch}");
        }
    }

    #[test]
    fn the_largest_document_goes_alone_and_through() {
        let limits = Limits::default();
        assert_eq!(limits.fitting([16 * 1024 * 1024, 5]), 2);
        assert_eq!(limits.fitting([16 * 1024 * 1024, FIELDS]), 1);
        assert_eq!(limits.fitting(std::iter::repeat_n(5, 200_000)), 100_000);
        assert_eq!(limits.fitting([]), 0);
    }

    proptest! {
        #[test]
        fn what_fits_is_within_the_limits_and_one_more_is_not(sizes in proptest::collection::vec(1..100_usize, 1..50)) {
            let limits = Limits { document: 100, message: 48_000_000, documents: 20 };
            let count = limits.fitting(sizes.iter().copied());
            let total = |count: usize| sizes[..count].iter().map(|size| size + ELEMENT).sum::<usize>();
            let fits = |count: usize| count <= 20 && total(count) <= 100 + FIELDS;
            prop_assert!(count >= 1 && fits(count));
            prop_assert!(count == sizes.len() || !fits(count + 1));
        }
    }
}
