//! What every step works with: the settings, the job's documents, this run, and the two deployments.

use crate::claim::Claimant;
use crate::config::Settings;
use crate::error::{Error, Result};
use crate::journal::Journal;
use crate::model::balancer::BalancerRecord;
use crate::model::document_filter::DocumentFilter;
use crate::model::identity::Identity;
use crate::model::job::CheckpointMap;
use crate::model::job::{Binding, JobRecord, Selection};
use crate::model::lease::Holder;
use crate::model::step::Step;
use crate::mongo::Comment;
use crate::mongo::deployment::Deployment;
use crate::mongo::failure::Side;
use crate::process;
use crate::random::random_id;
use crate::source::Source;
use crate::state::document::Documents;
use crate::state::keys;
use crate::state::memory::MemoryStore;
use crate::state::open::{S3Options, open_store};
use crate::state::store::StateStore;
use crate::stop::Stop;
use crate::tally::Tally;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One run of the program on one job.
#[derive(Debug, Clone)]
pub struct Context {
    /// What was asked for.
    pub settings: Arc<Settings>,
    /// The job's documents.
    pub documents: Documents,
    /// This run as others see it.
    pub holder: Holder,
    /// Whether it is to stop.
    pub stop: Stop,
    /// What it did.
    pub journal: Arc<Journal>,
    /// What it has moved.
    pub tally: Arc<Tally>,
}

impl Context {
    /// Opens the state store; nothing is written. A dry run has one of its own, which goes with the process.
    ///
    /// # Errors
    /// Bad input for a store that cannot be used.
    pub async fn open(settings: Settings, stop: Stop) -> Result<Self> {
        if settings.dry_run {
            return Ok(Self::on(Arc::new(MemoryStore::new()), settings, stop));
        }
        let s3 =
            S3Options { endpoint: settings.s3_endpoint.as_deref(), owner: settings.expected_bucket_owner.as_deref() };
        let store = open_store(&settings.state.to_string(), s3).await?;
        Ok(Self::on(store, settings, stop))
    }

    /// The same on a store that is open already.
    pub fn on(store: Arc<dyn StateStore>, settings: Settings, stop: Stop) -> Self {
        let documents = Documents::new(store, settings.job.to_string());
        let run = random_id();
        let holder = Holder { run: run.clone(), host: process::host_name(), process: process::this() };
        let journal = Arc::new(Journal::new(documents.clone(), &run));
        Self { settings: Arc::new(settings), documents, holder, stop, journal, tally: Arc::default() }
    }

    /// The same run for one attempt at its work, which can fail without the run, with other settings where secrets have
    /// changed.
    #[must_use]
    pub fn attempt(&self, settings: Option<Settings>) -> Self {
        let settings = settings.map_or_else(|| Arc::clone(&self.settings), Arc::new);
        Self { settings, stop: self.stop.of_part(), ..self.clone() }
    }

    /// How this run claims work.
    pub fn claimant(&self) -> Claimant {
        Claimant { holder: self.holder.clone(), lease: self.settings.lease, takeover: self.settings.takeover }
    }

    /// The job's document, `None` before it was discovered.
    ///
    /// # Errors
    /// Bad input when the job was abandoned, else those of the state store.
    pub async fn job(&self) -> Result<Option<JobRecord>> {
        let job: Option<JobRecord> = self.documents.read(keys::JOB).await?.map(|stored| stored.value);
        match job {
            Some(JobRecord { abandoned: Some(when), .. }) => {
                Err(Error::bad_input(format!("job `{}` was abandoned at {when}; use another --job", self.settings.job)))
            }
            job => Ok(job),
        }
    }

    /// Connects to both deployments for a step, and makes sure that they, and what is to be copied under which name,
    /// are what the job was planned for.
    ///
    /// # Errors
    /// Bad input with both values where they are not; as [`Deployment::connect`].
    pub async fn connect(&self, step: Step) -> Result<Servers> {
        let (job, captured) = self.known().await?;
        self.settings.target()?;
        let (source, target) = self.connect_each(step, "", captured.as_ref()).await;
        let servers = Servers { source: source?, target: target?, job };
        self.check_pair(&servers).await?;
        Ok(servers)
    }

    /// What an earlier run has written down of the job: its document, and the checkpoint with what was chosen for good.
    ///
    /// # Errors
    /// Bad input, with both values, where this run was told something else; as [`Context::job`].
    pub async fn known(&self) -> Result<(Option<JobRecord>, Option<CheckpointMap>)> {
        let job = self.job().await?;
        if let Some(binding) = job.as_ref().and_then(|job| job.binding.as_ref()) {
            self.check_selection(&binding.selection)?;
        }
        let captured = self.documents.read::<CheckpointMap>(keys::CHECKPOINT).await?.map(|captured| captured.value);
        if let (Some(captured), Some(read)) = (&captured, self.settings.read)
            && captured.source.is_mongos
            && captured.read != read
        {
            return Err(self.planned_for("--read", captured.read, read));
        }
        if let (Some(captured), Some(mode)) = (&captured, self.settings.checkpoint_mode)
            && captured.mode != mode
        {
            return Err(self.planned_for("--checkpoint-mode", captured.mode, mode));
        }
        Ok((job, captured))
    }

    /// Connects to each side; one may fail without the other.
    pub async fn connect_each(
        &self,
        step: Step,
        part: &str,
        captured: Option<&CheckpointMap>,
    ) -> (Result<Source>, Result<Deployment>) {
        let comment = self.comment(step, part);
        let app_name = format!("mongoferry {} {step}", self.settings.job);
        let target = async {
            let ca = self.settings.target_ca.as_deref();
            Deployment::connect(Side::Target, self.settings.target()?, ca, &app_name, comment.clone()).await
        };
        tokio::join!(Source::connect(&self.settings, step, captured, &app_name, comment.clone()), target)
    }

    /// Whether the two sides go together, and are those that the job is bound to.
    ///
    /// # Errors
    /// Bad input with both values where they are not; those of the state store.
    pub async fn check_pair(&self, servers: &Servers) -> Result<()> {
        if self.settings.fence_writes && servers.target.is_mongos() {
            return Err(Error::bad_input(
                "--fence-writes yes does not go with a mongos as the target, since each shard would have to know all sessions; leave it out",
            ));
        }
        if let (true, Err(reason)) = (self.settings.fence_writes, servers.target.connector()) {
            return Err(Error::bad_input(format!(
                "--fence-writes yes does not go with {reason}, which the target's connection string asks for; leave out one of them"
            )));
        }
        let is_target = |source: &&Deployment| source.identity.is_same_as(&servers.target.identity);
        if let Some(same) = servers.source.deployments().find(is_target) {
            return Err(Error::bad_input(format!(
                "source and target are the same deployment, {}; correct --source or --target",
                same.identity
            )));
        }
        if let Some(binding) = servers.job.as_ref().and_then(|job| job.binding.as_ref()) {
            let mains = [(&servers.source.main, &binding.source), (&servers.target, &binding.target)];
            for (deployment, recorded) in mains {
                if !recorded.still_is(&deployment.identity) {
                    return Err(self.planned_for(deployment.side, recorded, &deployment.identity));
                }
            }
            self.check_shards(&binding.shards, &servers.source.shard_identities())?;
        } else if let Some(recorded) = self.unbound_source().await?
            && !recorded.still_is(&servers.source.main.identity)
        {
            return Err(self.planned_for(Side::Source, &recorded, &servers.source.main.identity));
        }
        Ok(())
    }

    /// The source that a discover had begun with that was killed before it bound the job.
    async fn unbound_source(&self) -> Result<Option<Identity>> {
        if let Some(checkpoint) = self.documents.read::<CheckpointMap>(keys::CHECKPOINT).await? {
            return Ok(Some(checkpoint.value.source));
        }
        let balancer = self.documents.read::<BalancerRecord>(keys::BALANCER).await?;
        Ok(balancer.map(|balancer| balancer.value).filter(BalancerRecord::is_owed).map(|balancer| balancer.source))
    }

    /// A shard that came or went since has or had a part of the data.
    fn check_shards(&self, recorded: &BTreeMap<String, Identity>, now: &BTreeMap<String, Identity>) -> Result<()> {
        let names = |shards: &BTreeMap<String, Identity>| shards.keys().cloned().collect::<Vec<_>>().join(", ");
        if !recorded.keys().eq(now.keys()) {
            return Err(self.planned_for("shards", names(recorded), names(now)));
        }
        match recorded.iter().zip(now.values()).find(|((_, recorded), now)| !recorded.still_is(now)) {
            Some(((name, recorded), now)) => Err(self.planned_for(format!("shard {name}"), recorded, now)),
            None => Ok(()),
        }
    }

    /// The comment on each command of a step, and of a lane where `part` names it.
    pub fn comment(&self, step: Step, part: &str) -> Comment {
        let separator = if part.is_empty() { "" } else { " " };
        Comment(format!("mongoferry job={} step={step} run={}{separator}{part}", self.settings.job, self.holder.run))
    }

    /// Whether what is to be copied, and under which names, is what the job was planned with.
    ///
    /// # Errors
    /// Bad input with both values.
    pub fn check_selection(&self, planned: &Selection) -> Result<()> {
        let now = self.settings.selection();
        if planned.filter != now.filter {
            return Err(self.planned_for("filter", &planned.filter, now.filter));
        }
        if planned.renames != now.renames {
            return Err(self.planned_for("renames", &planned.renames, now.renames));
        }
        if planned.rename_dbrefs != now.rename_dbrefs {
            let word = |is_on: bool| if is_on { "yes" } else { "no" };
            return Err(self.planned_for("--rename-dbrefs", word(planned.rename_dbrefs), word(now.rename_dbrefs)));
        }
        for namespace in planned.filters.keys().chain(now.filters.keys()) {
            let (planned, now) = (planned.filters.get(namespace), now.filters.get(namespace));
            if planned != now {
                let text = |filter: Option<&DocumentFilter>| filter.map_or("none".to_owned(), ToString::to_string);
                return Err(self.planned_for(format!("the filter of {namespace}"), text(planned), text(now)));
            }
        }
        Ok(())
    }

    fn planned_for(
        &self,
        what: impl std::fmt::Display,
        recorded: impl std::fmt::Display,
        now: impl std::fmt::Display,
    ) -> Error {
        Error::bad_input(format!(
            "job `{}` was planned for {what} `{recorded}`, now it is `{now}`; use another --job, or what it was planned for",
            self.settings.job
        ))
    }
}

/// The two deployments, connected for one step.
#[derive(Debug, Clone)]
pub struct Servers {
    /// Read from.
    pub source: Source,
    /// Written to.
    pub target: Deployment,
    /// The job's document as it was when they were connected.
    pub job: Option<JobRecord>,
}

impl Servers {
    /// The job's document and what it is bound to, which is there from discover on.
    ///
    /// # Errors
    /// Of the state store: a later step found none.
    pub fn bound(&self) -> Result<(&JobRecord, &Binding)> {
        self.job
            .as_ref()
            .and_then(|job| job.binding.as_ref().map(|binding| (job, binding)))
            .ok_or_else(|| Error::state("the job's document (job.json) is missing although discover is done"))
    }
}
