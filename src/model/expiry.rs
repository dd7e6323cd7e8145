//! Holding back what deletes by time: until the job is committed no document of the target may go, or it could no longer be
//! held against what was copied. An index, or a collection, gets its `expireAfterSeconds` when the job is committed.

use serde_json::{Value, json};

const EXPIRY: &str = "expireAfterSeconds";

/// How long servers before 5.1 are told to keep documents meanwhile, in seconds: as long as 4.4 lets one say, which takes
/// no more than the time since 1970. Documents with dates before 1972 it does not hold back.
const FAR: i64 = 1_700_000_000;

/// How an index is held back, which depends on the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holding {
    /// Built as one that deletes nothing: from 5.1 on `collMod` makes any index a TTL index
    /// (<https://www.mongodb.com/docs/manual/reference/command/collMod/#index-options>).
    Without,
    /// Built with a time that is far away: older servers change the time of TTL indexes only.
    Far,
}

/// What is asked of `createIndexes` meanwhile.
pub fn hold_index(index: &Value, holding: Holding) -> Value {
    let mut held = index.clone();
    if let Some(fields) = held.as_object_mut()
        && fields.contains_key(EXPIRY)
    {
        match holding {
            Holding::Without => fields.shift_remove(EXPIRY),
            Holding::Far => fields.insert(EXPIRY.into(), json!({"$numberInt": FAR.to_string()})),
        };
    }
    held
}

/// What a collection is created with meanwhile.
pub fn hold_options(options: &Value) -> Value {
    hold_index(options, Holding::Without)
}

/// Whether an index, as it is listed, deletes nothing by time, or is held back.
pub fn is_held(index: &Value) -> bool {
    seconds(index).is_none_or(|seconds| seconds == FAR)
}

/// After how many seconds an index, or a collection, deletes documents; none where it does not.
pub fn seconds(listed: &Value) -> Option<i64> {
    let number = super::index::number(listed.get(EXPIRY)?)?;
    Some(number as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_back_deletes_nothing_and_says_so() {
        let index =
            json!({"name": "n", "key": {"at": {"$numberInt": "1"}}, "expireAfterSeconds": {"$numberInt": "60"}});
        assert_eq!((seconds(&index), is_held(&index)), (Some(60), false));
        for holding in [Holding::Without, Holding::Far] {
            let held = hold_index(&index, holding);
            assert!(is_held(&held), "{held}");
            assert_eq!(seconds(&held).is_some(), holding == Holding::Far);
            let other = json!({"name": "n", "key": {"at": 1}});
            assert_eq!(hold_index(&other, holding), other);
        }
        let options = json!({"clusteredIndex": {}, "expireAfterSeconds": {"$numberLong": "100"}});
        assert_eq!(hold_options(&options), json!({"clusteredIndex": {}}));
    }
}
