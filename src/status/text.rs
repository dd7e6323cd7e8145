//! A status for people. It stays readable however many collections, lanes and findings there are: what moves is shown,
//! the rest is counted. `status --json` has all of it.

use super::{BuildStatus, LaneStatus, NamespaceStatus, Status, StepStatus};
use crate::model::room;
use crate::model::speed::Rate;
use indicatif::{DecimalBytes, HumanBytes};
use std::time::Duration;

/// How many lanes, or collections that are being copied, are shown.
const SHOWN: usize = 20;

/// How many of the collections that are still to come are shown.
const PENDING_SHOWN: usize = 5;

/// How many findings, or notes, are shown.
const REMARKS_SHOWN: usize = 100;

/// How many collections are shown all, whatever they do.
const FEW: usize = 10;

/// The first line: how a job stands.
pub fn headline(status: &Status) -> String {
    let Status { job, documents, bytes, .. } = status;
    let mut line = format!(
        "{job}: {}, {} of about {} documents, {} of about {}",
        status.status.word(),
        documents.written,
        documents.estimated_total.max(documents.written),
        HumanBytes(bytes.written),
        HumanBytes(bytes.estimated_total.max(bytes.written)),
    );
    if let Some(text) = status.rate.map(|rate| pace(&rate, status.eta_seconds.map(Duration::from_secs))) {
        line = format!("{line}, {text}");
    }
    line
}

/// A rate, and how long the rest takes: `12.31 MB/s, 48211 documents/s, ETA 1m 20s`.
pub fn pace(rate: &Rate, eta: Option<Duration>) -> String {
    let Rate { documents_per_second, bytes_per_second } = rate;
    let rate = format!("{}/s, {documents_per_second:.0} documents/s", DecimalBytes(bytes_per_second.round() as u64));
    match eta {
        None => rate,
        Some(eta) => format!("{rate}, ETA {}", humantime::format_duration(Duration::from_secs(eta.as_secs()))),
    }
}

/// All of it.
pub fn whole(status: &Status) -> String {
    let mut lines = vec![headline(status)];
    lines.extend(status.steps.iter().map(step));
    lines.extend(lanes(&status.lanes));
    lines.extend(builds(&status.builds));
    if status.control.changed.is_some() {
        lines.push(format!("  control: {}", status.control.text()));
    }
    if let Some(replayed) = status.documents.replayed.filter(|replayed| *replayed > 0) {
        lines.push(format!("  {replayed} documents were sent once more after a stop, and recognised"));
    }
    lines.extend(collections(&status.namespaces));
    for (name, checkpoint) in status.checkpoint.iter().flatten() {
        lines.push(format!("  checkpoint of {name}: Timestamp({}, {})", checkpoint.seconds, checkpoint.increment));
    }
    for (name, oplog) in status.oplog.iter().flatten() {
        let at_checkpoint = room::text(Duration::from_secs(oplog.seconds_at_checkpoint));
        lines.push(match oplog.seconds_left.map(Duration::from_secs) {
            Some(left) => {
                format!("  oplog of {name}: {} left of {at_checkpoint} behind the checkpoint", room::text(left))
            }
            None => format!("  oplog of {name}: no longer reaches back to the checkpoint; begin another --job"),
        });
    }
    lines.extend(status.error.iter().map(|error| format!("  stopped at: {error}")));
    let findings = status.findings.iter().map(|finding| format!("{} {}", finding.namespace, finding.text));
    lines.extend(remarks("finding", findings.collect()));
    let notes = status.notes.iter().map(|note| format!("{} {}", note.namespace, note.text));
    lines.extend(remarks("note", notes.collect()));
    lines.join("\n")
}

fn step(step: &StepStatus) -> String {
    let said = match step.collections {
        _ if !step.summary.is_empty() => step.summary.clone(),
        Some(part) if step.status != "pending" => format!("{} of {} collections", part.done, part.total),
        _ => String::new(),
    };
    format!("  {:<9} {:<9}  {said}", step.step.name(), step.status).trim_end().to_owned()
}

fn lanes(lanes: &[LaneStatus]) -> Vec<String> {
    let is_shown = |lane: &&LaneStatus| lanes.len() <= SHOWN || lane.status != "pending" && lane.status != "done";
    let shown: Vec<&LaneStatus> = lanes.iter().filter(is_shown).take(SHOWN).collect();
    let line = |lane: &&LaneStatus| {
        let pace = lane.rate.map_or_else(String::new, |rate| format!(", {}", pace(&rate, None)));
        format!(
            "  lane {}/{}: {}, {} of {} partitions, {} documents, claimed {} times{pace}",
            lane.shard,
            lane.within_shard(),
            lane.status,
            lane.finished,
            lane.partitions,
            lane.written,
            lane.epoch
        )
    };
    let mut lines: Vec<String> = shown.iter().map(line).collect();
    if shown.len() < lanes.len() {
        lines.push(format!("  lanes in all: {}", counted(lanes.iter().map(|lane| lane.status.as_str()))));
    }
    lines
}

fn builds(builds: &[BuildStatus]) -> Vec<String> {
    let shown = builds.iter().take(SHOWN);
    let mut lines: Vec<String> =
        shown.map(|build| format!("  {}: {}", build.namespace, build.building.text())).collect();
    if builds.len() > SHOWN {
        lines.push(format!("  collections whose indexes are being built: {}", builds.len()));
    }
    lines
}

/// What is being built, in a few words; empty where nothing is.
pub fn building(builds: &[BuildStatus]) -> String {
    match builds {
        [] => String::new(),
        [build] => format!("{}: {}", build.namespace, build.building.text()),
        [build, others @ ..] => {
            format!("{}: {} and {} more", build.namespace, build.building.text(), others.len())
        }
    }
}

fn collections(namespaces: &[NamespaceStatus]) -> Vec<String> {
    let line = |namespace: &&NamespaceStatus| {
        let percent = namespace.percent.map_or_else(String::new, |percent| format!(" {percent:.1} %,"));
        format!(
            "  {}: {},{percent} {} of about {} documents, {} of about {}",
            namespace.namespace,
            namespace.status,
            namespace.written,
            namespace.estimated_total.max(namespace.written),
            HumanBytes(namespace.written_bytes),
            HumanBytes(namespace.estimated_bytes.max(namespace.written_bytes)),
        )
    };
    if namespaces.len() <= FEW {
        return namespaces.iter().map(|namespace| line(&namespace)).collect();
    }
    let largest = |status: &str, count: usize| {
        let mut found: Vec<&NamespaceStatus> = namespaces.iter().filter(|found| found.status == status).collect();
        found.sort_by(|a, b| b.estimated_bytes.cmp(&a.estimated_bytes).then_with(|| a.namespace.cmp(&b.namespace)));
        found.into_iter().take(count)
    };
    let shown = largest("copying", SHOWN).chain(largest("planned", PENDING_SHOWN));
    let mut lines: Vec<String> = shown.map(|namespace| line(&namespace)).collect();
    lines.push(format!("  collections in all: {}", counted(namespaces.iter().map(|namespace| namespace.status))));
    lines
}

/// How many there are of each word: `3 copying, 40 planned`.
fn counted<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let mut counts = std::collections::BTreeMap::new();
    words.for_each(|word| *counts.entry(word).or_insert(0_u64) += 1);
    let texts: Vec<String> = counts.into_iter().map(|(word, count)| format!("{count} {word}")).collect();
    texts.join(", ")
}

fn remarks(kind: &str, texts: Vec<String>) -> Vec<String> {
    let more = texts.len().saturating_sub(REMARKS_SHOWN);
    let mut lines: Vec<String> = texts.iter().take(REMARKS_SHOWN).map(|text| format!("  {kind}: {text}")).collect();
    if more > 0 {
        lines.push(format!("  {kind}: {more} more; --json has all of them"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::OplogStatus;
    use super::super::samples::{namespace, status};
    use super::*;
    use crate::model::finding::Finding;
    use crate::model::namespace::Namespace;

    #[test]
    fn a_job_of_thousands_of_collections_fits_on_a_screen() {
        let mut job = status();
        job.namespaces = (0..5000).map(|number| namespace(&format!("c{number}"), number)).collect();
        for (number, namespace) in job.namespaces.iter_mut().enumerate().take(4000) {
            namespace.status = if number < 30 { "copying" } else { "copied" };
        }
        let finding = Finding { namespace: Namespace::new("db", "c"), text: "is odd".into() };
        job.findings = vec![finding; 3000];
        let shown = whole(&job);
        for part in ["  db.c29: copying", "  db.c4999: planned", "30 copying, 1000 planned", "2900 more; --json"] {
            assert!(shown.contains(part), "{part} is not in {shown}");
        }
        assert!(!shown.contains("db.c9: ") && !shown.contains("db.c4000: "), "{shown}");
        assert!(shown.lines().count() < 140, "{shown}");
    }

    #[test]
    fn what_is_left_of_an_oplog_is_shown() {
        let mut job = status();
        let oplog = |seconds_left| OplogStatus { seconds_left, seconds_at_checkpoint: 36_000 };
        job.oplog = Some([("rs0".to_owned(), oplog(Some(9_000))), ("rs1".to_owned(), oplog(None))].into());
        let shown = whole(&job);
        assert!(shown.contains("  oplog of rs0: 2h 30m left of 10h 0m behind the checkpoint"), "{shown}");
        assert!(shown.contains("  oplog of rs1: no longer reaches back to the checkpoint"), "{shown}");
    }

    #[test]
    fn what_is_not_known_is_not_shown() {
        let mut job = status();
        assert_eq!(headline(&job), "sample: running, 0 of about 0 documents, 0 B of about 0 B");
        job.rate = Some(Rate { documents_per_second: 1234.5, bytes_per_second: 12_345_678.0 });
        assert!(headline(&job).ends_with("0 B, 12.35 MB/s, 1234 documents/s"), "{}", headline(&job));
        job.eta_seconds = Some(80);
        assert!(headline(&job).ends_with("documents/s, ETA 1m 20s"), "{}", headline(&job));
    }
}
