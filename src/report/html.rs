//! A report as one page that needs nothing from outside, without a script: the verdict first, then what was accepted, then
//! everything else. It stays readable, and fast, with ten thousands of collections: those out of sight are not laid out.
//!
//! Whatever comes from a job passes through [`text`], which takes secrets out and escapes it: names may hold anything.

use crate::model::finding::{Finding, Note};
use crate::model::identity::Identity;
use crate::model::index::is_implicit;
use crate::model::left_out::{LeftOut, Why};
use crate::model::report::{CollectionReport, Outcome, Report, StepReport, Totals, counted, grouped};
use crate::redact::redact;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use indicatif::HumanBytes;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::time::Duration;

const PAGE: &str = include_str!("page.html");

/// How many remarks of a kind, or names, are on the page. The JSON has all.
const SHOWN: usize = 1000;

/// How many names of a database are shown without a click.
const FEW: usize = 20;

/// How many collections are laid out together.
const CHUNK: usize = 100;

/// From how many collections on those out of sight are not laid out: what they measure is only estimated until then.
const MANY: usize = 300;

/// The page.
pub fn page(report: &Report) -> String {
    let mut parts = PAGE.split("{{").map(|part| part.split_once("}}").unwrap_or(("", part)));
    let mut page = parts.next().map_or(String::new(), |(_, text)| text.to_owned());
    for (slot, following) in parts {
        match slot {
            "policy" => page.push_str(&policy()),
            "title" => page.push_str(&text(&format!("{} · mongoferry report", report.job))),
            _ => body(&mut page, report),
        }
        page.push_str(following);
    }
    page
}

/// A browser runs no script, asks nobody for anything, and takes the one style.
fn policy() -> String {
    let style = PAGE.split("<style>").nth(1).and_then(|rest| rest.split("</style>").next()).unwrap_or_default();
    let hash = STANDARD.encode(Sha256::digest(style));
    format!("default-src 'none'; style-src 'sha256-{hash}'; img-src data:; base-uri 'none'; form-action 'none'")
}

/// Something from outside, as it may stand in an element or an attribute.
fn text(value: &str) -> String {
    let shown = redact(value);
    let mut escaped = String::with_capacity(shown.len());
    for character in shown.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // Would be dropped or change the direction of what follows: shown as what it is.
            control if (control.is_control() && control != '\n') || is_invisible(control) => {
                escaped.extend(control.escape_unicode());
            }
            other => escaped.push(other),
        }
    }
    escaped
}

/// What turns the direction of text around, or has no width.
fn is_invisible(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

macro_rules! put {
    ($page:expr, $($format:tt)*) => {
        // A String takes everything.
        let _ = write!($page, $($format)*);
    };
}

fn body(page: &mut String, report: &Report) {
    header(page, report);
    page.push_str("<main>\n");
    verdict(page, report);
    findings(page, report);
    totals(page, report);
    deployments(page, report);
    steps(page, &report.steps);
    checkpoint(page, report);
    notes(page, &report.notes);
    left_out(page, report);
    collections(page, report);
    page.push_str("</main>\n");
    put!(
        page,
        "<footer>Made from the job’s state by mongoferry {} at {}. No server was asked. `mongoferry report --json` has \
         the same for machines.</footer>",
        text(&report.version),
        time(&report.reported)
    );
}

fn header(page: &mut String, report: &Report) {
    put!(page, "<header>\n<p class=\"faint\">mongoferry · migration report</p>\n<h1>{}</h1>\n", text(&report.job));
    let id = report.id.as_ref().map_or(String::new(), |id| format!("job {} · ", text(id)));
    put!(page, "<p class=\"faint\">{id}reported {}</p>\n</header>\n", time(&report.reported));
}

fn verdict(page: &mut String, report: &Report) {
    let (class, word) = match report.verdict.outcome {
        Outcome::Complete => ("complete", "complete"),
        Outcome::Accepted => ("accepted", "complete, with findings accepted"),
        Outcome::Unfinished => ("unfinished", "not finished"),
        Outcome::Abandoned => ("abandoned", "given up"),
    };
    put!(page, "<section class=\"verdict is-{class}\" aria-labelledby=\"verdict\">\n<h2 id=\"verdict\">Verdict</h2>\n");
    put!(page, "<p><span class=\"word {class}\">{word}</span></p>\n");
    put!(page, "<p class=\"sentence\">{}</p>\n", text(&report.verdict.sentence));
    if let Some(error) = &report.error {
        put!(page, "<p>Stopped at: {}</p>\n", text(error));
    }
    page.push_str("<div class=\"halves\">\n");
    let halves = [
        ("proven", "What is proven", &report.verdict.proven),
        ("unproven", "What is not, and what to know", &report.verdict.unproven),
    ];
    for (class, title, sentences) in halves {
        put!(page, "<div><h3>{title}</h3>\n");
        if sentences.is_empty() {
            page.push_str("<p class=\"faint\">Nothing.</p>");
        } else {
            put!(page, "<ul class=\"marked {class}\">");
            sentences.iter().for_each(|sentence| {
                put!(page, "<li>{}</li>", text(sentence));
            });
            page.push_str("</ul>");
        }
        page.push_str("</div>\n");
    }
    page.push_str("</div>\n");
    page.push_str("<p class=\"sign\"><span>Name</span><span>Date</span><span>Signature</span></p>\n</section>\n");
}

fn findings(page: &mut String, report: &Report) {
    let count = grouped(report.findings.len() as u64);
    let title = match (report.findings.is_empty(), report.findings_accepted) {
        (true, _) => "Findings: none".to_owned(),
        (false, true) => format!("Findings that were accepted ({count})"),
        (false, false) => format!("Findings to mend or accept ({count})"),
    };
    put!(page, "<section aria-labelledby=\"findings\">\n<h2 id=\"findings\">{title}</h2>\n");
    if report.findings.is_empty() {
        page.push_str("<p class=\"faint\">Nothing had to be mended or accepted.</p>\n");
    }
    remarks(page, report.findings.iter().map(|Finding { namespace, text }| (namespace.to_string(), text.as_str())));
    page.push_str("</section>\n");
}

fn notes(page: &mut String, notes: &[Note]) {
    if notes.is_empty() {
        return;
    }
    put!(page, "<section aria-labelledby=\"notes\">\n<h2 id=\"notes\">Notes ({})</h2>\n", grouped(notes.len() as u64));
    remarks(page, notes.iter().map(|Note { namespace, text }| (namespace.to_string(), text.as_str())));
    page.push_str("</section>\n");
}

fn remarks<'a>(page: &mut String, remarks: impl ExactSizeIterator<Item = (String, &'a str)>) {
    let count = remarks.len();
    if count == 0 {
        return;
    }
    page.push_str("<ul>\n");
    for (name, remark) in remarks.take(SHOWN) {
        put!(page, "<li><b>{}</b> {}</li>\n", text(&name), text(remark));
    }
    page.push_str("</ul>\n");
    more(page, count);
}

fn more(page: &mut String, count: usize) {
    if count > SHOWN {
        put!(page, "<p class=\"faint\">{} more; the JSON has all of them.</p>\n", grouped((count - SHOWN) as u64));
    }
}

fn totals(page: &mut String, report: &Report) {
    let totals = &report.totals;
    let Totals { documents, bytes, indexes, indexes_left_out, rejected, replayed, kept, overwritten, .. } = *totals;
    page.push_str("<section aria-labelledby=\"totals\">\n<h2 id=\"totals\">In all</h2>\n<dl class=\"facts\">\n");
    let fact = |page: &mut String, name: &str, value: String, small: &str| {
        put!(page, "<div><dt>{name}</dt><dd>{value}");
        if !small.is_empty() {
            put!(page, "<small>{small}</small>");
        }
        page.push_str("</dd></div>\n");
    };
    fact(page, "Documents", grouped(documents), &format!("{} read", grouped(totals.read)));
    fact(page, "Size", HumanBytes(bytes).to_string(), &format!("{} bytes", grouped(bytes)));
    let lanes = counted(totals.lanes as u64, "lane");
    fact(
        page,
        "Collections",
        grouped(totals.copied as u64),
        &format!("of {}, in {lanes}", grouped(totals.collections as u64)),
    );
    let left_out =
        if indexes_left_out > 0 { format!("{} left out", grouped(indexes_left_out as u64)) } else { String::new() };
    fact(page, "Secondary indexes", grouped(indexes as u64), &left_out);
    fact(page, "Rejected", grouped(rejected), "documents");
    for (name, count, small) in [
        ("Sent once more", replayed, "after a stop, and recognised"),
        ("Kept on the target", kept, "in place of the source’s"),
        ("Overwritten", overwritten, "on the target"),
    ] {
        if count > 0 {
            fact(page, name, grouped(count), small);
        }
    }
    let took = report
        .begun
        .as_deref()
        .zip(report.ended.as_deref())
        .and_then(|(begun, ended)| crate::clock::wall_between(begun, ended));
    fact(page, "Took", took.map_or("–".to_owned(), |took| duration(took.as_secs())), "from discover to commit");
    page.push_str("</dl>\n<dl class=\"pairs\">\n");
    pair(page, "Begun", &report.begun.as_deref().map_or("–".to_owned(), time));
    pair(page, "Committed", &report.ended.as_deref().map_or("–".to_owned(), time));
    let digest = match totals.digest {
        _ if documents == 0 => "–".to_owned(),
        None => "not known".to_owned(),
        Some(digest) => format!("<code>{digest}</code>"),
    };
    pair(page, "Digest", &digest);
    page.push_str("</dl>\n</section>\n");
}

/// A name, and what it is as HTML.
fn pair(page: &mut String, name: &str, value: &str) {
    put!(page, "<dt>{}</dt><dd>{value}</dd>\n", text(name));
}

fn deployments(page: &mut String, report: &Report) {
    page.push_str("<section aria-labelledby=\"sides\">\n<h2 id=\"sides\">From, to, and how</h2>\n<div class=\"halves\">\n<div><h3>Deployments</h3><dl class=\"pairs\">\n");
    for (name, identity) in [("Source", &report.source), ("Target", &report.target)] {
        pair(page, name, &identity.as_ref().map_or("not known yet".to_owned(), deployment));
    }
    for (name, identity) in &report.shards {
        pair(page, &format!("Shard {name}"), &deployment(identity));
    }
    page.push_str("</dl></div>\n<div><h3>Settings</h3><dl class=\"pairs\">\n");
    for (name, value) in &report.settings {
        let value = if value.is_empty() { "<span class=\"faint\">none</span>".to_owned() } else { text(value) };
        pair(page, name, &value);
    }
    let version = report.discovered_by.as_deref().unwrap_or("not written down");
    pair(page, "discovered by", &text(&format!("mongoferry {version}")));
    page.push_str("</dl></div>\n</div>\n</section>\n");
}

fn deployment(identity: &Identity) -> String {
    let what = if identity.is_mongos { "cluster" } else { "replica set" };
    let id = if identity.is_mongos { &identity.cluster_id } else { &identity.replica_set_id };
    let id = id
        .as_ref()
        .map_or(String::new(), |id| format!("<br><span class=\"faint\">id <code>{}</code></span>", text(id)));
    format!("{what} <b>{}</b><br>{}{id}", text(&identity.set_name), text(&identity.hosts.join(", ")))
}

fn steps(page: &mut String, steps: &[StepReport]) {
    page.push_str(
        "<section aria-labelledby=\"steps\">\n<h2 id=\"steps\">Steps</h2>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-labelledby=\"steps\">\
         <table class=\"steps\">\n<thead><tr><th scope=\"col\">Step</th><th scope=\"col\">Status</th><th scope=\"col\">Result</th>\
         <th scope=\"col\">Begun</th><th scope=\"col\" class=\"number\">Took</th><th scope=\"col\" class=\"number\">Parts</th>\
         <th scope=\"col\" class=\"number\">Resumed</th></tr></thead>\n<tbody>\n",
    );
    for step in steps {
        put!(
            page,
            "<tr class=\"{}\"><th scope=\"row\">{}</th><td><span class=\"word {}\">{}</span></td><td class=\"result\">{}</td>\
             <td class=\"time more\" data-label=\"begun\">{}</td><td class=\"number more\" data-label=\"took\">{}</td>\
             <td class=\"number more\" data-label=\"parts\">{}</td><td class=\"number more\" data-label=\"resumed\">{} ×</td></tr>\n",
            class(&step.status),
            step.step,
            class(&step.status),
            text(&step.status),
            text(&step.summary),
            step.started.as_deref().map_or("–".to_owned(), time),
            step.seconds.map_or("–".to_owned(), duration),
            grouped(step.parts as u64),
            grouped(step.resumed as u64),
        );
    }
    page.push_str("</tbody></table></div>\n</section>\n");
}

/// A status as a class: none of them holds anything but letters.
fn class(status: &str) -> &str {
    if status.bytes().all(|byte| byte.is_ascii_lowercase()) { status } else { "" }
}

fn checkpoint(page: &mut String, report: &Report) {
    let Some(map) = &report.checkpoint else { return };
    page.push_str(
        "<section aria-labelledby=\"checkpoint\">\n<h2 id=\"checkpoint\">Checkpoint</h2>\n<dl class=\"pairs\">\n",
    );
    pair(page, "Captured", &time(&map.captured));
    for (name, start) in &report.stream_starts {
        let value = format!(
            "a stream begins after <code>Timestamp({}, {})</code>, as an int64 <code>{}</code>",
            start.seconds, start.increment, start.ckpt
        );
        pair(page, name, &value);
    }
    for (name, checkpoint) in &map.checkpoints {
        if let Some(first) = checkpoint.oldest_transaction {
            pair(
                page,
                &format!("{name}, open transaction"),
                &format!("since <code>{first}</code>; the checkpoint is before it"),
            );
        }
    }
    if report.stream_starts.is_empty() {
        pair(page, "Streams", "none, as --checkpoint-mode none has it");
    }
    page.push_str("</dl>\n</section>\n");
}

fn left_out(page: &mut String, report: &Report) {
    let Some(left_out) = report.left_out.as_ref().filter(|left_out| !left_out.is_empty()) else { return };
    put!(
        page,
        "<section aria-labelledby=\"left-out\">\n<h2 id=\"left-out\">Left out ({})</h2>\n",
        grouped(left_out.len() as u64)
    );
    for why in Why::ALL {
        let of: Vec<&LeftOut> = left_out.iter().filter(|left_out| left_out.why == why).collect();
        if of.is_empty() {
            continue;
        }
        put!(page, "<h3>{} ({})</h3>\n", why.text(), grouped(of.len() as u64));
        // Databases, which have no kind, stand side by side.
        let database = |one: &LeftOut| one.kind.and(one.name.split('.').next()).unwrap_or_default().to_owned();
        let mut room = SHOWN;
        for of_database in of.chunk_by(|one, other| database(one) == database(other)) {
            let shown = &of_database[..of_database.len().min(room)];
            room -= shown.len();
            let count = counted(of_database.len() as u64, "collection");
            match of_database.len() {
                ..=FEW => put_names(page, shown),
                _ if shown.is_empty() => {
                    put!(page, "<p><b>{}</b>: {count}</p>\n", text(&database(of_database[0])));
                }
                _ => {
                    put!(page, "<details><summary><b>{}</b>: {count}</summary>", text(&database(of_database[0])));
                    put_names(page, shown);
                    page.push_str("</details>\n");
                }
            }
        }
        more(page, of.len());
    }
    page.push_str("</section>\n");
}

fn put_names(page: &mut String, left_out: &[&LeftOut]) {
    page.push_str("<p class=\"names\">");
    for (place, one) in left_out.iter().enumerate() {
        let kind = one.kind.filter(|kind| !kind.is_copied());
        let kind = kind.map_or(String::new(), |kind| format!(" <span class=\"faint\">{}</span>", kind.text()));
        put!(page, "{}<code>{}</code>{kind}", if place > 0 { ", " } else { "" }, text(&one.name));
    }
    page.push_str("</p>\n");
}

fn collections(page: &mut String, report: &Report) {
    let all = &report.collections;
    if all.is_empty() {
        return;
    }
    let far = if all.len() > MANY { " class=\"far\"" } else { "" };
    put!(
        page,
        "<section{far} aria-labelledby=\"collections\">\n<h2 id=\"collections\">Collections ({})</h2>\n",
        grouped(all.len() as u64)
    );
    page.push_str("<p class=\"faint\">Each opens to its digest, options and indexes. Documents and sizes are those on the target, as it acknowledged them.</p>\n");
    for of_database in all.chunk_by(|one, other| one.namespace.db() == other.namespace.db()) {
        let Some(first) = of_database.first() else { continue };
        put!(
            page,
            "<h3>{} <span class=\"faint\">({})</span></h3>\n",
            text(first.namespace.db()),
            grouped(of_database.len() as u64)
        );
        for chunk in of_database.chunks(CHUNK) {
            page.push_str("<ol>\n");
            chunk.iter().for_each(|one| collection(page, one));
            page.push_str("</ol>\n");
        }
    }
    page.push_str("</section>\n");
}

fn collection(page: &mut String, one: &CollectionReport) {
    let renamed = one.target.as_ref().filter(|target| **target != one.namespace);
    let renamed = renamed.map_or(String::new(), |target| format!(" → {}", text(&target.to_string())));
    let secondary = one.indexes.iter().filter(|index| !is_implicit(index)).count() as u64;
    let (class, word) = standing(one);
    put!(
        page,
        "<li><details><summary><b>{}{renamed}</b><span>{}</span><span>{}</span><span>{}</span><span class=\"word {class}\">{word}</span></summary><pre>",
        text(&one.namespace.to_string()),
        if one.kind.has_documents() { counted(one.documents, "document") } else { one.kind.text().to_owned() },
        if one.kind.has_documents() { HumanBytes(one.bytes).to_string() } else { "–".to_owned() },
        counted(secondary, "index"),
    );
    details(page, one);
    page.push_str("</pre></details></li>\n");
}

/// The last that is known of a collection, as a class and in a word.
fn standing(one: &CollectionReport) -> (&'static str, &'static str) {
    match (one.status, &one.verify) {
        ("left out", _) => ("", "not copied"),
        ("copied", _) if one.rejected > 0 => ("findings", "rejected"),
        ("copied", Some(verify)) if verify.status == "done" => ("done", "compared"),
        ("copied", Some(verify)) if verify.status == "findings" => ("findings", "differs"),
        (status, _) => (status, status),
    }
}

fn details(page: &mut String, one: &CollectionReport) {
    let mut line = |name: &str, value: &str| {
        put!(page, "{name:<9}{}\n", text(value));
    };
    if one.kind.has_documents() {
        line("digest", &one.digest.map_or("not known".to_owned(), |digest| digest.to_string()));
        line("size", &format!("{} bytes", grouped(one.bytes)));
        let (documents, bytes) = (grouped(one.estimated_documents), grouped(one.estimated_bytes));
        line("expected", &format!("about {documents} documents, {bytes} bytes, by the source’s metadata at discover"));
    } else {
        line("kind", one.kind.text());
    }
    if one.rejected > 0 {
        line("rejected", &counted(one.rejected, "document"));
    }
    if let Some(uuid) = &one.uuid {
        line("uuid", &format!("{uuid} on the source"));
    }
    if let Some(key) = &one.shard_key {
        line("sharded", &plain(key).to_string());
    }
    for (name, share) in [("index", &one.index), ("verify", &one.verify)] {
        if let Some(share) = share {
            let took = share.milliseconds.map_or(String::new(), |time| {
                format!(", took {}", humantime::format_duration(Duration::from_millis(time)))
            });
            line(name, &format!("{}{took}", share.status));
        }
    }
    line("options", &plain(&one.options).to_string());
    for index in &one.indexes {
        line("index", &index_text(index));
    }
    if one.indexes_left_out > 0 {
        line("", "all but the one on _id are left out (--create-index none)");
    }
}

/// An index as people write it: its name, its key, and what else it says.
fn index_text(index: &Value) -> String {
    let Value::Object(mut fields) = plain(index) else { return index.to_string() };
    let name = fields.shift_remove("name").map_or(String::new(), |name| name.as_str().unwrap_or_default().to_owned());
    let key = fields.shift_remove("key").unwrap_or(Value::Null);
    fields.shift_remove("v");
    let others = fields.iter().map(|(name, value)| format!(", {name}: {value}"));
    format!("{name} {key}{}", others.collect::<String>())
}

/// Canonical Extended JSON with its plain numbers as numbers.
fn plain(value: &Value) -> Value {
    match value {
        Value::Array(values) => Value::Array(values.iter().map(plain).collect()),
        Value::Object(fields) => {
            let number = fields.iter().next().filter(|(name, _)| {
                fields.len() == 1 && ["$numberInt", "$numberLong", "$numberDouble"].contains(&name.as_str())
            });
            let number =
                number.and_then(|(_, number)| serde_json::from_str::<serde_json::Number>(number.as_str()?).ok());
            number.map_or_else(
                || Value::Object(fields.iter().map(|(name, value)| (name.clone(), plain(value))).collect()),
                Value::Number,
            )
        }
        other => other.clone(),
    }
}

/// `2026-11-23 10:58:31 UTC`.
fn time(moment: &str) -> String {
    let shown = text(moment);
    let short = shown.split('.').next().unwrap_or_default().replace('T', " ");
    format!("<time datetime=\"{shown}\">{short} UTC</time>")
}

fn duration(seconds: u64) -> String {
    match seconds {
        0 => "under 1 s".to_owned(),
        seconds => humantime::format_duration(Duration::from_secs(seconds)).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::catalog::CollectionKind;
    use crate::model::namespace::Namespace;
    use crate::model::report::Verdict;
    use crate::model::step::Step;
    use serde_json::json;

    fn collection(number: usize) -> CollectionReport {
        CollectionReport {
            namespace: Namespace::new("db", format!("c{number:05}")),
            target: None,
            kind: CollectionKind::Collection,
            uuid: None,
            status: "copied",
            documents: 1,
            bytes: 10,
            digest: Some(crate::model::digest::Digest::of(b"x")),
            estimated_documents: 1,
            estimated_bytes: 10,
            rejected: 0,
            options: json!({"size": {"$numberLong": "12"}, "_id": {"$numberInt": "1", "x": 2}}),
            indexes: vec![json!({"v": {"$numberInt": "2"}, "key": {"_id": {"$numberInt": "1"}}, "name": "_id_"})],
            indexes_left_out: 0,
            shard_key: None,
            index: None,
            verify: None,
        }
    }

    fn report(collections: usize) -> Report {
        let step = |step| StepReport {
            step,
            status: "done".to_owned(),
            started: None,
            finished: None,
            seconds: None,
            parts: 1,
            resumed: 0,
            summary: String::new(),
        };
        Report {
            job: "shop".to_owned(),
            id: None,
            reported: "2026-11-26T10:00:00.000Z".to_owned(),
            version: "0.1.0".to_owned(),
            discovered_by: None,
            status: "done",
            error: None,
            begun: None,
            ended: None,
            verdict: Verdict { outcome: Outcome::Complete, sentence: String::new(), proven: vec![], unproven: vec![] },
            source: None,
            shards: [].into(),
            target: None,
            settings: [].into(),
            steps: Step::ALL.map(step).to_vec(),
            totals: Totals::default(),
            checkpoint: None,
            stream_starts: [].into(),
            findings: vec![],
            findings_accepted: false,
            notes: vec![],
            left_out: None,
            collections: (0..collections).map(collection).collect(),
        }
    }

    #[test]
    fn the_page_needs_nothing_from_outside() {
        for outside in ["http:", "https:", "src=", "@import", "url(", " style=", "<script"] {
            assert!(!PAGE.contains(outside), "{outside}");
        }
        assert!(PAGE.contains("<style>") && !policy().contains("47DEQpj8HBSa"), "the hash of nothing");
        let page = page(&report(1));
        assert!(!page.contains("{{") && page.contains("style-src 'sha256-"), "{page}");
        assert_eq!(page.matches("<style").count(), 1);
    }

    #[test]
    fn what_comes_from_a_job_is_text() {
        let shown = text("<b a='\"'>&\u{202e}\u{7}\u{a0}é");
        assert_eq!(shown, "&lt;b a=&#39;&quot;&#39;&gt;&amp;\\u{202e}\\u{7}\u{a0}é");
        let mut odd = report(1);
        odd.job = "{{body}}<i>".to_owned();
        let page = page(&odd);
        assert!(page.contains("<h1>{{body}}&lt;i&gt;</h1>") && page.matches("<main>").count() == 1, "{page}");
    }

    #[test]
    fn collections_out_of_sight_are_not_laid_out_when_there_are_many() {
        assert!(!page(&report(MANY)).contains("class=\"far\""));
        let many = page(&report(MANY + 1));
        assert!(many.contains("class=\"far\""));
        assert_eq!(many.matches("<ol>").count(), MANY / CHUNK + 1);
    }

    #[test]
    fn indexes_and_options_are_written_as_people_write_them() {
        let index = json!({"v": {"$numberInt": "2"}, "key": {"b": {"$numberInt": "-1"}, "a": "text"}, "name": "n", "unique": true});
        assert_eq!(index_text(&index), r#"n {"b":-1,"a":"text"}, unique: true"#);
        assert_eq!(plain(&collection(0).options).to_string(), r#"{"size":12,"_id":{"$numberInt":"1","x":2}}"#);
        assert_eq!(plain(&json!({"$numberDouble": "NaN"})), json!({"$numberDouble": "NaN"}));
    }
}
