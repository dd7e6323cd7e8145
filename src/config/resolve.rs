//! Each setting from what was given, or from what is so when nobody says otherwise.

use super::layer::{
    AGAINST, CHECKPOINT_MODES, CREATE_INDEX, EXISTING, Given, LOG_FORMATS, LOG_LEVELS, Layers, ON_CONFLICT, ORPHANS,
    Places, READ, READ_ORDER, READ_PREFERENCE, RawArguments, SETTINGS, VERIFY, YES_NO, nearest,
};
use super::reference::{Contents, Reference};
use super::{CheckpointUri, ClusterUris, Settings, StateUrl, layer};
use crate::cli::Command;
use crate::connection_string::ConnectionString;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::http;
use crate::model::choice::{
    Against, CheckpointMode, CreateIndex, Existing, OnConflict, Orphans, ReadOrder, ReadPreference, ReadThrough, Verify,
};
use crate::model::execution::StateMachineArn;
use crate::model::filter::{Filter, Pattern};
use crate::model::job_name::JobName;
use crate::model::limit::{Quantity, RateLimits};
use crate::model::namespace::Namespace;
use crate::model::renames::Renames;
use crate::model::size;
use crate::model::system::IncludeSystem;
use crate::model::target_sharding::ShardingChoices;
use crate::telemetry::LogFormat;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;
use tracing::Level;

/// Where the state is when nobody says otherwise.
const DEFAULT_STATE: &str = "./mongoferry-state";

/// Long enough for a worker that is slow or paused for a moment, short enough for a person who waits for a dead one.
pub(super) const DEFAULT_LEASE: Duration = Duration::from_secs(15);

/// Shorter, and a slow answer of the store looks like a death; longer, and nobody would wait for it.
const LEASE_RANGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(600);

/// A save in a folder costs an fsync.
const DEFAULT_SAVE_INTERVAL_IN_A_FOLDER: Duration = Duration::from_millis(200);

/// A save in S3 costs $5 a million, and a prefix takes 3,500 a second: 4,000 lanes must fit.
const DEFAULT_SAVE_INTERVAL_ON_S3: Duration = Duration::from_secs(2);

/// Faster than any store saves.
const SHORTEST_SAVE_INTERVAL: Duration = Duration::from_millis(10);

/// A lane that saves this often within its lease can lose one save, and wait for a slow one, without losing the lane.
const SAVES_PER_LEASE: u32 = 3;

/// Less is not enough to connect and claim.
const SHORTEST_TIME_BUDGET: Duration = Duration::from_secs(1);

/// Nobody enlarges an oplog in less.
const SHORTEST_OPLOG_WINDOW: Duration = Duration::from_secs(1);

/// What an invocation needs to stop is 2 s; the rest is for a store or a server that is slow just then.
const DEFAULT_MARGIN: Duration = Duration::from_secs(30);

/// Less is not enough to stop; more, and hardly any time is left of the 15 minutes that AWS allows.
const MARGIN_RANGE: RangeInclusive<Duration> = Duration::from_secs(2)..=Duration::from_secs(600);

/// Enough for most servers, and few enough connections for small ones.
const DEFAULT_MAX_LANES: u32 = 16;

/// A Lambda account begins with 1,000 invocations at once.
const MAX_LANES_RANGE: RangeInclusive<u32> = 1..=1_000;

/// Large enough that most collections are one range, small enough that the largest keeps several readers busy.
const DEFAULT_PARTITION_SIZE: u64 = 256 << 20;

/// Smaller, and every document would be a range.
const PARTITION_SIZE_RANGE: RangeInclusive<u64> = 4 << 10..=1 << 40;

/// More lanes than one worker each are of no use, and each is a document that is saved.
const LANES_PER_SHARD_RANGE: RangeInclusive<u32> = 1..=1_000;

/// Little enough for any machine and the smallest Lambda function, and more brings nothing.
pub(super) const DEFAULT_MEMORY: u64 = 64 << 20;

/// Less does not hold the program and the largest document; more than this is a slip of the pen.
const MEMORY_RANGE: RangeInclusive<u64> = 32 << 20..=1 << 40;

/// More readers than this take turns.
const READERS_RANGE: RangeInclusive<u32> = 1..=256;
const DEFAULT_MAX_READERS: u32 = 16;

/// More writers than a server has cores get nothing more out of it.
const WRITERS_RANGE: RangeInclusive<u32> = 1..=crate::copy::partition::IN_FLIGHT as u32;
const DEFAULT_MAX_WRITERS: u32 = 8;

/// A build takes a core of the target, and a server does three at once by default (`maxNumActiveUserIndexBuilds`): the others
/// wait there.
const INDEX_PARALLELISM_RANGE: RangeInclusive<u32> = 1..=64;
const DEFAULT_INDEX_PARALLELISM: u32 = 3;

/// Cutting one takes a server some milliseconds; more than a thousand for each collection is left to the balancer.
const DEFAULT_MAX_INITIAL_CHUNKS: u32 = 1_000;
const INITIAL_CHUNKS_RANGE: RangeInclusive<u32> = 1..=100_000;

/// What the words for `--log-level` stand for.
const LEVELS: [Level; 5] = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];

/// What MongoShake calls it when nobody says otherwise (`checkpoint.storage.db`, `checkpoint.storage.collection`).
const DEFAULT_CHECKPOINT_NAMESPACE: (&str, &str) = ("mongoshake", "ckpt_default");

/// What a function logs, before there is a job whose settings say it.
///
/// # Errors
/// Bad input for a level that is none.
pub fn function_log_level(environment: &Environment) -> Result<Level> {
    let layers = Layers { flags: RawArguments::default(), environment: environment.clone(), file: None };
    let (contents, defaults) = (&Contents::new(), &Defaults::OF_A_PROCESS);
    let resolver = Resolver { layers: &layers, contents, notices: Vec::new(), defaults };
    Ok(resolver.word("log-level", LOG_LEVELS, &LEVELS)?.unwrap_or(Level::INFO))
}

/// What was given, on its way to [`Settings`].
pub(super) struct Resolver<'a> {
    pub(super) layers: &'a Layers,
    pub(super) contents: &'a Contents,
    pub(super) notices: Vec<String>,
    pub(super) defaults: &'a Defaults,
}

/// What is so when nobody says otherwise, where it depends on what runs.
#[derive(Clone)]
pub(super) struct Defaults {
    lease: Duration,
    save_interval_on_s3: Duration,
    memory: u64,
    max_readers: u32,
    max_writers: u32,
}

impl Defaults {
    pub(super) const OF_A_PROCESS: Self = Self {
        lease: DEFAULT_LEASE,
        save_interval_on_s3: DEFAULT_SAVE_INTERVAL_ON_S3,
        memory: DEFAULT_MEMORY,
        max_readers: DEFAULT_MAX_READERS,
        max_writers: DEFAULT_MAX_WRITERS,
    };

    /// A function of this size. Nobody waits at a terminal for one that died, and each of hundreds saves for itself; it has
    /// a lane and a core or two, and the connections of all of them are the servers' to bear.
    pub(super) fn of_function(memory: u64) -> Self {
        Self {
            lease: Duration::from_secs(60),
            save_interval_on_s3: Duration::from_secs(10),
            // The rest is for the program and what the system keeps.
            memory: (memory / 4 * 3).clamp(*MEMORY_RANGE.start(), *MEMORY_RANGE.end()),
            max_readers: 4,
            max_writers: 4,
        }
    }
}

impl Resolver<'_> {
    pub(super) fn resolve(mut self, command: &Command) -> Result<Settings> {
        self.notice_ineffective_variables();
        let job = self.job(command)?;
        let state = self.parsed("state", parse_state)?;
        let state = state.unwrap_or_else(|| StateUrl::Folder(PathBuf::from(DEFAULT_STATE)));
        let source = self.connection_string("source")?;
        let has_source = self.layers.given("source").is_some();
        let cluster = self.cluster(command, has_source)?;
        let target = self.connection_string("target")?;
        let (mut source_ca, mut target_ca) = (None, None);
        if command.connects() {
            source_ca = self.certificate_authorities(
                "source-ca",
                source.as_ref().or(cluster.as_ref().and_then(|cluster| cluster.config.as_ref())),
            )?;
            target_ca = self.certificate_authorities("target-ca", target.as_ref())?;
        }
        let existing = self.word("existing", EXISTING, &Existing::ALL)?.unwrap_or_default();
        if self.layers.flags.drop_committed && existing != Existing::Drop {
            return Err(Error::bad_input(format!(
                "--drop-committed goes with --existing drop only; existing collections are set to `{existing}`"
            )));
        }
        let lease = self.duration("lease", LEASE_RANGE)?.unwrap_or(self.defaults.lease);
        let quiet = self.layers.flags.quiet;
        let default_level = if quiet { Level::WARN } else { Level::INFO };
        let (db, collection) = DEFAULT_CHECKPOINT_NAMESPACE;
        Ok(Settings {
            job,
            s3_endpoint: self.parsed("s3-endpoint", parse_endpoint)?,
            expected_bucket_owner: self.parsed("expected-bucket-owner", parse_account)?,
            state_machine: self.parsed("state-machine", StateMachineArn::parse)?,
            read: self.read(cluster.is_some() && !has_source)?,
            source,
            cluster,
            target,
            source_ca,
            target_ca,
            filter: self.filter()?,
            renames: self.renames()?,
            filters: self.layers.file.as_ref().map(|(_, content)| content.filters.clone()).unwrap_or_default(),
            rename_dbrefs: self.word("rename-dbrefs", YES_NO, &[true, false])?.unwrap_or_default(),
            include_system: self.include_system()?,
            existing,
            drop_committed: self.layers.flags.drop_committed,
            orphans: self.word("orphans", ORPHANS, &Orphans::ALL)?.unwrap_or_default(),
            stop_balancer: self.stop_balancer()?,
            sharding: ShardingChoices {
                keep_unsharded: self.patterns("keep-unsharded")?,
                keep_sharding: self.patterns("keep-sharding")?,
                keys: self.layers.file.as_ref().map(|(_, content)| content.shard_keys.clone()).unwrap_or_default(),
                zones: self.word("zones", YES_NO, &[true, false])?.unwrap_or_default(),
            },
            max_initial_chunks: self
                .number("max-initial-chunks", INITIAL_CHUNKS_RANGE)?
                .unwrap_or(DEFAULT_MAX_INITIAL_CHUNKS) as usize,
            on_conflict: self.word("on-conflict", ON_CONFLICT, &OnConflict::ALL)?.unwrap_or_default(),
            max_rejected: self
                .parsed("max-rejected", |text| {
                    text.parse().map_err(|_| "write a number of documents, from 0 on".to_owned())
                })?
                .unwrap_or_default(),
            create_index: self.word("create-index", CREATE_INDEX, &CreateIndex::ALL)?.unwrap_or_default(),
            index_parallelism: self
                .number("index-parallelism", INDEX_PARALLELISM_RANGE)?
                .unwrap_or(DEFAULT_INDEX_PARALLELISM) as usize,
            fence_writes: self.word("fence-writes", YES_NO, &[true, false])?.unwrap_or_default(),
            digests: self.digests()?,
            checkpoint_mode: self.checkpoint_mode()?,
            checkpoint_uri: self.checkpoint_uri()?,
            checkpoint_namespace: self
                .parsed("checkpoint-namespace", parse_checkpoint_namespace)?
                .unwrap_or_else(|| Namespace::new(db, collection)),
            accept_findings: self.layers.flags.accept_findings,
            verify: self.verify()?,
            against: self.against()?,
            partition_size: self.size("partition-size", PARTITION_SIZE_RANGE)?.unwrap_or(DEFAULT_PARTITION_SIZE),
            lanes_per_shard: self.number("lanes-per-shard", LANES_PER_SHARD_RANGE)?.unwrap_or(1),
            max_lanes: self.number("max-lanes", MAX_LANES_RANGE)?.unwrap_or(DEFAULT_MAX_LANES),
            read_order: self.word("read-order", READ_ORDER, &ReadOrder::ALL)?.unwrap_or_default(),
            read_preference: self.word("read-preference", READ_PREFERENCE, &ReadPreference::ALL)?.unwrap_or_default(),
            min_oplog_window: self.duration("min-oplog-window", SHORTEST_OPLOG_WINDOW..=Duration::MAX)?,
            memory: self.size("memory", MEMORY_RANGE)?.unwrap_or(self.defaults.memory),
            max_readers: self.number("max-readers", READERS_RANGE)?.unwrap_or(self.defaults.max_readers) as usize,
            max_writers: self.number("max-writers", WRITERS_RANGE)?.unwrap_or(self.defaults.max_writers) as usize,
            rate_limits: RateLimits {
                documents: self.rate_limit(Quantity::Documents)?,
                bytes: self.rate_limit(Quantity::Bytes)?,
            },
            time_budget: self.duration("time-budget", SHORTEST_TIME_BUDGET..=Duration::MAX)?,
            margin: self.duration("margin", MARGIN_RANGE)?.unwrap_or(DEFAULT_MARGIN),
            save_interval: self.save_interval(&state, lease)?,
            lease,
            takeover: self.layers.flags.takeover,
            dry_run: self.layers.flags.dry_run,
            shard: self.parsed("shard", parse_shard)?,
            lane: self.parsed("lane", |text| text.parse().map_err(|_| "a lane is a number from 0 on".to_owned()))?,
            namespace: self.parsed("namespace", Namespace::parse_valid)?,
            http: self.parsed("http", http::address::parse)?,
            log_format: self.word("log-format", LOG_FORMATS, &[LogFormat::Text, LogFormat::Json])?.unwrap_or_default(),
            log_level: self.word("log-level", LOG_LEVELS, &LEVELS)?.unwrap_or(default_level),
            quiet,
            notices: self.notices,
            state,
        })
    }

    fn parsed<T>(&self, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>> {
        let parse = |given: Given| parse(given.text()).map_err(|reason| given.refuse(reason));
        self.layers.given(name).map(parse).transpose()
    }

    /// One of some words, and what it stands for at the same place of the other list.
    fn word<T: Copy>(&self, name: &str, words: &[&str], meanings: &[T]) -> Result<Option<T>> {
        self.parsed(name, |text| {
            let meant = words.iter().zip(meanings).find(|(word, _)| **word == text);
            meant.map(|(_, meaning)| *meaning).ok_or_else(|| format!("choose one of {}", words.join(", ")))
        })
    }

    fn duration(&self, name: &str, range: RangeInclusive<Duration>) -> Result<Option<Duration>> {
        self.parsed(name, |text| {
            let duration = humantime::parse_duration(text)
                .map_err(|_| "not a duration; write it like 500ms, 15s, 13m or 1h30m".to_owned())?;
            let shown = |duration: &Duration| humantime::format_duration(*duration).to_string().replace(' ', "");
            match (range.contains(&duration), range.end() == &Duration::MAX) {
                (true, _) => Ok(duration),
                (false, true) => Err(format!("must be at least {}", shown(range.start()))),
                (false, false) => Err(format!("must be from {} to {}", shown(range.start()), shown(range.end()))),
            }
        })
    }

    fn number(&self, name: &str, range: RangeInclusive<u32>) -> Result<Option<u32>> {
        self.parsed(name, |text| match text.parse() {
            Ok(number) if range.contains(&number) => Ok(number),
            _ => Err(format!("must be a number from {} to {}", range.start(), range.end())),
        })
    }

    fn size(&self, name: &str, range: RangeInclusive<u64>) -> Result<Option<u64>> {
        self.parsed(name, |text| {
            let size = size::parse(text)?;
            if range.contains(&size) {
                return Ok(size);
            }
            Err(format!("must be from {} to {}", size::show(*range.start()), size::show(*range.end())))
        })
    }

    fn rate_limit(&self, quantity: Quantity) -> Result<Option<u64>> {
        Ok(self.parsed(quantity.name(), |text| quantity.parse(text))?.flatten())
    }

    fn verify(&self) -> Result<Verify> {
        let verify = self.word("verify", VERIFY, &Verify::ALL)?.unwrap_or_default();
        if verify == Verify::None && self.layers.given("namespace").is_some() {
            return Err(Error::bad_input(
                "--namespace names what to compare, and `none` of --verify compares nothing; leave one of them out",
            ));
        }
        Ok(verify)
    }

    /// Only documents are held against anything.
    fn against(&self) -> Result<Against> {
        let Some(against) = self.word("against", AGAINST, &Against::ALL)? else { return Ok(Against::default()) };
        let verify = self.verify()?;
        match (verify, self.layers.given("against")) {
            (Verify::Full, _) | (_, None) => Ok(against),
            (_, Some(given)) => Err(given.refuse(format!("goes with --verify full only; it is set to `{verify}`"))),
        }
    }

    /// What is to be compared later must be taken now.
    fn digests(&self) -> Result<bool> {
        let digests = self.word("digests", YES_NO, &[true, false])?.unwrap_or(true);
        match self.layers.given("digests") {
            Some(given) if !digests && self.verify()? == Verify::Full && self.against()? == Against::Proofs => {
                Err(given
                    .refuse("does not go with --verify full, which compares digests; say --against source as well"))
            }
            _ => Ok(digests),
        }
    }

    /// Giving up a job is not done by default: the name has to be said somewhere.
    fn job(&self, command: &Command) -> Result<JobName> {
        match self.parsed("job", JobName::parse)? {
            Some(job) => Ok(job),
            None if *command == Command::Abandon => {
                Err(Error::bad_input("`abandon` wants to be told which job; name it with --job NAME"))
            }
            None => Ok(JobName::default()),
        }
    }

    fn save_interval(&self, state: &StateUrl, lease: Duration) -> Result<Duration> {
        let longest = lease / SAVES_PER_LEASE;
        let Some(interval) = self.duration("save-interval", SHORTEST_SAVE_INTERVAL..=Duration::MAX)? else {
            let default = match state {
                StateUrl::Folder(_) => DEFAULT_SAVE_INTERVAL_IN_A_FOLDER,
                StateUrl::S3 { .. } => self.defaults.save_interval_on_s3,
            };
            return Ok(default.min(longest));
        };
        if interval > longest {
            let [longest, lease] = [longest, lease].map(|duration| humantime::format_duration(duration).to_string());
            return self
                .parsed("save-interval", |_| {
                    Err(format!(
                        "must be at most a third of the lease of {lease}, which is {longest}; or raise --lease"
                    ))
                })
                .map(|interval| interval.unwrap_or_default());
        }
        Ok(interval)
    }

    /// None also for a reference whose content is not known.
    fn connection_string(&mut self, name: &str) -> Result<Option<ConnectionString>> {
        let Some(given) = self.layers.given(name) else { return Ok(None) };
        self.parsed_uri(&given, given.text())
    }

    /// A cluster is its config servers and all its shards, in place of a source; to abandon a job the config servers are
    /// enough. Beside a source they go with a mongos, which nobody can tell before it answers.
    fn cluster(&mut self, command: &Command, has_source: bool) -> Result<Option<ClusterUris>> {
        let config = self.connection_string("source-config")?;
        let mut shards = Vec::new();
        let given = self.layers.given("source-shard");
        for uri in given.iter().flat_map(Given::uris) {
            shards.extend(given.as_ref().map(|given| self.parsed_uri(given, uri)).transpose()?.flatten());
        }
        let has_shards = given.as_ref().is_some_and(|given| !given.uris().is_empty());
        match (self.layers.given("source-config"), given) {
            (None, None) => Ok(None),
            _ if has_source => Ok(Some(ClusterUris { config, shards })),
            (Some(given), _) if !has_shards && *command != Command::Abandon => {
                Err(given.refuse("goes with --source-shard for each shard of that cluster"))
            }
            (None, Some(given)) => {
                Err(given.refuse("goes with --source-config, the config servers, which know what each shard owns"))
            }
            _ => Ok(Some(ClusterUris { config, shards })),
        }
    }

    fn read(&self, is_without_mongos: bool) -> Result<Option<ReadThrough>> {
        let read = self.word("read", READ, &ReadThrough::ALL)?;
        match self.layers.given("read") {
            Some(given) if is_without_mongos && read == Some(ReadThrough::Mongos) => {
                Err(given.refuse("goes with a mongos as --source"))
            }
            _ => Ok(read),
        }
    }

    fn parsed_uri(&mut self, given: &Given, text: &str) -> Result<Option<ConnectionString>> {
        let parsed = match Reference::parse(text).transpose().map_err(|reason| given.refuse(reason))? {
            None => ConnectionString::parse(text).map_err(|reason| given.refuse(reason))?,
            Some(reference) => {
                let Some(content) = self.contents.get(&reference) else { return Ok(None) };
                let text = content.text.trim();
                ConnectionString::parse(text).map_err(|reason| {
                    let hint =
                        if text.starts_with('{') { "; of a JSON object, name the key: #key behind it" } else { "" };
                    given.refuse(format!("{reference}: {reason}{hint}"))
                })?
            }
        };
        for option in parsed.weaker_than_majority() {
            self.notices.push(format!(
                "{}: `{option}` is overridden by majority, since what is not acknowledged by a majority can be rolled back",
                given.place()
            ));
        }
        Ok(Some(parsed))
    }

    fn checkpoint_mode(&self) -> Result<Option<CheckpointMode>> {
        let mode = self.word("checkpoint-mode", CHECKPOINT_MODES, &CheckpointMode::ALL)?;
        match (mode, self.layers.given("checkpoint-uri")) {
            (Some(CheckpointMode::None), Some(uri)) if uri.text() != "none" => Err(uri.refuse(
                "is where a checkpoint goes, and with --checkpoint-mode none there is none; leave out one of them",
            )),
            _ => Ok(mode),
        }
    }

    fn checkpoint_uri(&mut self) -> Result<CheckpointUri> {
        match self.layers.given("checkpoint-uri") {
            None => Ok(CheckpointUri::Target),
            Some(given) if given.text() == "none" => Ok(CheckpointUri::None),
            Some(_) => {
                let uri = self.connection_string("checkpoint-uri").map_err(|error| {
                    Error::bad_input(format!("{error}; or say `none` to keep the checkpoint in the state alone"))
                })?;
                Ok(uri.map_or(CheckpointUri::Target, CheckpointUri::Uri))
            }
        }
    }

    fn certificate_authorities(&self, name: &str, uri: Option<&ConnectionString>) -> Result<Option<PathBuf>> {
        self.parsed(name, |text| {
            let named_in_uri = uri.and_then(|uri| uri.option("tlsCAFile"));
            if let Some(other) = named_in_uri {
                return Err(format!(
                    "the connection string names another one, tlsCAFile={other}; leave one of them out"
                ));
            }
            let tls = uri.and_then(|uri| uri.option("tls").or_else(|| uri.option("ssl")));
            if tls == Some("false") {
                return Err("the connection string says tls=false; leave one of them out".to_owned());
            }
            if let Some(reference) = Reference::parse(text).transpose()? {
                let Some(content) = self.contents.get(&reference) else { return Ok(None) };
                check_certificates(content.text.as_bytes())?;
                return Ok(content.file.clone());
            }
            let content = std::fs::read(text).map_err(|error| format!("cannot be read: {error}"))?;
            check_certificates(&content)?;
            Ok(Some(PathBuf::from(text)))
        })
        .map(Option::flatten)
    }

    fn patterns(&self, name: &str) -> Result<Vec<Pattern>> {
        let Some(given) = self.layers.given(name) else { return Ok(Vec::new()) };
        given.values().into_iter().map(|value| Pattern::parse(value).map_err(|reason| given.refuse(reason))).collect()
    }

    fn filter(&self) -> Result<Filter> {
        let include = self.patterns("include")?;
        let exclude = self.patterns("exclude")?;
        Filter::new(include, exclude).map_err(|reason| match self.layers.given("include") {
            Some(given) => given.refuse(reason),
            None => Error::bad_input(reason),
        })
    }

    fn include_system(&self) -> Result<IncludeSystem> {
        let Some(given) = self.layers.given("include-system") else { return Ok(IncludeSystem::default()) };
        IncludeSystem::parse(given.values()).map_err(|reason| given.refuse(reason))
    }

    /// What changes nothing does not stop a balancer either.
    fn stop_balancer(&self) -> Result<bool> {
        let stops = self.word("stop-balancer", YES_NO, &[true, false])?.unwrap_or_default();
        match self.layers.given("stop-balancer") {
            Some(given) if stops && self.layers.flags.dry_run => Err(given.refuse(
                "does not go with --dry-run, which changes nothing; say --stop-balancer no, and stop it by hand before",
            )),
            _ => Ok(stops),
        }
    }

    fn renames(&self) -> Result<Renames> {
        let Some(given) = self.layers.given("rename") else { return Ok(Renames::default()) };
        Renames::parse(given.values()).map_err(|reason| Error::bad_input(format!("{}: {reason}", given.place())))
    }

    /// A variable that looks like a setting and is none would be a setting that silently does nothing.
    fn notice_ineffective_variables(&mut self) {
        let settable = || SETTINGS.iter().filter(|setting| setting.places != Places::Flag);
        let known: Vec<String> = settable().map(layer::Setting::variable).collect();
        for name in self.layers.environment.names().filter(|name| !known.iter().any(|known| known == name)) {
            if let Some(flag) = SETTINGS.iter().find(|setting| setting.variable() == name) {
                self.notices.push(format!("{name} does nothing; --{} is given on the command line only", flag.name));
            } else if let Some(meant) = nearest(name, known.iter().map(String::as_str)) {
                self.notices.push(format!("{name} does nothing; did you mean {meant}?"));
            }
        }
    }
}

fn check_certificates(content: &[u8]) -> Result<(), String> {
    let begins = b"-----BEGIN CERTIFICATE-----";
    if content.windows(begins.len()).any(|window| window == begins) {
        return Ok(());
    }
    Err("holds no certificate; it must be a PEM file with `-----BEGIN CERTIFICATE-----`".to_owned())
}

fn parse_state(text: &str) -> Result<StateUrl, String> {
    let wanted = "name a folder, or s3://bucket/prefix";
    let Some(rest) = text.strip_prefix("s3://") else {
        let is_other_url = text.contains("://") || text.to_ascii_lowercase().starts_with("s3:");
        if text.is_empty() || is_other_url || text.contains('\0') {
            return Err(format!("not a place for state; {wanted}"));
        }
        return Ok(StateUrl::Folder(PathBuf::from(text)));
    };
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let prefix = prefix.trim_end_matches('/');
    let safe = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-');
    if !(3..=63).contains(&bucket.len()) || !bucket.chars().all(safe) {
        return Err(format!("no bucket has this name (3 to 63 lower-case letters, digits, `.`, `-`); {wanted}"));
    }
    // The keys below it are safe as paths too, so that a bucket can be copied into a folder.
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '=' | '+');
    let good_segment = |segment: &str| !segment.is_empty() && !segment.starts_with('.') && segment.chars().all(safe);
    if !prefix.is_empty() && !prefix.split('/').all(good_segment) {
        return Err(
            "a prefix has parts of letters, digits, `.`, `_`, `-`, `=`, `+`, none empty or with a dot first".to_owned()
        );
    }
    Ok(StateUrl::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
}

fn parse_account(text: &str) -> Result<String, String> {
    match text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        true => Ok(text.to_owned()),
        false => Err("an AWS account is a number of 12 digits".to_owned()),
    }
}

fn parse_endpoint(text: &str) -> Result<String, String> {
    let wanted = "write it like http://127.0.0.1:9000";
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let host = rest.ok_or_else(|| format!("not an http:// or https:// address; {wanted}"))?;
    let host = host.trim_end_matches('/');
    if host.contains('@') {
        return Err(
            "credentials do not belong here; the AWS SDK finds them, in AWS_ACCESS_KEY_ID for example".to_owned()
        );
    }
    let port = host.rsplit_once(':').map(|(_, port)| port).filter(|port| !port.ends_with(']'));
    let good_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    if host.is_empty() || host.starts_with(':') || !good_port || host.contains(['/', '?', '#', ' ']) {
        return Err(format!("not just a host and a port; {wanted}"));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

fn parse_checkpoint_namespace(text: &str) -> Result<Namespace, String> {
    let namespace = Namespace::parse_valid(text)?;
    // The server's own, and the place of the markers; `mongoshake` is special too, and just right.
    let refused = ["admin", "config", "local", "mongoferry"].contains(&namespace.db());
    if refused || namespace.collection().starts_with("system.") {
        return Err("a checkpoint cannot be kept there; the usual place is mongoshake.ckpt_default".to_owned());
    }
    Ok(namespace)
}

fn parse_shard(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("name a shard, as `status` shows them".to_owned()) } else { Ok(text.to_owned()) }
}
