//! What is told of a job when it is signed off ([`crate::model::report`]): gathered from the state store alone, no server
//! is asked; as JSON, or as one page for people.

mod file;
mod html;

pub use file::write;
pub use html::page;

use crate::clock;
use crate::error::Result;
use crate::model::catalog::CatalogEntry;
use crate::model::choice::{CreateIndex, ReadThrough};
use crate::model::counts::Counts;
use crate::model::filter::Pattern;
use crate::model::job::{Binding, CheckpointMap, JobRecord};
use crate::model::left_out::LeftOut;
use crate::model::report::{
    CollectionReport, Facts, Outcome, Report, ShareReport, StepReport, StreamStart, Totals, Verdict,
};
use crate::model::step::Step;
use crate::model::work::{StepProgress, Work};
use crate::state::document::{Document, Documents};
use crate::state::keys;
use crate::state::pages::{self, CatalogHead};
use crate::status::{self, JobStatus, NamespaceStatus, Share, Status, StepStatus};
use std::collections::BTreeMap;

/// Everything about a job, or `None` when the store has nothing of it.
///
/// # Errors
/// Those of the state store.
pub async fn read(documents: &Documents, name: &str) -> Result<Option<Report>> {
    let Some(status) = status::read(documents, name).await? else { return Ok(None) };
    let job: Option<JobRecord> = value(documents, keys::JOB).await?;
    let checkpoint: Option<CheckpointMap> = value(documents, keys::CHECKPOINT).await?;
    let prepared = progress(documents, Step::Prepare).await?;
    let verified = progress(documents, Step::Verify).await?;
    let create_index = prepared.as_ref().and_then(|prepared| prepared.create_index);
    let found = match value::<CatalogHead>(documents, keys::CATALOG).await? {
        Some(head) => Found::read(documents, &head, &status, create_index).await?,
        None => Found::default(),
    };
    let round = verified.as_ref().and_then(|verified| verified.round);
    let facts = Facts {
        check: round.map(|round| round.check),
        existing: prepared.as_ref().and_then(|prepared| prepared.existing),
        create_index,
        without_digest: found.without_digest,
    };
    let settings = settings(job.as_ref(), checkpoint.as_ref(), facts);
    let binding = job.as_ref().and_then(|job| job.binding.clone());
    let (source, shards, target) = match binding {
        Some(Binding { source, shards, target, .. }) => (Some(source), shards, Some(target)),
        None => (checkpoint.as_ref().map(|checkpoint| checkpoint.source.clone()), BTreeMap::new(), None),
    };
    let totals = Totals {
        rejected: status.documents.rejected,
        read: status.documents.read,
        replayed: status.documents.replayed.unwrap_or_default(),
        lanes: status.lanes.len(),
        ..found.totals
    };
    let steps: Vec<StepReport> = status.steps.iter().map(step).collect();
    let is_done = status.status == JobStatus::Done;
    let starts = checkpoint.as_ref().map(CheckpointMap::stream_starts).unwrap_or_default();
    let start = |after: crate::model::job::Optime| StreamStart {
        seconds: after.seconds,
        increment: after.increment,
        ckpt: after.as_int64(),
    };
    let mut report = Report {
        job: name.to_owned(),
        id: status.id,
        reported: clock::wall(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        discovered_by: job.and_then(|job| job.discovered_by),
        status: status.status.word(),
        error: status.error,
        begun: steps.iter().filter_map(|step| step.started.clone()).min(),
        ended: steps.iter().find(|step| step.step == Step::Commit).and_then(|commit| commit.finished.clone()),
        verdict: Verdict { outcome: Outcome::Unfinished, sentence: String::new(), proven: vec![], unproven: vec![] },
        source,
        shards,
        target,
        settings,
        steps,
        totals,
        checkpoint,
        stream_starts: starts.into_iter().map(|(name, after)| (name, start(after))).collect(),
        findings_accepted: is_done && !status.findings.is_empty(),
        findings: status.findings,
        notes: status.notes,
        left_out: found.left_out,
        collections: found.collections,
    };
    report.verdict = report.judge(facts);
    Ok(Some(report))
}

async fn value<T: Document>(documents: &Documents, key: &str) -> Result<Option<T>> {
    Ok(documents.read(key).await?.map(|stored| stored.value))
}

async fn progress(documents: &Documents, step: Step) -> Result<Option<StepProgress>> {
    Ok(value::<Work<StepProgress>>(documents, &keys::step(step)).await?.map(|work| work.progress))
}

/// What the catalog and the status say about collections.
#[derive(Default)]
struct Found {
    collections: Vec<CollectionReport>,
    left_out: Option<Vec<LeftOut>>,
    totals: Totals,
    without_digest: usize,
}

impl Found {
    async fn read(
        documents: &Documents,
        head: &CatalogHead,
        status: &Status,
        create_index: Option<CreateIndex>,
    ) -> Result<Self> {
        let mut found = Found { left_out: pages::read_left_out(documents, head).await?, ..Found::default() };
        let mut counts = Counts::default();
        let mut statuses = status.namespaces.iter();
        for page in 0..head.pages {
            for entry in pages::read_catalog_page(documents, head, page).await? {
                // Both are in the order of the catalog.
                let Some(namespace) = statuses.next() else { break };
                counts += namespace.counts;
                found.add(entry, namespace, create_index);
            }
        }
        found.totals.documents = counts.written;
        found.totals.bytes = counts.written_bytes;
        found.totals.digest = counts.digest;
        found.totals.kept = counts.kept;
        found.totals.overwritten = counts.overwritten;
        Ok(found)
    }

    fn add(&mut self, entry: CatalogEntry, namespace: &NamespaceStatus, create_index: Option<CreateIndex>) {
        let (is_copied, has_documents) = (entry.kind.is_copied(), entry.kind.has_documents());
        let secondary = if is_copied { entry.secondary_indexes().count() } else { 0 };
        let indexes_left_out = if create_index == Some(CreateIndex::None) { secondary } else { 0 };
        let counts = namespace.counts;
        self.totals.collections += usize::from(has_documents);
        self.totals.not_copied += usize::from(!is_copied);
        self.totals.copied += usize::from(has_documents && namespace.status == "copied");
        self.totals.indexes += secondary;
        self.totals.indexes_left_out += indexes_left_out;
        self.without_digest += usize::from(has_documents && counts.digest.is_none());
        self.collections.push(CollectionReport {
            namespace: entry.namespace,
            target: namespace.target.clone(),
            kind: entry.kind,
            uuid: entry.uuid,
            status: namespace.status,
            documents: counts.written,
            bytes: counts.written_bytes,
            digest: counts.digest.filter(|_| has_documents),
            estimated_documents: entry.documents,
            estimated_bytes: entry.bytes,
            rejected: namespace.rejected,
            options: entry.options,
            indexes: entry.indexes,
            indexes_left_out,
            shard_key: entry.sharding.map(|sharding| sharding.key),
            index: namespace.index.as_ref().map(share),
            verify: namespace.verify.as_ref().map(share),
        });
    }
}

fn share(share: &Share) -> ShareReport {
    let finished = share.finished.as_deref();
    let time = finished.and_then(|finished| clock::wall_between(&share.started, finished));
    ShareReport { status: share.status, milliseconds: time.map(|time| time.as_millis() as u64) }
}

fn step(step: &StepStatus) -> StepReport {
    let times = step.started.as_deref().zip(step.finished.as_deref());
    StepReport {
        step: step.step,
        status: step.status.clone(),
        started: step.started.clone(),
        finished: step.finished.clone(),
        seconds: times
            .and_then(|(started, finished)| clock::wall_between(started, finished))
            .map(|time| time.as_secs()),
        parts: step.claims.total,
        resumed: step.claims.done.saturating_sub(step.claims.total),
        summary: step.summary.clone(),
    }
}

/// What the job was planned and prepared with: what its documents have recorded, and nothing of the settings of this run.
fn settings(
    job: Option<&JobRecord>,
    checkpoint: Option<&CheckpointMap>,
    Facts { check, existing, create_index, .. }: Facts,
) -> BTreeMap<String, String> {
    let mut settings = job.map(|job| job.settings.clone()).unwrap_or_default();
    let mut set = |name: &str, value: String| settings.insert(name.to_owned(), value);
    if let Some(binding) = job.and_then(|job| job.binding.as_ref()) {
        let list = |patterns: &[Pattern]| patterns.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        set("include", list(binding.selection.filter.include()));
        set("exclude", list(binding.selection.filter.exclude()));
        let renames: BTreeMap<String, String> = binding.selection.renames.clone().into();
        if binding.selection.rename_dbrefs {
            set("rename-dbrefs", "yes".to_owned());
        }
        for (namespace, filter) in &binding.selection.filters {
            set(&format!("filter of {namespace}"), filter.to_string());
        }
        set("rename", renames.iter().map(|(from, to)| format!("{from}:{to}")).collect::<Vec<_>>().join(","));
    }
    if let Some(checkpoint) = checkpoint {
        set("checkpoint-mode", checkpoint.mode.to_string());
        if checkpoint.is_cluster {
            let through = if checkpoint.read == ReadThrough::Mongos { "mongos" } else { "shards" };
            set("read", through.to_owned());
        }
    }
    if let Some(existing) = existing {
        set("existing", existing.to_string());
    }
    if let Some(create_index) = create_index {
        set("create-index", create_index.to_string());
    }
    if let Some(check) = check {
        set("verify", check.verify.to_string());
        set("against", check.against.to_string());
    }
    settings
}
