//! Counts of documents and bytes, of one batch, one partition, one lane or a whole job.

use super::digest::Digest;
use serde::{Deserialize, Serialize};
use std::ops::{Add, AddAssign};

/// What was moved, of which the target has acknowledged every part. Bytes are those of the documents' BSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Documents read from the source.
    pub read: u64,
    /// Bytes read from the source.
    pub read_bytes: u64,
    /// Documents that are on the target as they should be: inserted, replaced, or left there by an earlier attempt.
    pub written: u64,
    /// Bytes of those.
    pub written_bytes: u64,
    /// The digest of those, which the target has acknowledged with just these bytes. None where it is not known: of
    /// some of them no digest was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Those of `written` that an earlier attempt had left in another version, brought to what the source has now.
    pub replaced: u64,
    /// Bytes of those.
    pub replaced_bytes: u64,
    /// Documents that are not on the target: each is, or is part of, a finding.
    pub rejected: u64,
    /// Bytes of those.
    pub rejected_bytes: u64,
    /// Documents that an earlier attempt had sent already, whatever became of it: the work done twice.
    pub replayed: u64,
    /// Those of `written` that were found as they should be in a collection that this job did not create: whether it
    /// put them there before it was killed, or somebody else did, nobody can tell.
    pub present: u64,
    /// Documents that an earlier attempt had sent and the source has deleted since, deleted on the target too.
    pub deleted: u64,
    /// Documents whose `_id` a foreign document has on the target, which was left as it is without a finding
    /// (`--on-conflict keep`).
    #[serde(skip_serializing_if = "is_zero")]
    pub kept: u64,
    /// Those of `written` that took the place of a foreign document (`--on-conflict replace`).
    #[serde(skip_serializing_if = "is_zero")]
    pub overwritten: u64,
    /// Documents that the shard has and does not own, which were left out; they are not among those that were read.
    #[serde(skip_serializing_if = "is_zero")]
    pub orphans: u64,
    /// Documents that the scan gave twice, since they were deleted and inserted again on the source meanwhile: counted as
    /// written the first time.
    #[serde(skip_serializing_if = "is_zero")]
    pub again: u64,
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Default for Counts {
    /// Nothing was moved, and the digest of that is known.
    fn default() -> Self {
        Self {
            read: 0,
            read_bytes: 0,
            written: 0,
            written_bytes: 0,
            digest: Some(Digest::default()),
            replaced: 0,
            replaced_bytes: 0,
            rejected: 0,
            rejected_bytes: 0,
            replayed: 0,
            present: 0,
            deleted: 0,
            kept: 0,
            orphans: 0,
            overwritten: 0,
            again: 0,
        }
    }
}

impl Counts {
    /// One more document that is on the target with these bytes.
    pub fn wrote(&mut self, document: &[u8]) {
        self.written += 1;
        self.written_bytes = self.written_bytes.wrapping_add(document.len() as u64);
        self.digest = self.digest.map(|digest| digest + Digest::of(document));
    }

    /// A document that was counted as written is not there, or not with these bytes.
    pub fn did_not_write(&mut self, document: &[u8]) {
        self.written -= 1;
        // What takes the place of a larger one that another batch has counted makes this batch's bytes less than
        // nothing; the sum of both is right.
        self.written_bytes = self.written_bytes.wrapping_sub(document.len() as u64);
        self.digest = self.digest.map(|digest| digest - Digest::of(document));
    }
}

impl Add for Counts {
    type Output = Counts;

    fn add(self, other: Counts) -> Counts {
        Counts {
            read: self.read + other.read,
            read_bytes: self.read_bytes + other.read_bytes,
            written: self.written + other.written,
            written_bytes: self.written_bytes.wrapping_add(other.written_bytes),
            digest: self.digest.zip(other.digest).map(|(one, other)| one + other),
            replaced: self.replaced + other.replaced,
            replaced_bytes: self.replaced_bytes + other.replaced_bytes,
            rejected: self.rejected + other.rejected,
            rejected_bytes: self.rejected_bytes + other.rejected_bytes,
            replayed: self.replayed + other.replayed,
            present: self.present + other.present,
            deleted: self.deleted + other.deleted,
            kept: self.kept + other.kept,
            orphans: self.orphans + other.orphans,
            overwritten: self.overwritten + other.overwritten,
            again: self.again + other.again,
        }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        *self = *self + other;
    }
}

impl std::iter::Sum for Counts {
    fn sum<I: Iterator<Item = Counts>>(iter: I) -> Counts {
        iter.fold(Counts::default(), Add::add)
    }
}
