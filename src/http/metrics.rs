//! `/metrics`: the text format of Prometheus, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>). docs/monitoring.md lists what there is.
//!
//! The job's name is in `mongoferry_job_info` alone: a process serves one job, and `job` is a label of Prometheus' own.
//! Series of lanes and collections are bounded, so that a job of thousands does not fill whoever scrapes it.

use crate::progress::Look;
use crate::redact::redact;
use crate::status::{JobStatus, NamespaceStatus, Status};
use std::fmt::Write;
use std::time::Duration;

/// How many collections, the largest by what was planned, and how many lanes have series of their own.
const MOST_SERIES: usize = 100;

/// The words that a collection's status is.
const COLLECTION_WORDS: [&str; 4] = ["planned", "copying", "copied", "left out"];

/// What kind of metric it is.
#[derive(Clone, Copy)]
enum Kind {
    Counter,
    Gauge,
}

/// Everything that is known: before the first look little more than that the process is there.
pub fn text(look: Option<&Look>, running: Duration) -> String {
    let mut out = Metrics::default();
    out.one(
        "build_info",
        Kind::Gauge,
        "The version of mongoferry that runs.",
        &[("version", env!("CARGO_PKG_VERSION"))],
        1.0,
    );
    out.one("running_seconds", Kind::Gauge, "For how long this process runs.", &[], running.as_secs_f64());
    let Some(look) = look else { return out.text };
    out.one("look_age_seconds", Kind::Gauge, "How old what follows is.", &[], look.at.elapsed().as_secs_f64());
    if let Some(rate) = look.rate {
        out.one(
            "documents_per_second",
            Kind::Gauge,
            "Documents copied a second, by all workers.",
            &[],
            rate.documents_per_second,
        );
        out.one("bytes_per_second", Kind::Gauge, "Bytes copied a second, by all workers.", &[], rate.bytes_per_second);
    }
    if let Some(eta) = look.eta {
        out.one(
            "eta_seconds",
            Kind::Gauge,
            "How long the rest of the documents takes at that rate.",
            &[],
            eta.as_secs_f64(),
        );
    }
    if let Some(status) = &look.status {
        job(&mut out, status);
        amounts(&mut out, status);
        steps(&mut out, status);
        lanes(&mut out, status);
        collections(&mut out, &status.namespaces);
    }
    out.text
}

fn job(out: &mut Metrics, status: &Status) {
    let id = status.id.as_deref().unwrap_or_default();
    out.one("job_info", Kind::Gauge, "The job.", &[("name", &status.job), ("id", id)], 1.0);
    out.family("job_status", Kind::Gauge, "1 for the status that the job has.");
    for word in JobStatus::ALL.map(JobStatus::word) {
        out.sample("job_status", &[("status", word)], flag(word == status.status.word()));
    }
    out.one("findings", Kind::Gauge, "What a person must mend or accept.", &[], status.findings.len() as f64);
    out.one("notes", Kind::Gauge, "What a person should know.", &[], status.notes.len() as f64);
    if let Some(percent) = status.percent {
        out.one(
            "copied_ratio",
            Kind::Gauge,
            "How much of the documents is copied, from 0 to 1.",
            &[],
            (percent * 10.0).round() / 1000.0,
        );
    }
}

fn amounts(out: &mut Metrics, status: &Status) {
    let Status { documents, bytes, .. } = status;
    for (what, help, documents, bytes) in [
        ("read", "read from the source", documents.read, bytes.read),
        ("written", "on the target as they should be", documents.written, bytes.written),
        ("replaced", "of those written that were brought to a newer version", documents.replaced, bytes.replaced),
        ("rejected", "not on the target", documents.rejected, bytes.rejected),
    ] {
        out.one(
            &format!("documents_{what}_total"),
            Kind::Counter,
            &format!("Documents {help}."),
            &[],
            documents as f64,
        );
        out.one(
            &format!("{what}_bytes_total"),
            Kind::Counter,
            &format!("Bytes of documents {help}."),
            &[],
            bytes as f64,
        );
    }
    let replayed = documents.replayed.unwrap_or_default();
    out.one("documents_replayed_total", Kind::Counter, "Documents sent once more after a stop.", &[], replayed as f64);
    let (documents, bytes) = (documents.estimated_total, bytes.estimated_total);
    out.one(
        "estimated_documents",
        Kind::Gauge,
        "Documents on the source, as its metadata said.",
        &[],
        documents as f64,
    );
    out.one("estimated_bytes", Kind::Gauge, "Bytes of those.", &[], bytes as f64);
}

fn steps(out: &mut Metrics, status: &Status) {
    out.family("step_status", Kind::Gauge, "1 for the status that the step has.");
    for step in &status.steps {
        let words = JobStatus::ALL.map(JobStatus::word);
        for word in std::iter::once("pending").chain(words) {
            out.sample("step_status", &[("step", step.step.name()), ("status", word)], flag(word == step.status));
        }
    }
    let parts: Vec<_> = status.steps.iter().filter_map(|step| Some((step.step.name(), step.collections?))).collect();
    out.family("step_collections", Kind::Gauge, "How many collections the step has to do.");
    parts.iter().for_each(|(step, part)| out.sample("step_collections", &[("step", step)], part.total as f64));
    out.family("step_collections_done", Kind::Gauge, "How many collections the step is through with.");
    parts.iter().for_each(|(step, part)| out.sample("step_collections_done", &[("step", step)], part.done as f64));
}

fn lanes(out: &mut Metrics, status: &Status) {
    let shown: Vec<_> =
        status.lanes.iter().take(MOST_SERIES).map(|lane| (lane.shard.as_str(), lane.within_shard(), lane)).collect();
    let mut family = |name: &str, kind, help: &str, value: fn(&crate::status::LaneStatus) -> u64| {
        out.family(name, kind, help);
        for (shard, number, lane) in &shown {
            out.sample(name, &[("shard", shard), ("lane", number)], value(lane) as f64);
        }
    };
    family("lane_documents_written_total", Kind::Counter, "Documents that the lane has written.", |lane| lane.written);
    family("lane_written_bytes_total", Kind::Counter, "Bytes of those.", |lane| lane.written_bytes);
    family("lane_partitions", Kind::Gauge, "The lane's partitions.", |lane| lane.partitions.into());
    family("lane_partitions_finished", Kind::Gauge, "Those that are finished.", |lane| lane.finished.into());
    family("lane_claims_total", Kind::Counter, "How often the lane was claimed.", |lane| lane.epoch);
    out.one("lanes", Kind::Gauge, "All lanes, with or without series of their own.", &[], status.lanes.len() as f64);
}

fn collections(out: &mut Metrics, namespaces: &[NamespaceStatus]) {
    out.family("collections", Kind::Gauge, "All collections by status, with or without series of their own.");
    for word in COLLECTION_WORDS {
        let count = namespaces.iter().filter(|namespace| namespace.status == word).count();
        out.sample("collections", &[("status", &word.replace(' ', "_"))], count as f64);
    }
    // By what was planned, so that it is always the same ones.
    let mut shown: Vec<(String, &NamespaceStatus)> =
        namespaces.iter().map(|namespace| (namespace.namespace.to_string(), namespace)).collect();
    shown.sort_by(|a, b| b.1.estimated_bytes.cmp(&a.1.estimated_bytes).then_with(|| a.0.cmp(&b.0)));
    shown.truncate(MOST_SERIES);
    let mut family = |name: &str, kind, help: &str, value: fn(&NamespaceStatus) -> u64| {
        out.family(name, kind, help);
        for (name_of, namespace) in &shown {
            out.sample(name, &[("namespace", name_of)], value(namespace) as f64);
        }
    };
    let written = "Documents of the collection on the target as they should be.";
    family("collection_documents_written_total", Kind::Counter, written, |namespace| namespace.written);
    family("collection_written_bytes_total", Kind::Counter, "Bytes of those.", |namespace| namespace.written_bytes);
    let estimated = "Documents of the collection on the source, as its metadata said.";
    family("collection_estimated_documents", Kind::Gauge, estimated, |namespace| namespace.estimated_total);
    family("collection_estimated_bytes", Kind::Gauge, "Bytes of those.", |namespace| namespace.estimated_bytes);
}

fn flag(is_so: bool) -> f64 {
    f64::from(u8::from(is_so))
}

/// The text so far.
#[derive(Default)]
struct Metrics {
    text: String,
}

impl Metrics {
    /// What the samples that follow mean. All names begin with `mongoferry_`.
    fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        self.write(format_args!("# HELP mongoferry_{name} {help}\n# TYPE mongoferry_{name} {kind}\n"));
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<String> =
            labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escape(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        self.write(format_args!("mongoferry_{name}{labels} {value}\n"));
    }

    /// A family of one sample.
    fn one(&mut self, name: &str, kind: Kind, help: &str, labels: &[(&str, &str)], value: f64) {
        self.family(name, kind, help);
        self.sample(name, labels, value);
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        self.text.write_fmt(text).expect("a String takes everything");
    }
}

/// A label's value, without secrets.
fn escape(value: &str) -> String {
    redact(value).replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::speed::Rate;
    use crate::status::samples::{namespace, status};
    use std::collections::{BTreeMap, BTreeSet};

    /// A sample: its labels, its value.
    type Sample = (BTreeMap<String, String>, f64);

    /// Reads the format as a scraper does, and is strict where that is lenient: every sample belongs to the family whose
    /// HELP and TYPE stand right before it, no family comes twice, no series comes twice.
    fn parse(text: &str) -> BTreeMap<String, (String, Vec<Sample>)> {
        assert!(text.ends_with('\n'));
        let mut families: BTreeMap<String, (String, Vec<Sample>)> = BTreeMap::new();
        let mut helped = "";
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                helped = help.split_once(' ').map_or(help, |(name, _)| name);
            } else if let Some(of) = line.strip_prefix("# TYPE ") {
                let (name, kind) = of.split_once(' ').unwrap_or_default();
                assert!(name == helped && ["counter", "gauge"].contains(&kind), "{line}");
                assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
                assert!(families.insert(name.to_owned(), (kind.to_owned(), Vec::new())).is_none(), "{line}");
            } else {
                let name_length = line.find(['{', ' ']).unwrap_or(line.len());
                let (name, rest) = line.split_at(name_length);
                assert_eq!(name, helped, "{line}");
                let is_name = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
                assert!(name.starts_with("mongoferry_") && name.bytes().all(is_name), "{line}");
                let (labels, value) = labels(rest);
                let value: f64 = value.trim().parse().unwrap_or_else(|error| panic!("{error}: {line}"));
                let samples = &mut families.get_mut(name).unwrap_or_else(|| panic!("no TYPE: {line}")).1;
                assert!(samples.iter().all(|(other, _)| *other != labels), "twice: {line}");
                samples.push((labels, value));
            }
        }
        families
    }

    fn labels(text: &str) -> (BTreeMap<String, String>, &str) {
        let mut labels = BTreeMap::new();
        let Some(mut rest) = text.strip_prefix('{') else { return (labels, text) };
        loop {
            let (name, quoted) = rest.split_once("=\"").unwrap_or_else(|| panic!("no label: {text}"));
            let mut value = String::new();
            let mut characters = quoted.char_indices();
            let end = loop {
                match characters.next() {
                    Some((at, '"')) => break at + 1,
                    Some((_, '\\')) => match characters.next() {
                        Some((_, 'n')) => value.push('\n'),
                        Some((_, escaped @ ('\\' | '"'))) => value.push(escaped),
                        other => panic!("{other:?} is escaped: {text}"),
                    },
                    Some((_, character)) => value.push(character),
                    None => panic!("no end: {text}"),
                }
            };
            assert!(labels.insert(name.to_owned(), value).is_none(), "{text}");
            rest = &quoted[end..];
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None => return (labels, rest.strip_prefix('}').unwrap_or_else(|| panic!("no brace: {text}"))),
            }
        }
    }

    fn look(namespaces: Vec<NamespaceStatus>) -> Look {
        Look {
            status: Some(Status { namespaces, ..status() }),
            rate: Some(Rate { documents_per_second: 12.5, bytes_per_second: 1e9 }),
            eta: Some(Duration::from_secs(90)),
            at: crate::clock::monotonic(),
            wall: crate::clock::wall(),
        }
    }

    #[test]
    fn the_text_is_what_a_scraper_reads() {
        let families = parse(&text(Some(&look(Vec::new())), Duration::from_secs(7)));
        let value = |name: &str| families.get(name).map(|(_, samples)| samples.iter().map(|(_, value)| *value).sum());
        assert_eq!(value("mongoferry_running_seconds"), Some(7.0));
        assert_eq!(value("mongoferry_bytes_per_second"), Some(1e9));
        assert_eq!(value("mongoferry_job_status"), Some(1.0), "it has one status");
        assert_eq!(value("mongoferry_step_status"), Some(7.0), "each of the steps has one");
        assert_eq!(parse(&text(None, Duration::ZERO)).len(), 2, "before the first look");
    }

    #[test]
    fn names_of_collections_may_hold_anything() {
        let names = ["a\"b", "a\\b", "a\\\"b\n", "{a=\"b\"} 1", "ä😀", "a\\nb"];
        let namespaces = names.map(|name| namespace(name, 1));
        let families = parse(&text(Some(&look(namespaces.to_vec())), Duration::ZERO));
        let (_, samples) = &families["mongoferry_collection_estimated_bytes"];
        let shown: BTreeSet<&str> = samples.iter().map(|(labels, _)| labels["namespace"].as_str()).collect();
        let wanted: Vec<String> = names.iter().map(|name| format!("db.{name}")).collect();
        assert_eq!(shown, wanted.iter().map(String::as_str).collect());
    }

    #[test]
    fn thousands_of_collections_have_a_hundred_series_the_largest_ones() {
        let namespaces = (0..5000).map(|number| namespace(&format!("c{number}"), number)).collect();
        let families = parse(&text(Some(&look(namespaces)), Duration::ZERO));
        let (_, samples) = &families["mongoferry_collection_estimated_bytes"];
        assert_eq!(samples.len(), MOST_SERIES);
        assert!(samples.iter().all(|(_, bytes)| *bytes >= 4900.0));
        let (_, counted) = &families["mongoferry_collections"];
        assert_eq!(counted.iter().map(|(_, count)| count).sum::<f64>(), 5000.0);
    }

    #[test]
    fn secrets_are_not_shown() {
        crate::redact::register("metric-90x");
        let shown = text(Some(&look(vec![namespace("metric-90x", 1)])), Duration::ZERO);
        assert!(shown.contains("db.***") && !shown.contains("metric-90x"));
    }
}
