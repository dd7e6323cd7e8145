//! A setting can be given in three places. This module knows which settings there are, where each may be given, and how
//! to say in a message where a value came from.

use super::file::Content;
use crate::environment::{Environment, PREFIX};
use crate::error::Error;
use crate::model::choice::{
    Against, CheckpointMode, CreateIndex, Existing, OnConflict, Orphans, ReadOrder, ReadPreference, ReadThrough, Verify,
};
use crate::model::system::SystemKind;
use crate::redact::redact;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The words for `--existing`.
pub const EXISTING: &[&str] = &[Existing::Refuse.word(), Existing::Drop.word(), Existing::Keep.word()];
/// The words for `--on-conflict`.
pub const ON_CONFLICT: &[&str] = &[OnConflict::Report.word(), OnConflict::Replace.word(), OnConflict::Keep.word()];
/// The words for `--orphans`.
pub const ORPHANS: &[&str] = &[Orphans::Skip.word(), Orphans::Copy.word(), Orphans::Fail.word()];
/// The words for `--include-system`.
pub const INCLUDE_SYSTEM: &[&str] = &[SystemKind::Function.word(), SystemKind::Role.word(), SystemKind::User.word()];
/// The words for `--create-index`.
pub const CREATE_INDEX: &[&str] =
    &[CreateIndex::None.word(), CreateIndex::Background.word(), CreateIndex::Foreground.word()];
/// The words for `--checkpoint-mode`.
pub const CHECKPOINT_MODES: &[&str] =
    &[CheckpointMode::Oplog.word(), CheckpointMode::ChangeStream.word(), CheckpointMode::None.word()];
/// The words for `--verify`.
pub const VERIFY: &[&str] = &[Verify::Metadata.word(), Verify::Full.word(), Verify::None.word()];
/// The words for `--against`.
pub const AGAINST: &[&str] = &[Against::Proofs.word(), Against::Source.word()];
/// The words for `--read`.
pub const READ: &[&str] = &[ReadThrough::Shards.word(), ReadThrough::Mongos.word()];
/// The words for `--read-order`.
pub const READ_ORDER: &[&str] = &[ReadOrder::Auto.word(), ReadOrder::Id.word(), ReadOrder::Natural.word()];
/// The words for `--read-preference`.
pub const READ_PREFERENCE: &[&str] = &[
    ReadPreference::Primary.word(),
    ReadPreference::PrimaryPreferred.word(),
    ReadPreference::Secondary.word(),
    ReadPreference::SecondaryPreferred.word(),
    ReadPreference::Nearest.word(),
];
/// The words for `--stop-balancer`, `--fence-writes`, `--digests` and `--zones`.
pub const YES_NO: &[&str] = &["yes", "no"];
/// The words for `--log-format`.
pub const LOG_FORMATS: &[&str] = &["text", "json"];
/// The words for `--log-level`.
pub const LOG_LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace"];

/// Where a setting may be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Places {
    /// As a flag alone: it is about this run, or too dangerous to be left lying in a file.
    Flag,
    /// As a flag or an environment variable.
    FlagAndEnvironment,
    /// In the file as well.
    Everywhere,
}

/// A setting, by its flag's name, which is its key in the file too.
#[derive(Debug)]
pub struct Setting {
    /// As in `--save-interval` and `save-interval = "1s"`.
    pub name: &'static str,
    /// Where it may be given.
    pub places: Places,
    /// It is there or not, and has no value.
    pub switch: bool,
    /// It has any number of values.
    pub list: bool,
    /// Its value is never quoted.
    pub secret: bool,
}

const fn one(name: &'static str) -> Setting {
    Setting { name, places: Places::Everywhere, switch: false, list: false, secret: false }
}

const fn list(name: &'static str) -> Setting {
    Setting { list: true, ..one(name) }
}

const fn secret(name: &'static str) -> Setting {
    Setting { secret: true, ..one(name) }
}

const fn flag(name: &'static str) -> Setting {
    Setting { places: Places::Flag, ..one(name) }
}

const fn switch(name: &'static str) -> Setting {
    Setting { switch: true, ..flag(name) }
}

/// All settings. A test in `cli` holds them against the flags.
pub const SETTINGS: &[Setting] = &[
    Setting { places: Places::FlagAndEnvironment, ..one("config") },
    one("job"),
    one("state"),
    one("s3-endpoint"),
    one("expected-bucket-owner"),
    one("state-machine"),
    secret("source"),
    Setting { list: true, ..secret("source-shard") },
    secret("source-config"),
    one("read"),
    secret("target"),
    one("source-ca"),
    one("target-ca"),
    list("include"),
    list("exclude"),
    list("rename"),
    one("rename-dbrefs"),
    list("include-system"),
    one("orphans"),
    one("stop-balancer"),
    one("existing"),
    switch("drop-committed"),
    list("keep-unsharded"),
    list("keep-sharding"),
    one("zones"),
    one("max-initial-chunks"),
    one("on-conflict"),
    one("max-rejected"),
    one("create-index"),
    one("index-parallelism"),
    one("fence-writes"),
    one("digests"),
    one("checkpoint-mode"),
    secret("checkpoint-uri"),
    one("checkpoint-namespace"),
    switch("accept-findings"),
    one("verify"),
    one("against"),
    one("partition-size"),
    one("lanes-per-shard"),
    one("max-lanes"),
    one("read-order"),
    one("read-preference"),
    one("min-oplog-window"),
    one("memory"),
    one("max-readers"),
    one("max-writers"),
    one("max-documents-per-second"),
    one("max-bytes-per-second"),
    one("time-budget"),
    one("margin"),
    one("save-interval"),
    one("lease"),
    switch("takeover"),
    switch("dry-run"),
    flag("shard"),
    flag("lane"),
    flag("namespace"),
    one("http"),
    one("log-format"),
    one("log-level"),
    switch("quiet"),
];

/// The setting of this name.
pub fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

impl Setting {
    /// Its environment variable, if it may be given in the environment.
    pub fn variable(&self) -> String {
        format!("{PREFIX}{}", self.name.to_ascii_uppercase().replace('-', "_"))
    }
}

/// What a setting was given as, in one place.
#[derive(Clone)]
pub enum Texts {
    /// As one text, or several; where the setting is a list, each may hold several values with commas between.
    Commas(Vec<String>),
    /// As an array in the file: each is one value, commas and all.
    Exact(Vec<String>),
}

/// The flags as they were given. Not `Debug`: it may hold passwords.
#[derive(Clone, Default)]
pub struct RawArguments {
    values: BTreeMap<&'static str, Vec<String>>,
    /// `--drop-committed`
    pub drop_committed: bool,
    /// `--accept-findings`
    pub accept_findings: bool,
    /// `--takeover`
    pub takeover: bool,
    /// `--quiet`
    pub quiet: bool,
    /// `--dry-run`
    pub dry_run: bool,
}

impl RawArguments {
    /// Takes over a flag's value or values; no values is not given.
    pub fn set<'a>(&mut self, name: &'static str, values: impl IntoIterator<Item = &'a String>) {
        let values: Vec<String> = values.into_iter().cloned().collect();
        if !values.is_empty() {
            self.values.insert(name, values);
        }
    }

    /// Whether the flag was given.
    pub fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }
}

/// The three places, to be asked for the value that wins.
#[derive(Clone)]
pub struct Layers {
    /// The flags.
    pub flags: RawArguments,
    /// The environment.
    pub environment: Environment,
    /// The file's path and content, when there is one.
    pub file: Option<(PathBuf, Content)>,
}

/// A value and where it came from.
pub struct Given {
    setting: &'static Setting,
    texts: Texts,
    place: Place,
}

enum Place {
    Flag,
    Environment,
    File(PathBuf),
}

impl Layers {
    /// The value that wins. Lists are not merged: the winner's list is the list.
    pub fn given(&self, name: &str) -> Option<Given> {
        let setting = find(name)?;
        if let Some(values) = self.flags.values.get(name) {
            return Some(Given { setting, texts: Texts::Commas(values.clone()), place: Place::Flag });
        }
        if setting.places != Places::Flag
            && let Some(value) = self.environment.get(&setting.variable())
        {
            return Some(Given { setting, texts: Texts::Commas(vec![value.to_owned()]), place: Place::Environment });
        }
        let (path, content) = self.file.as_ref()?;
        content.texts.get(name).map(|texts| Given { setting, texts: texts.clone(), place: Place::File(path.clone()) })
    }
}

impl Given {
    /// The one value.
    pub fn text(&self) -> &str {
        let (Texts::Commas(texts) | Texts::Exact(texts)) = &self.texts;
        texts.first().map_or("", String::as_str)
    }

    /// The values of a list.
    pub fn values(&self) -> Vec<&str> {
        match &self.texts {
            Texts::Commas(texts) => texts.iter().flat_map(|text| text.split(',')).map(str::trim).collect(),
            Texts::Exact(texts) => texts.iter().map(String::as_str).collect(),
        }
    }

    /// The values of a list of connection strings, which hold commas: there is white space between them.
    pub fn uris(&self) -> Vec<&str> {
        let (Texts::Commas(texts) | Texts::Exact(texts)) = &self.texts;
        texts.iter().flat_map(|text| text.split_whitespace()).collect()
    }

    /// Where it was given, without its value: `--lease`, `MONGOFERRY_LEASE`, `` `lease` in mongoferry.toml ``.
    pub fn place(&self) -> String {
        match &self.place {
            Place::Flag => format!("--{}", self.setting.name),
            Place::Environment => self.setting.variable(),
            Place::File(path) => format!("`{}` in {}", self.setting.name, path.display()),
        }
    }

    /// The error that this value is: where it was given, as what (unless it is a secret), and why it will not do.
    pub fn refuse(&self, reason: impl std::fmt::Display) -> Error {
        let (Texts::Commas(texts) | Texts::Exact(texts)) = &self.texts;
        let value = texts.join(",");
        let value = redact(&value);
        let value = value.escape_debug();
        let said = match &self.place {
            _ if self.setting.secret => self.place(),
            Place::Flag => format!("--{} {value}", self.setting.name),
            Place::Environment => format!("{}={value}", self.setting.variable()),
            Place::File(path) => format!("`{} = \"{value}\"` in {}", self.setting.name, path.display()),
        };
        Error::bad_input(format!("{said}: {reason}"))
    }
}

/// The known name that was probably meant.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Two mistakes in a long name, one in a short one: farther off, it is more likely another word.
    let tolerated = if name.chars().count() > 5 { 2 } else { 1 };
    let by_distance = known.into_iter().map(|known| (distance(name, known), known));
    by_distance.filter(|(distance, _)| *distance <= tolerated).min().map(|(_, known)| known)
}

/// How many characters must be put in, left out, replaced or swapped with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors() {
        let known = || SETTINGS.iter().map(|setting| setting.name);
        for (name, meant) in [
            ("lesae", Some("lease")),
            ("save_interval", Some("save-interval")),
            ("time-bugdet", Some("time-budget")),
            ("jobs", Some("job")),
            ("includes", Some("include")),
            ("colour", None),
            ("x", None),
        ] {
            assert_eq!(nearest(name, known()), meant, "{name}");
        }
    }
}
