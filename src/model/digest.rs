//! A digest of a set of documents that does not depend on their order.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::ops::{Add, AddAssign, Sub, SubAssign};

/// The SHA-256 of each document's bytes as a big-endian number, summed modulo 2^256.
///
/// A sum and not an exclusive or, so that a document that is there twice does not cancel itself out. It shows what went
/// wrong by accident; it is no defence against someone who chooses documents to make it come out equal.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Digest {
    /// The least significant limb first.
    limbs: [u64; 4],
}

impl Digest {
    /// The digest of the one document with these bytes.
    pub fn of(document: &[u8]) -> Self {
        let hash = Sha256::digest(document);
        let mut limbs = [0; 4];
        for (limb, bytes) in limbs.iter_mut().rev().zip(hash.as_chunks::<8>().0) {
            *limb = u64::from_be_bytes(*bytes);
        }
        Self { limbs }
    }

    fn hex(&self) -> String {
        self.limbs.iter().rev().map(|limb| format!("{limb:016x}")).collect()
    }

    fn from_hex(text: &str) -> Option<Self> {
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let mut limbs = [0; 4];
        for (place, limb) in limbs.iter_mut().rev().enumerate() {
            *limb = u64::from_str_radix(text.get(place * 16..place * 16 + 16)?, 16).ok()?;
        }
        Some(Self { limbs })
    }
}

impl Add for Digest {
    type Output = Digest;

    fn add(mut self, other: Digest) -> Digest {
        self += other;
        self
    }
}

impl AddAssign for Digest {
    fn add_assign(&mut self, other: Digest) {
        let mut carry = false;
        for (limb, other) in self.limbs.iter_mut().zip(other.limbs) {
            let (sum, over) = limb.overflowing_add(other);
            let (sum, over_again) = sum.overflowing_add(u64::from(carry));
            *limb = sum;
            carry = over || over_again;
        }
    }
}

impl Sub for Digest {
    type Output = Digest;

    fn sub(mut self, other: Digest) -> Digest {
        self -= other;
        self
    }
}

impl SubAssign for Digest {
    fn sub_assign(&mut self, other: Digest) {
        let mut borrow = false;
        for (limb, other) in self.limbs.iter_mut().zip(other.limbs) {
            let (rest, under) = limb.overflowing_sub(other);
            let (rest, under_again) = rest.overflowing_sub(u64::from(borrow));
            *limb = rest;
            borrow = under || under_again;
        }
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.hex())
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.hex())
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::from_hex(&text).ok_or_else(|| serde::de::Error::custom("a digest is 64 hexadecimal digits"))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_document_has_the_digest_of_its_bytes() {
        // FIPS 180-2, appendix B.1.
        assert_eq!(Digest::of(b"abc").to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn sums_carry_through_all_limbs_and_around() {
        let most = Digest { limbs: [u64::MAX; 4] };
        let one = Digest { limbs: [1, 0, 0, 0] };
        assert_eq!(most + one, Digest::default());
        assert_eq!(Digest::default() - one, most);
    }

    proptest! {
        #[test]
        fn the_order_of_documents_does_not_matter_and_each_can_be_taken_out(
            documents in proptest::collection::vec(any::<Vec<u8>>(), 1..20)
        ) {
            let sum = |all: &mut dyn Iterator<Item = &Vec<u8>>| all.fold(Digest::default(), |sum, one| sum + Digest::of(one));
            let forward = sum(&mut documents.iter());
            prop_assert_eq!(forward, sum(&mut documents.iter().rev()));
            prop_assert_eq!(forward - Digest::of(&documents[0]), sum(&mut documents.iter().skip(1)));
            let back: Digest = serde_json::from_str(&serde_json::to_string(&forward).unwrap()).unwrap();
            prop_assert_eq!(back, forward);
        }
    }
}
