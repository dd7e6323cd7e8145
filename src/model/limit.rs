//! What limits a copy while it runs: the most that a job may send a second, and whether it is paused. The flags of a run
//! say what it begins with; what `mongoferry control` has said since, kept in the state store, wins until `control` says
//! otherwise.

use super::size;
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;

/// The word for "no limit".
const NONE: &str = "none";

/// The word for "what the flags say".
const DEFAULT: &str = "default";

/// The most documents a second that may be asked for: beyond what any server takes.
const DOCUMENTS_RANGE: RangeInclusive<u64> = 1..=1_000_000_000;

/// The most bytes a second that may be asked for. Below the least, one large document would take half a day.
const BYTES_RANGE: RangeInclusive<u64> = 1 << 10..=1 << 40;

/// What can be limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantity {
    /// Documents a second.
    Documents,
    /// Bytes a second, as the documents' BSON has them.
    Bytes,
}

impl Quantity {
    /// All of them, in the order in which messages list them.
    pub const ALL: [Quantity; 2] = [Quantity::Documents, Quantity::Bytes];

    /// Its name, the same for the flag and for `control`.
    pub const fn name(self) -> &'static str {
        match self {
            Quantity::Documents => "max-documents-per-second",
            Quantity::Bytes => "max-bytes-per-second",
        }
    }

    /// A limit from a text; `None` is none.
    ///
    /// # Errors
    /// What is wrong with it, and how to write it.
    pub fn parse(self, text: &str) -> Result<Option<u64>, String> {
        if text == NONE {
            return Ok(None);
        }
        let (limit, range) = match self {
            Quantity::Documents => (text.parse().ok(), DOCUMENTS_RANGE),
            Quantity::Bytes => (size::parse(text).ok(), BYTES_RANGE),
        };
        let limit = limit.ok_or_else(|| match self {
            Quantity::Documents => "not a number of documents; write it like 500, or none".to_owned(),
            Quantity::Bytes => "not a size; write it like 500KB, 20MB or 64MiB, or none".to_owned(),
        })?;
        if !range.contains(&limit) {
            let [least, most] = [range.start(), range.end()].map(|bound| self.show(Some(*bound)));
            return Err(format!("must be from {least} to {most}, or none; `pause` stops a copy for a while"));
        }
        Ok(Some(limit))
    }

    /// A limit so that [`Quantity::parse`] reads the same again.
    pub fn show(self, limit: Option<u64>) -> String {
        match (self, limit) {
            (_, None) => NONE.to_owned(),
            (Quantity::Documents, Some(limit)) => limit.to_string(),
            (Quantity::Bytes, Some(limit)) => size::show(limit),
        }
    }
}

/// The most that all workers of a job may send a second; `None` is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RateLimits {
    /// Documents.
    pub documents: Option<u64>,
    /// Bytes.
    pub bytes: Option<u64>,
}

/// What holds now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InForce {
    /// The rates.
    pub rates: RateLimits,
    /// Nothing is sent.
    pub paused: bool,
}

impl InForce {
    /// In words, for a log line.
    pub fn text(&self) -> String {
        let rates = [(Quantity::Documents, self.rates.documents), (Quantity::Bytes, self.rates.bytes)];
        let rates = rates.map(|(quantity, limit)| format!("{} is {}", quantity.name(), quantity.show(limit)));
        let paused = if self.paused { "paused, " } else { "" };
        format!("{paused}{}", rates.join(", "))
    }
}

/// What `control` has said of one limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// Nothing, or that the flags shall count.
    #[default]
    Default,
    /// That there is none.
    None,
    /// So much a second.
    AtMost(u64),
}

impl Said {
    /// What holds, where the flags say `flag`.
    fn or(self, flag: Option<u64>) -> Option<u64> {
        match self {
            Said::Default => flag,
            Said::None => None,
            Said::AtMost(limit) => Some(limit),
        }
    }

    fn is_default(&self) -> bool {
        *self == Said::Default
    }

    /// In the words in which it was said.
    pub fn show(self, quantity: Quantity) -> String {
        match self {
            Said::Default => DEFAULT.to_owned(),
            Said::None => quantity.show(None),
            Said::AtMost(limit) => quantity.show(Some(limit)),
        }
    }
}

/// What `control` has said about a job, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Control {
    /// Nothing is to be sent.
    #[serde(default)]
    pub paused: bool,
    /// Documents a second.
    #[serde(default, skip_serializing_if = "Said::is_default")]
    pub max_documents_per_second: Said,
    /// Bytes a second.
    #[serde(default, skip_serializing_if = "Said::is_default")]
    pub max_bytes_per_second: Said,
    /// When it was last changed: for people.
    pub changed: String,
}

impl Control {
    /// What holds for a run with these flags.
    pub fn in_force(&self, flags: RateLimits) -> InForce {
        InForce {
            rates: RateLimits {
                documents: self.max_documents_per_second.or(flags.documents),
                bytes: self.max_bytes_per_second.or(flags.bytes),
            },
            paused: self.paused,
        }
    }

    /// What it has said of one limit.
    pub fn said(&self, quantity: Quantity) -> Said {
        match quantity {
            Quantity::Documents => self.max_documents_per_second,
            Quantity::Bytes => self.max_bytes_per_second,
        }
    }
}

/// What is to be changed; what is `None` stays. Made twice it is the same, so it may be made again when it is not known
/// whether it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Change {
    /// Paused or not.
    pub paused: Option<bool>,
    /// Documents a second.
    pub documents: Option<Said>,
    /// Bytes a second.
    pub bytes: Option<Said>,
}

impl Change {
    /// From the words of a command line: `pause`, `resume`, `NAME=VALUE`.
    ///
    /// # Errors
    /// The word that is wrong, why, and what would be right.
    pub fn parse<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut change = Self::default();
        for word in words {
            let known = || Quantity::ALL.map(|quantity| format!("{}=VALUE", quantity.name())).join(", ");
            let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
            let quantity = Quantity::ALL.into_iter().find(|quantity| quantity.name() == name);
            let twice = match (name, quantity, value) {
                ("pause" | "resume", _, None) => change.paused.replace(name == "pause").is_some(),
                (_, Some(quantity), Some(value)) => {
                    let said = parse_said(quantity, value).map_err(|reason| format!("{word}: {reason}"))?;
                    let place = match quantity {
                        Quantity::Documents => &mut change.documents,
                        Quantity::Bytes => &mut change.bytes,
                    };
                    place.replace(said).is_some()
                }
                (_, Some(_), None) => {
                    return Err(format!("{word}: wants a value; write {word}=VALUE, {word}=none or {word}=default"));
                }
                _ => return Err(format!("{word}: nothing that can be changed; write {}, pause or resume", known())),
            };
            if twice {
                return Err(format!("{word}: is said twice, or `pause` and `resume` at once; leave one of them out"));
            }
        }
        Ok(change)
    }

    /// Whether nothing is to be changed.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// What was said before, with this change.
    pub fn apply(&self, before: &Control) -> Control {
        Control {
            paused: self.paused.unwrap_or(before.paused),
            max_documents_per_second: self.documents.unwrap_or(before.max_documents_per_second),
            max_bytes_per_second: self.bytes.unwrap_or(before.max_bytes_per_second),
            changed: before.changed.clone(),
        }
    }
}

fn parse_said(quantity: Quantity, text: &str) -> Result<Said, String> {
    match text {
        DEFAULT => Ok(Said::Default),
        _ => Ok(quantity
            .parse(text)
            .map_err(|reason| reason.replace("or none", "none or default"))?
            .map_or(Said::None, Said::AtMost)),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn limits_as_people_write_them() {
        assert_eq!(Quantity::Documents.parse("500"), Ok(Some(500)));
        assert_eq!(Quantity::Bytes.parse("20MB"), Ok(Some(20_000_000)));
        assert_eq!(Quantity::Bytes.parse("1KiB"), Ok(Some(1_024)));
        for quantity in Quantity::ALL {
            assert_eq!(quantity.parse("none"), Ok(None));
            for text in ["", "0", "-5", "soon", "1e6", "NaN", "99999999999999999999999", "5MB/s", "default", "None"] {
                assert!(quantity.parse(text).is_err(), "{text}");
            }
        }
        for (quantity, text, says) in [
            (Quantity::Documents, "0", "from 1 to 1000000000"),
            (Quantity::Documents, "2000000000", "from 1 to 1000000000"),
            (Quantity::Documents, "1.5", "like 500"),
            (Quantity::Bytes, "1000", "from 1KiB to 1TiB"),
            (Quantity::Bytes, "2TiB", "from 1KiB to 1TiB"),
            (Quantity::Bytes, "5MB/s", "20MB"),
        ] {
            let error = quantity.parse(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn changes_as_people_write_them() {
        let words = ["max-bytes-per-second=20MB", "pause", "max-documents-per-second=none"];
        let change = Change { paused: Some(true), documents: Some(Said::None), bytes: Some(Said::AtMost(20_000_000)) };
        assert_eq!(Change::parse(words), Ok(change));
        assert_eq!(Change::parse(["resume", "max-bytes-per-second=default"]).unwrap().bytes, Some(Said::Default));
        assert!(Change::parse([]).unwrap().is_nothing());
        for (words, says) in [
            (&["stop"] as &[&str], "pause or resume"),
            (&["pause=1"], "pause or resume"),
            (&["max-bytes=5MB"], "max-bytes-per-second=VALUE"),
            (&["=5"], "max-bytes-per-second=VALUE"),
            (&[""], "max-bytes-per-second=VALUE"),
            (&["max-bytes-per-second"], "wants a value"),
            (&["max-bytes-per-second="], "none or default"),
            (&["max-bytes-per-second=0"], "from 1KiB to 1TiB"),
            (&["max-bytes-per-second=5MB", "max-bytes-per-second=5MB"], "twice"),
            (&["max-documents-per-second=-5"], "max-documents-per-second=-5: not a number"),
            (&["pause", "resume"], "leave one of them out"),
        ] {
            let error = Change::parse(words.iter().copied()).unwrap_err();
            assert!(error.contains(says), "{words:?}: {error}");
        }
    }

    fn said() -> impl Strategy<Value = Said> {
        prop_oneof![Just(Said::Default), Just(Said::None), (1..u64::MAX).prop_map(Said::AtMost)]
    }

    fn change() -> impl Strategy<Value = Change> {
        let said = || proptest::option::of(said());
        (proptest::option::of(any::<bool>()), said(), said()).prop_map(|(paused, documents, bytes)| Change {
            paused,
            documents,
            bytes,
        })
    }

    proptest! {
        #[test]
        fn what_control_said_last_wins_and_the_flags_count_where_it_said_nothing(
            changes in proptest::collection::vec(change(), 0..5),
            (documents, bytes) in (proptest::option::of(1..9_u64), proptest::option::of(1..9_u64)),
        ) {
            let control = changes.iter().fold(Control::default(), |control, change| change.apply(&control));
            let last = |of: fn(&Change) -> Option<Said>| changes.iter().rev().find_map(of).unwrap_or_default();
            let in_force = control.in_force(RateLimits { documents, bytes });
            let holds = |said: Said, flag| match said {
                Said::Default => flag,
                Said::None => None,
                Said::AtMost(limit) => Some(limit),
            };
            prop_assert_eq!(in_force.rates.documents, holds(last(|change| change.documents), documents));
            prop_assert_eq!(in_force.rates.bytes, holds(last(|change| change.bytes), bytes));
            prop_assert_eq!(in_force.paused, changes.iter().rev().find_map(|change| change.paused).unwrap_or(false));
        }

        #[test]
        fn a_change_may_be_made_twice(first in change(), change in change()) {
            let before = first.apply(&Control::default());
            let once = change.apply(&before);
            prop_assert_eq!(change.apply(&once), once);
        }

        #[test]
        fn a_limit_is_read_as_it_is_shown(limit in 1..1_000_000_000_u64) {
            prop_assert_eq!(Quantity::Documents.parse(&Quantity::Documents.show(Some(limit))), Ok(Some(limit)));
            let bytes = limit + 1_024;
            prop_assert_eq!(Quantity::Bytes.parse(&Quantity::Bytes.show(Some(bytes))), Ok(Some(bytes)));
        }
    }
}
