//! What is looked at before a job begins, and what came of it: one row each. Discover decides by these rows, and
//! `mongoferry check` shows them.
//!
//! A row that refuses has the words of the error that it becomes: what was found, `; `, and the way out. So nothing is
//! said in two ways, and a row can be made of an error ([`Row::of_error`]).

use super::filter::Filter;
use super::namespace::{Namespace, SPECIAL_DATABASES};
use super::renames::{Renames, case_clashes};
use crate::error::Error;
use serde::Serialize;
use std::fmt;

/// How many names a sentence lists before it counts the rest.
const NAMED: usize = 5;

/// What is looked at. The words are a contract with scripts (docs/check.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// The state store, and whether it honours conditions.
    StateStore,
    /// What the state knows of the job already.
    Job,
    /// Whether the servers answer and the user is let in.
    Reached,
    /// Whether source and target are two, and those that the job is bound to.
    Deployments,
    /// What kind of deployment it is.
    Topology,
    /// The server's version.
    Version,
    /// Which features of its version a server lets be used (fCV).
    FeatureCompatibility,
    /// The server's clock against this machine's.
    Clock,
    /// One thing that the user must be allowed to do.
    Right,
    /// Whether anything moves documents between the source's shards.
    Balancer,
    /// Filters and renames name something.
    Selection,
    /// Names in the target: allowed, and each once.
    Names,
    /// How collections are to be sharded in the target.
    Sharding,
    /// Kinds of collections that are not copied.
    Kinds,
    /// Features in use that the target does not have.
    Features,
    /// Indexes that the target does not take.
    Indexes,
    /// TTL indexes that will delete at once.
    Expiry,
    /// How large and how deep documents are.
    Documents,
    /// What has the wanted names in the target.
    TargetContents,
    /// Whether the target's disk holds what is copied.
    Space,
    /// Whether the source's oplog reaches back for as long as the copy takes.
    OplogWindow,
}

impl Check {
    /// In sentences and tables.
    pub fn text(self) -> &'static str {
        match self {
            Check::StateStore => "state store",
            Check::Job => "job",
            Check::Reached => "reached",
            Check::Deployments => "two deployments",
            Check::Topology => "topology",
            Check::Version => "version",
            Check::FeatureCompatibility => "feature compatibility",
            Check::Clock => "clock",
            Check::Right => "right",
            Check::Balancer => "balancer",
            Check::Selection => "selection",
            Check::Names => "names",
            Check::Sharding => "sharding",
            Check::Kinds => "kinds",
            Check::Features => "features",
            Check::Indexes => "indexes",
            Check::Expiry => "expiry",
            Check::Documents => "documents",
            Check::TargetContents => "target's contents",
            Check::Space => "space",
            Check::OplogWindow => "oplog window",
        }
    }
}

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing is in the way.
    Ok,
    /// It could not be looked at; nothing depends on it, or what it depends on has a row of its own.
    #[serde(rename = "not looked at")]
    NotLookedAt,
    /// A person should know it.
    Warning,
    /// A job does not begin like this.
    Refusal,
}

impl Verdict {
    /// Its word, as in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::NotLookedAt => "not looked at",
            Verdict::Warning => "warning",
            Verdict::Refusal => "refusal",
        }
    }
}

/// One check and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// What was looked at.
    pub check: Check,
    /// On what: `source`, `target`, `shard s0`, `state`, …
    pub about: String,
    /// What came of it.
    #[serde(rename = "status")]
    pub verdict: Verdict,
    /// What was found, in a sentence.
    pub found: String,
    /// What to do about it. None where there is nothing to do.
    pub way_out: Option<String>,
}

impl Row {
    /// Nothing is in the way.
    pub fn ok(check: Check, about: impl fmt::Display, found: impl Into<String>) -> Self {
        Self { check, about: about.to_string(), verdict: Verdict::Ok, found: found.into(), way_out: None }
    }

    /// It could not be looked at.
    pub fn not_looked_at(check: Check, about: impl fmt::Display, why: impl fmt::Display) -> Self {
        let found = format!("not looked at: {why}");
        Self { verdict: Verdict::NotLookedAt, ..Self::ok(check, about, found) }
    }

    /// A person should know it.
    pub fn warning(
        check: Check,
        about: impl fmt::Display,
        found: impl Into<String>,
        way_out: impl Into<String>,
    ) -> Self {
        Self { verdict: Verdict::Warning, way_out: Some(way_out.into()), ..Self::ok(check, about, found) }
    }

    /// A job does not begin like this.
    pub fn refusal(
        check: Check,
        about: impl fmt::Display,
        found: impl Into<String>,
        way_out: impl Into<String>,
    ) -> Self {
        Self { verdict: Verdict::Refusal, ..Self::warning(check, about, found, way_out) }
    }

    /// The refusal that an error is.
    pub fn of_error(check: Check, about: impl fmt::Display, error: &Error) -> Self {
        let text = error.to_string();
        match text.rsplit_once("; ") {
            Some((found, way_out)) => Self::refusal(check, about, found, way_out),
            None => Self { verdict: Verdict::Refusal, ..Self::ok(check, about, text) },
        }
    }

    /// What was found and the way out, as an error or a note has them.
    pub fn sentence(&self) -> String {
        match &self.way_out {
            Some(way_out) => format!("{}; {way_out}", self.found),
            None => self.found.clone(),
        }
    }
}

/// All rows, in the order in which they were looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Table {
    /// The rows.
    pub rows: Vec<Row>,
}

impl Table {
    /// The worst that a row says.
    pub fn verdict(&self) -> Verdict {
        self.rows.iter().map(|row| row.verdict).max().unwrap_or(Verdict::Ok)
    }

    /// Those with this verdict.
    pub fn with(&self, verdict: Verdict) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(move |row| row.verdict == verdict)
    }

    /// Whether a job may begin.
    ///
    /// # Errors
    /// Bad input in the words of the first refusal, and how many more there are.
    pub fn refuse(&self, job: impl fmt::Display) -> Result<(), Error> {
        let mut refusals = self.with(Verdict::Refusal);
        let Some(first) = refusals.next() else { return Ok(()) };
        Err(Error::bad_input(match refusals.count() {
            0 => first.sentence(),
            more => format!("{} (and {more} more refusals: `mongoferry check --job {job}` has all)", first.sentence()),
        }))
    }

    /// The same for whoever has been shown the table.
    ///
    /// # Errors
    /// Bad input, with how many refuse, and the first.
    pub fn refuse_all(&self) -> Result<(), Error> {
        let mut refusals = self.with(Verdict::Refusal);
        let Some(first) = refusals.next() else { return Ok(()) };
        let (count, of) = (1 + refusals.count(), self.rows.len());
        Err(Error::bad_input(format!("{count} of {of} checks refuse, the first: {}", first.sentence())))
    }

    /// As a table for people; the last line counts.
    pub fn text(&self) -> String {
        let width = |of: fn(&Row) -> &str| self.rows.iter().map(|row| of(row).chars().count()).max().unwrap_or(0);
        let (about, check) = (width(|row| &row.about), width(|row| row.check.text()));
        let mut lines = Vec::new();
        for row in &self.rows {
            let head = format!("{:<13}  {:<about$}  {:<check$}  ", row.verdict.word(), row.about, row.check.text());
            lines.push(format!("{head}{}", row.found));
            if let Some(way_out) = &row.way_out {
                lines.push(format!("{:>1$}{way_out}", "→ ", head.chars().count()));
            }
        }
        let counted = |verdict: Verdict, one: &str, more: &str| match self.with(verdict).count() {
            0 => None,
            1 => Some(format!("1 {one}")),
            count => Some(format!("{count} {more}")),
        };
        let counts = [
            counted(Verdict::Ok, "ok", "ok"),
            counted(Verdict::NotLookedAt, "not looked at", "not looked at"),
            counted(Verdict::Warning, "warning", "warnings"),
            counted(Verdict::Refusal, "refusal", "refusals"),
        ];
        lines.push(counts.into_iter().flatten().collect::<Vec<_>>().join(", "));
        lines.join("\n")
    }
}

impl Extend<Row> for Table {
    fn extend<T: IntoIterator<Item = Row>>(&mut self, rows: T) {
        self.rows.extend(rows);
    }
}

/// The first few of some names, and how many more there are.
pub fn names<T: fmt::Display>(all: &[T]) -> String {
    let mut text = all.iter().take(NAMED).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if all.len() > NAMED {
        text.push_str(&format!(" and {} more", all.len() - NAMED));
    }
    text
}

/// Whether filters and renames name what is there, and what they come to can be in one target, which has the databases
/// `on_target`.
pub fn of_names(filter: &Filter, renames: &Renames, namespaces: &[Namespace], on_target: &[String]) -> Vec<Row> {
    let mut selection = Vec::new();
    let refused = |check, found: String, way_out: &str| Row::refusal(check, "source", found, way_out);
    selection.extend(
        filter
            .unmatched_includes(namespaces)
            .iter()
            .map(|pattern| format!("--include {pattern} matches no collection of the source"))
            .map(|found| refused(Check::Selection, found, "correct it")),
    );
    selection.extend(
        renames
            .unmatched(namespaces)
            .iter()
            .map(|rename| format!("--rename {rename} names nothing that is copied"))
            .map(|found| refused(Check::Selection, found, "correct it, --include or --exclude")),
    );
    let mut targets = Vec::new();
    let refused = |found: String, way_out: &str| Row::refusal(Check::Names, "target", found, way_out);
    targets.extend(renames.collisions(namespaces).iter().map(|(target, sources)| {
        refused(format!("{} would all be copied to {target}", names(sources)), "rename or exclude all but one")
    }));
    targets.extend(renames.refused_targets(namespaces).iter().map(|(namespace, why)| {
        let text = format!("{namespace} cannot be copied under its new name: {why}");
        Row::of_error(Check::Names, "target", &Error::bad_input(text))
    }));
    let to: Vec<Namespace> = namespaces.iter().map(|namespace| renames.apply(namespace)).collect();
    let there = on_target.iter().map(String::as_str).chain(SPECIAL_DATABASES);
    targets.extend(case_clashes(to.iter().map(Namespace::db).chain(there)).iter().map(|clash| {
        let clash = clash.join(", ");
        refused(
            format!("the target's databases {clash} would differ only in case, which a server refuses"),
            "rename all but one",
        )
    }));
    if namespaces.is_empty() && selection.is_empty() {
        selection.push(Row::refusal(
            Check::Selection,
            "source",
            format!("there is nothing to copy: no collection of the source is let through by the filter `{filter}`"),
            "correct --source, --include or --exclude",
        ));
    }
    if selection.is_empty() {
        let found = format!("{} collections and views are let through by the filter `{filter}`", namespaces.len());
        selection.push(Row::ok(Check::Selection, "source", found));
    }
    if targets.is_empty() {
        targets.push(Row::ok(Check::Names, "target", "all names can be had in the target, and none twice"));
    }
    selection.into_iter().chain(targets).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;
    use crate::error::Kind;
    use crate::model::filter::Pattern;

    fn namespaces(names: &[&str]) -> Vec<Namespace> {
        names.iter().map(|name| Namespace::parse(name).unwrap()).collect()
    }

    #[test]
    fn a_row_of_an_error_has_its_words() {
        for text in ["a: b; c, d; do this", "nothing can be done"] {
            let row = Row::of_error(Check::Reached, "source", &Error::source(text));
            assert_eq!((row.sentence().as_str(), row.verdict), (text, Verdict::Refusal));
        }
    }

    #[test]
    fn the_first_refusal_is_the_error_and_the_others_are_counted() {
        let mut table = Table::default();
        table.extend([Row::ok(Check::Reached, "source", "fine"), Row::warning(Check::Clock, "source", "slow", "mend")]);
        table.refuse("shop").unwrap();
        assert_eq!((table.verdict(), table.rows[1].sentence().as_str()), (Verdict::Warning, "slow; mend"));
        table.extend([Row::refusal(Check::Names, "target", "bad", "rename")]);
        let error = table.refuse("shop").unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (Kind::BadInput, "bad; rename"));
        table.extend([Row::refusal(Check::Kinds, "source", "worse", "exclude")]);
        let text = table.refuse("shop").unwrap_err().to_string();
        assert_eq!(text, "bad; rename (and 1 more refusals: `mongoferry check --job shop` has all)");
    }

    #[test]
    fn a_table_is_aligned_and_counts() {
        let mut table = Table::default();
        table.extend([
            Row::ok(Check::Reached, "source", "rs0"),
            Row::not_looked_at(Check::Space, "target", "no right"),
            Row::refusal(Check::Names, "target", "bad", "rename"),
        ]);
        let lines = [
            "ok             source  reached  rs0",
            "not looked at  target  space    not looked at: no right",
            "refusal        target  names    bad",
            "                              → rename",
            "1 ok, 1 not looked at, 1 refusal",
        ];
        assert_eq!(table.text(), lines.join("\n"));
    }

    #[test]
    fn all_that_is_wrong_with_names_is_told() {
        let filter = Filter::new(vec![Pattern::parse("a").unwrap(), Pattern::parse("typo").unwrap()], vec![]).unwrap();
        let renames = Renames::parse(["a.x:a.y", "b:c", "a.z:A.z"]).unwrap();
        let rows = of_names(&filter, &renames, &namespaces(&["a.x", "a.y", "a.z"]), &[]);
        let refused: Vec<&str> = rows.iter().map(|row| row.found.as_str()).collect();
        let parts = ["--include typo", "--rename b:c", "a.x, a.y would all be copied to a.y", "A, a would differ"];
        assert_eq!(refused.len(), parts.len(), "{refused:?}");
        for (found, part) in refused.iter().zip(parts) {
            assert!(found.contains(part), "{found}");
        }
        let fine = of_names(&Filter::default(), &Renames::default(), &namespaces(&["a.x"]), &["b".into()]);
        assert!(fine.iter().all(|row| row.verdict == Verdict::Ok) && fine.len() == 2, "{fine:?}");
        let none = of_names(&Filter::default(), &Renames::default(), &[], &[]);
        assert!(none[0].sentence().starts_with("there is nothing to copy: no collection of the source"), "{none:?}");
    }

    #[test]
    fn a_few_are_named_and_the_rest_counted() {
        assert_eq!(names(&["a", "b"]), "a, b");
        assert_eq!(names(&[1, 2, 3, 4, 5, 6, 7]), "1, 2, 3, 4, 5 and 2 more");
    }
}
