#![expect(clippy::unwrap_used, reason = "a test may fail")]

use super::layer::{Places, SETTINGS};
use super::reference::{Content, Contents, Purpose, Reference};
use super::resolve::DEFAULT_LEASE;
use super::*;
use crate::cli::{self, Parsed, StepName};
use crate::error::Kind;
use crate::redact::redact;
use std::ffi::OsString;
use std::path::Path;
use tempfile::TempDir;

type Pairs<'a> = &'a [(&'a str, &'a str)];

const STEP_ALL: &[&str] = &["step", "all"];

/// As the program does it: command line, environment and the working directory's file.
fn resolve_in(directory: &Path, words: &[&str], environment: Pairs<'_>) -> Result<Settings> {
    configuration_in(directory, words, environment)?.settings(&Contents::new())
}

fn configuration_in(directory: &Path, words: &[&str], environment: Pairs<'_>) -> Result<Configuration> {
    let words = std::iter::once("mongoferry").chain(words.iter().copied()).map(OsString::from);
    let Parsed::Run(command, flags) = cli::parse(words)? else { panic!("prints something") };
    let environment = Environment::from_pairs(environment.iter().copied());
    Configuration::read(command, flags, environment, directory)
}

fn resolve(words: &[&str], environment: Pairs<'_>, file: &str) -> Result<Settings> {
    let directory = TempDir::new().unwrap();
    if !file.is_empty() {
        std::fs::write(directory.path().join("mongoferry.toml"), file).unwrap();
    }
    resolve_in(directory.path(), words, environment)
}

#[test]
fn defaults() {
    let settings = resolve(STEP_ALL, &[], "").unwrap();
    assert_eq!(settings.job.as_str(), "default");
    assert_eq!(settings.state, StateUrl::Folder(PathBuf::from("./mongoferry-state")));
    assert_eq!((settings.source.is_none(), settings.target.is_none()), (true, true));
    assert_eq!(settings.filter, Filter::default());
    assert!(settings.renames.is_empty());
    assert_eq!((settings.existing, settings.create_index), (Existing::Refuse, CreateIndex::Foreground));
    assert!(!settings.stop_balancer && !settings.fence_writes && settings.digests);
    assert_eq!(settings.checkpoint_uri, CheckpointUri::Target);
    assert_eq!((settings.verify, settings.against), (Verify::Metadata, Against::Proofs));
    assert_eq!(settings.checkpoint_namespace.to_string(), "mongoshake.ckpt_default");
    assert_eq!(settings.partition_size, 256 << 20);
    assert_eq!((settings.lanes_per_shard, settings.index_parallelism), (1, 3));
    assert_eq!((settings.memory, settings.max_readers, settings.max_writers), (64 << 20, 16, 8));
    assert_eq!(settings.rate_limits, RateLimits::default());
    assert_eq!(settings.time_budget, None);
    assert_eq!(settings.save_interval, Duration::from_millis(200));
    assert_eq!(settings.lease, Duration::from_secs(15));
    assert_eq!((settings.log_format, settings.log_level), (LogFormat::Text, Level::INFO));
    assert!(!settings.takeover && !settings.accept_findings && !settings.drop_committed && !settings.quiet);
    assert!(settings.include_system.is_empty() && !settings.dry_run);
    assert!(settings.notices.is_empty(), "{:?}", settings.notices);
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let file = "job = 'from-file'\nlease = '11s'\ninclude = ['file1', 'file2']\nsave-interval = '33ms'";
    let environment: Pairs<'_> =
        &[("MONGOFERRY_JOB", "from-environment"), ("MONGOFERRY_LEASE", "12s"), ("MONGOFERRY_INCLUDE", "env1,env2")];
    let settings = resolve(&["step", "all", "--job", "from-flag", "--include", "flag1"], environment, file).unwrap();
    assert_eq!(settings.job.as_str(), "from-flag");
    assert_eq!(settings.lease, Duration::from_secs(12));
    assert_eq!(settings.save_interval, Duration::from_millis(33));
    assert_eq!(settings.filter.to_string(), "flag1", "lists are not merged");

    let settings = resolve(STEP_ALL, environment, file).unwrap();
    assert_eq!((settings.job.as_str(), settings.filter.to_string().as_str()), ("from-environment", "env1,env2"));
    let settings = resolve(STEP_ALL, &[], file).unwrap();
    assert_eq!((settings.job.as_str(), settings.filter.to_string().as_str()), ("from-file", "file1,file2"));
}

#[test]
fn an_empty_variable_is_not_set() {
    let settings = resolve(STEP_ALL, &[("MONGOFERRY_JOB", ""), ("MONGOFERRY_LEASE", "")], "job = 'from-file'").unwrap();
    assert_eq!((settings.job.as_str(), settings.lease), ("from-file", DEFAULT_LEASE));
}

#[test]
fn every_setting_can_be_given_in_every_place_that_it_has() {
    let directory = TempDir::new().unwrap();
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, "-----BEGIN CERTIFICATE-----\n").unwrap();
    let values = [
        ("job", "shop"),
        ("state", "s3://bucket/some/jobs/"),
        ("s3-endpoint", "http://127.0.0.1:9000/"),
        ("expected-bucket-owner", "123456789012"),
        ("state-machine", "arn:aws:states:eu-central-1:123456789012:stateMachine:ferry"),
        ("source", "mongodb://a/"),
        ("target", "mongodb://b/"),
        ("source-ca", ca.to_str().unwrap()),
        ("target-ca", ca.to_str().unwrap()),
        ("include", "a,b.*, c.d"),
        ("exclude", "a.x"),
        ("rename", "a:e,c.d:c.f"),
        ("rename-dbrefs", "yes"),
        ("include-system", "js,roles"),
        ("orphans", "fail"),
        ("stop-balancer", "yes"),
        ("existing", "drop"),
        ("keep-unsharded", "a,b.c"),
        ("keep-sharding", "d"),
        ("zones", "yes"),
        ("max-initial-chunks", "16"),
        ("on-conflict", "replace"),
        ("max-rejected", "1000"),
        ("create-index", "background"),
        ("index-parallelism", "7"),
        ("fence-writes", "yes"),
        ("digests", "no"),
        ("checkpoint-uri", "mongodb://c/"),
        ("checkpoint-namespace", "other.ckpt"),
        ("verify", "full"),
        ("against", "source"),
        ("partition-size", "1.5GB"),
        ("lanes-per-shard", "3"),
        ("max-lanes", "40"),
        ("read", "mongos"),
        ("checkpoint-mode", "change-stream"),
        ("read-order", "natural"),
        ("min-oplog-window", "90m"),
        ("read-preference", "secondaryPreferred"),
        ("memory", "128MiB"),
        ("max-readers", "5"),
        ("max-writers", "6"),
        ("max-documents-per-second", "500"),
        ("max-bytes-per-second", "20MB"),
        ("time-budget", "13m"),
        ("margin", "45s"),
        ("save-interval", "1s"),
        ("lease", "20s"),
        ("http", ":9216"),
        ("log-format", "json"),
        ("log-level", "debug"),
    ];
    // Those are given in place of `source`.
    let is_of_cluster = |name: &str| name == "source-shard" || name == "source-config";
    let everywhere =
        SETTINGS.iter().filter(|setting| setting.places == Places::Everywhere && !is_of_cluster(setting.name));
    let everywhere = everywhere.count();
    assert_eq!(values.len(), everywhere, "a row for each setting");

    let check = |settings: Settings, place: &str| {
        assert_eq!(settings.job.as_str(), "shop", "{place}");
        let state = StateUrl::S3 { bucket: "bucket".to_owned(), prefix: "some/jobs".to_owned() };
        assert_eq!(
            (settings.state.to_string().as_str(), &settings.state),
            ("s3://bucket/some/jobs", &state),
            "{place}"
        );
        assert_eq!(settings.s3_endpoint.as_deref(), Some("http://127.0.0.1:9000"), "{place}");
        assert_eq!(settings.expected_bucket_owner.as_deref(), Some("123456789012"), "{place}");
        let machine = settings.state_machine.as_ref().map(|machine| machine.region());
        assert_eq!(machine, (place != "flags").then_some("eu-central-1"), "{place}");
        assert_eq!((settings.max_lanes, settings.margin), (40, Duration::from_secs(45)), "{place}");
        assert_eq!(settings.source().unwrap().expose(), "mongodb://a/", "{place}");
        assert_eq!(settings.target().unwrap().expose(), "mongodb://b/", "{place}");
        assert_eq!((&settings.source_ca, &settings.target_ca), (&Some(ca.clone()), &Some(ca.clone())), "{place}");
        assert_eq!(settings.filter.to_string(), "a,b,c.d but a.x", "{place}");
        assert_eq!(settings.renames.to_string(), "a:e,c.d:c.f", "{place}");
        assert!(settings.orphans == Orphans::Fail && settings.stop_balancer && settings.rename_dbrefs, "{place}");
        assert_eq!(settings.include_system.to_string(), "js,roles", "{place}");
        assert_eq!((settings.existing, settings.create_index), (Existing::Drop, CreateIndex::Background), "{place}");
        assert_eq!((settings.verify, settings.against), (Verify::Full, Against::Source), "{place}");
        assert!(settings.fence_writes && !settings.digests, "{place}");
        assert!(
            matches!(&settings.checkpoint_uri, CheckpointUri::Uri(uri) if uri.expose() == "mongodb://c/"),
            "{place}"
        );
        assert_eq!(settings.checkpoint_namespace.to_string(), "other.ckpt", "{place}");
        assert_eq!(settings.partition_size, 1_500_000_000, "{place}");
        assert_eq!((settings.on_conflict, settings.max_rejected), (OnConflict::Replace, 1_000), "{place}");
        assert_eq!((settings.lanes_per_shard, settings.index_parallelism), (3, 7), "{place}");
        assert_eq!(settings.read_order, ReadOrder::Natural, "{place}");
        assert_eq!(settings.read, Some(ReadThrough::Mongos), "{place}");
        assert_eq!(settings.checkpoint_mode, Some(CheckpointMode::ChangeStream), "{place}");
        assert_eq!((settings.memory, settings.max_readers, settings.max_writers), (128 << 20, 5, 6), "{place}");
        assert_eq!(settings.read_preference, ReadPreference::SecondaryPreferred, "{place}");
        assert_eq!(settings.min_oplog_window, Some(Duration::from_secs(5_400)), "{place}");
        let rate_limits = RateLimits { documents: Some(500), bytes: Some(20_000_000) };
        assert_eq!(settings.rate_limits, rate_limits, "{place}");
        assert_eq!(settings.time_budget, Some(Duration::from_secs(780)), "{place}");
        assert_eq!(settings.save_interval, Duration::from_secs(1), "{place}");
        assert_eq!(settings.lease, Duration::from_secs(20), "{place}");
        assert_eq!(settings.http, Some(([127, 0, 0, 1], 9216).into()), "{place}");
        assert_eq!((settings.log_format, settings.log_level), (LogFormat::Json, Level::DEBUG), "{place}");
    };

    // `step` has no use for that one.
    let of_step = values.iter().filter(|(name, _)| *name != "state-machine");
    let flags: Vec<String> = of_step.map(|(name, value)| format!("--{name}={value}")).collect();
    let words: Vec<&str> = STEP_ALL.iter().copied().chain(flags.iter().map(String::as_str)).collect();
    check(resolve(&words, &[], "").unwrap(), "flags");

    let variables: Vec<(String, &str)> =
        values.iter().map(|(name, value)| (layer::find(name).unwrap().variable(), *value)).collect();
    let pairs: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    check(resolve(STEP_ALL, &pairs, "").unwrap(), "environment");

    let file: String = values.iter().map(|(name, value)| format!("{name} = '{value}'\n")).collect();
    check(resolve(STEP_ALL, &[], &file).unwrap(), "file");
}

#[test]
fn what_is_about_one_run_is_given_as_a_flag() {
    let words = ["step", "copy", "--shard", "rs0", "--lane", "3", "--takeover", "--quiet"];
    let settings = resolve(&words, &[], "").unwrap();
    assert_eq!((settings.shard.as_deref(), settings.lane), (Some("rs0"), Some(3)));
    assert!(settings.takeover && settings.quiet);
    assert_eq!(settings.log_level, Level::WARN);
    let settings = resolve(&["step", "verify", "--namespace", "shop.orders", "--accept-findings"], &[], "").unwrap();
    assert_eq!(settings.namespace, Some(Namespace::new("shop", "orders")));
    assert!(settings.accept_findings);
    assert!(resolve(&["step", "all", "--dry-run", "--stop-balancer", "no"], &[], "").unwrap().dry_run);
    let settings = resolve(&["step", "all", "--existing", "drop", "--drop-committed"], &[], "").unwrap();
    assert!(settings.drop_committed);
}

#[test]
fn a_cluster_is_its_shards_and_its_config_servers() {
    let (one, other, config) = ("mongodb://a1,a2/?replicaSet=a", "mongodb://b/?replicaSet=b", "mongodb://c/");
    let both = format!("{one} {other}");
    let file = format!("source-shard = ['{one}', '{other}']\nsource-config = '{config}'");
    let flags = ["step", "all", "--source-shard", one, "--source-shard", other, "--source-config", config];
    for (words, environment, file) in [
        (&flags as &[&str], &[] as Pairs<'_>, ""),
        (STEP_ALL, &[("MONGOFERRY_SOURCE_SHARD", both.as_str()), ("MONGOFERRY_SOURCE_CONFIG", config)], ""),
        (STEP_ALL, &[], file.as_str()),
    ] {
        let cluster = resolve(words, environment, file).unwrap().cluster.unwrap();
        let shards: Vec<&str> = cluster.shards.iter().map(ConnectionString::expose).collect();
        assert_eq!((cluster.config.as_ref().map(ConnectionString::expose), shards), (Some(config), vec![one, other]));
    }
    assert_eq!(resolve(STEP_ALL, &[], "").unwrap().cluster, None);
}

#[test]
fn references_are_found_and_what_they_stand_for_is_as_if_it_had_been_given() {
    let directory = TempDir::new().unwrap();
    let file = "source-shard = ['ssm:///a', 'mongodb://b/?w=1']\nsource-config = 'secretsmanager://c#uri'";
    std::fs::write(directory.path().join("mongoferry.toml"), file).unwrap();
    let words = ["step", "all", "--target", "secretsmanager://t", "--target-ca", "ssm://ca"];
    let environment: Pairs<'_> = &[("MONGOFERRY_CHECKPOINT_URI", "ssm://ckpt")];
    let configuration = configuration_in(directory.path(), &words, environment).unwrap();
    let wanted = configuration.wanted().unwrap();
    let shown: Vec<(String, &str, Purpose, Kind)> = wanted
        .iter()
        .map(|wanted| (wanted.reference.to_string(), wanted.place.as_str(), wanted.purpose, wanted.unavailable))
        .collect();
    let expected = [
        ("ssm:///a", "`source-shard` in mongoferry.toml", Purpose::Uri, Kind::SourceUnavailable),
        ("secretsmanager://c#uri", "`source-config` in mongoferry.toml", Purpose::Uri, Kind::SourceUnavailable),
        ("secretsmanager://t", "--target", Purpose::Uri, Kind::TargetUnavailable),
        ("ssm://ckpt", "MONGOFERRY_CHECKPOINT_URI", Purpose::Uri, Kind::TargetUnavailable),
        ("ssm://ca", "--target-ca", Purpose::CertificateAuthorities, Kind::TargetUnavailable),
    ];
    assert_eq!(shown, expected.map(|(name, place, purpose, kind)| (name.to_owned(), place, purpose, kind)));

    let reference = |text: &str| Reference::parse(text).unwrap().unwrap();
    let content = |text: &str| Content { text: text.to_owned(), file: Some(PathBuf::from("/tmp/ca.pem")) };
    let mut contents: Contents = [
        ("ssm:///a", "mongodb://a/\n"),
        ("secretsmanager://c#uri", "mongodb://c/"),
        ("secretsmanager://t", "mongodb://t/?tls=true"),
        ("ssm://ckpt", "mongodb://k/"),
        ("ssm://ca", "-----BEGIN CERTIFICATE-----\n"),
    ]
    .into_iter()
    .map(|(name, text)| (reference(name), content(text)))
    .collect();
    let settings = configuration.settings(&contents).unwrap();
    let cluster = settings.cluster.as_ref().unwrap();
    let shards: Vec<&str> = cluster.shards.iter().map(ConnectionString::expose).collect();
    assert_eq!(
        (cluster.config.as_ref().unwrap().expose(), shards),
        ("mongodb://c/", vec!["mongodb://a/", "mongodb://b/?w=1"])
    );
    assert_eq!(settings.target().unwrap().expose(), "mongodb://t/?tls=true");
    assert_eq!(settings.target_ca, Some(PathBuf::from("/tmp/ca.pem")));
    assert!(matches!(&settings.checkpoint_uri, CheckpointUri::Uri(uri) if uri.expose() == "mongodb://k/"));

    // What is wrong with a content is told as what is wrong with a value, under the reference's name.
    for (name, text, parts) in [
        ("secretsmanager://t", "mongodb://t/?tls=false", ["--target-ca ssm://ca:", "tls=false"]),
        ("secretsmanager://t", "u:secret-63x@t", ["--target: secretsmanager://t:", "starts with mongodb://"]),
        ("secretsmanager://t", "{\"uri\": \"secret-63x\"}", ["--target: secretsmanager://t:", "#key"]),
        ("ssm://ca", "secret-63x", ["--target-ca ssm://ca:", "holds no certificate"]),
    ] {
        let before = contents.insert(reference(name), content(text)).unwrap();
        let error = configuration.settings(&contents).unwrap_err();
        assert_eq!(error.kind(), Kind::BadInput);
        for part in parts {
            assert!(error.to_string().contains(part) && !error.to_string().contains("secret-63x"), "{part}: {error}");
        }
        contents.insert(reference(name), before);
    }
}

#[test]
fn what_connects_to_nothing_fetches_nothing() {
    let directory = TempDir::new().unwrap();
    let environment: Pairs<'_> = &[("MONGOFERRY_SOURCE", "secretsmanager://a"), ("MONGOFERRY_SOURCE_CA", "ssm://b")];
    for (words, count) in
        [(&["step", "all"] as &[&str], 2), (&["rejected", "--retry"], 2), (&["rejected"], 0), (&["status"], 0)]
    {
        let configuration = configuration_in(directory.path(), words, environment).unwrap();
        assert_eq!(configuration.wanted().unwrap().len(), count, "{words:?}");
        assert!(configuration.settings(&Contents::new()).is_ok());
    }
}

#[test]
fn an_array_in_the_file_is_taken_as_it_is() {
    let settings = resolve(STEP_ALL, &[], "include = ['shop.a,b', 'blog']\nexclude = []").unwrap();
    assert!(settings.filter.lets_through(&Namespace::new("shop", "a,b")));
    assert!(!settings.filter.lets_through(&Namespace::new("shop", "a")));
}

#[test]
fn the_save_interval_follows_store_and_lease() {
    for (words, interval) in [
        (&["step", "all", "--state", "s3://bucket"] as &[&str], 2000),
        (&["step", "all", "--state", "s3://bucket", "--lease", "3s"], 1000),
        (&["step", "all", "--lease", "1s"], 200),
        (&["step", "all", "--lease", "15s", "--save-interval", "5s"], 5000),
        (&["step", "all", "--save-interval", "10ms"], 10),
    ] {
        assert_eq!(resolve(words, &[], "").unwrap().save_interval, Duration::from_millis(interval), "{words:?}");
    }
}

#[test]
fn the_file_can_be_named() {
    let directory = TempDir::new().unwrap();
    std::fs::write(directory.path().join("mongoferry.toml"), "job = 'unnamed'").unwrap();
    std::fs::write(directory.path().join("other.toml"), "job = 'named'").unwrap();
    let by = |words: &[&str], environment: Pairs<'_>| {
        resolve_in(directory.path(), words, environment).unwrap().job.to_string()
    };
    assert_eq!(by(STEP_ALL, &[]), "unnamed");
    assert_eq!(by(&["step", "all", "--config", "other.toml"], &[]), "named");
    assert_eq!(by(STEP_ALL, &[("MONGOFERRY_CONFIG", "other.toml")]), "named");
    assert_eq!(by(&["status", "--config", "mongoferry.toml"], &[("MONGOFERRY_CONFIG", "missing.toml")]), "unnamed");
}

#[test]
fn status_needs_no_server_and_abandon_a_name() {
    let settings = resolve(&["status"], &[("MONGOFERRY_SOURCE_CA", "/nowhere/ca.pem")], "").unwrap();
    assert_eq!(settings.source_ca, None);
    assert_eq!(settings.source().unwrap_err().kind(), Kind::BadInput);
    assert!(settings.target().unwrap_err().to_string().contains("MONGOFERRY_TARGET"));
    assert!(resolve(&["abandon", "--job", "default"], &[], "").is_ok());
    assert!(resolve(&["abandon"], &[("MONGOFERRY_JOB", "shop")], "").is_ok());
}

#[test]
fn notices() {
    let environment: Pairs<'_> = &[
        ("MONGOFERRY_SOURCE", "mongodb://a/?w=1&journal=false"),
        ("MONGOFERRY_SUORCE", "x"),
        ("MONGOFERRY_TAKEOVER", "1"),
        ("MONGOFERRY_TEST_SERVERS", "x"),
    ];
    let notices = resolve(STEP_ALL, environment, "").unwrap().notices;
    let parts = ["did you mean MONGOFERRY_SOURCE?", "MONGOFERRY_TAKEOVER does nothing", "`w=1`", "`journal=false`"];
    for part in parts {
        assert!(notices.iter().any(|notice| notice.contains(part)), "{part}: {notices:?}");
    }
    assert_eq!(notices.len(), parts.len(), "{notices:?}");
}

#[test]
fn debug_output_of_settings_has_no_secrets() {
    let settings = resolve(STEP_ALL, &[("MONGOFERRY_SOURCE", "mongodb://u:secret-70x@a/")], "").unwrap();
    assert!(!format!("{settings:?}").contains("secret-70x"));
}

/// Each row: command line, environment, file, and what the message must hold.
#[test]
fn bad_input() {
    const SECRET: &str = "mongodb://u:hid@den-80x@h/";
    const MISSING: &str = "/nowhere/ca.pem";
    type Row<'a> = (&'a [&'a str], Pairs<'a>, &'a str, &'a [&'a str]);
    let table: Vec<Row<'_>> = vec![
        (&["step", "all", "--job", "a/b"], &[], "", &["--job a/b:", "not a job name"]),
        (&["step", "all", "--job", "../x"], &[], "", &["--job ../x:", "not a job name"]),
        (&["step", "all", "--job", ""], &[], "", &["--job", "not a job name"]),
        (STEP_ALL, &[("MONGOFERRY_JOB", "a.")], "", &["MONGOFERRY_JOB=a.:", "no dot at the end"]),
        (STEP_ALL, &[], "job = 'a b'", &["`job = \"a b\"` in mongoferry.toml:"]),
        (&["abandon"], &[], "", &["--job NAME"]),
        (&["step", "all", "--state", ""], &[], "", &["--state", "s3://bucket/prefix"]),
        (&["step", "all", "--state", "s3://"], &[], "", &["no bucket has this name"]),
        (&["step", "all", "--state", "s3://B_cket/x"], &[], "", &["--state s3://B_cket/x", "no bucket has this name"]),
        (&["step", "all", "--state", "s3://bucket/a//b"], &[], "", &["prefix"]),
        (&["step", "all", "--state", "s3://bucket/../b"], &[], "", &["prefix"]),
        (&["step", "all", "--state", "s3:bucket"], &[], "", &["--state s3:bucket"]),
        (&["step", "all", "--state", "gs://bucket"], &[], "", &["--state gs://bucket", "s3://bucket/prefix"]),
        (&["step", "all", "--s3-endpoint", "minio:9000"], &[], "", &["--s3-endpoint minio:9000", "http://"]),
        (&["step", "all", "--s3-endpoint", "http://minio:p0rt-81x"], &[], "", &["a host and a port"]),
        (
            &["step", "all", "--s3-endpoint", "http://key:hidden-80x@minio"],
            &[],
            "",
            &["credentials do not belong here"],
        ),
        (&["step", "all", "--source", "localhost:27017"], &[], "", &["--source:", "mongodb://"]),
        (&["step", "all", "--source", SECRET], &[], "", &["--source:", "percent-encoded"]),
        (STEP_ALL, &[("MONGOFERRY_SOURCE", SECRET)], "", &["MONGOFERRY_SOURCE:", "percent-encoded"]),
        (STEP_ALL, &[], "target = 'mongodb://u:hid@den-80x@h/'", &["`target` in mongoferry.toml:", "percent-encoded"]),
        (&["step", "all", "--target", "mongodb://h/?tls=perhaps"], &[], "", &["--target:", "tls"]),
        (&["step", "all", "--target", "ssm://path/name"], &[], "", &["--target:", "write ssm:///path/name"]),
        (
            STEP_ALL,
            &[("MONGOFERRY_SOURCE", "secretsmanager://u:hid@den-80x@h/")],
            "",
            &["MONGOFERRY_SOURCE:", "no secret"],
        ),
        (
            STEP_ALL,
            &[],
            "source = 'secretmanager://a'",
            &["`source` in mongoferry.toml:", "did you mean secretsmanager://?"],
        ),
        (&["step", "all", "--source-ca", "ssm://"], &[], "", &["--source-ca ssm://:", "names no secret"]),
        (&["step", "all", "--target-ca", MISSING], &[], "", &["--target-ca /nowhere/ca.pem:", "cannot be read"]),
        (&["step", "all", "--source-ca", "Cargo.toml"], &[], "", &["--source-ca Cargo.toml:", "holds no certificate"]),
        (
            &["step", "all", "--source-ca", MISSING, "--source", "mongodb://h/?tlsCAFile=other.pem"],
            &[],
            "",
            &["tlsCAFile=other.pem", "leave one of them out"],
        ),
        (&["step", "all", "--include", "shop.$*.x"], &[], "", &["--include shop.$*.x:", "collection's name"]),
        (&["step", "all", "--include", "a,,b"], &[], "", &["--include a,,b:", "database's name"]),
        (&["step", "all", "--include", "admin"], &[], "", &["--include admin:", "never copied"]),
        (&["step", "all", "--exclude", "a.$b"], &[], "", &["--exclude a.$b:", "collection's name"]),
        (&["step", "all", "--rename", "a"], &[], "", &["--rename:", "`a` is not FROM:TO"]),
        (&["step", "all", "--rename", "a:b.c"], &[], "", &["`a:b.c`", "a database becomes a database"]),
        (&["step", "all", "--rename", "a:b", "--rename", "a:c"], &[], "", &["`a` is renamed twice"]),
        (STEP_ALL, &[("MONGOFERRY_RENAME", "a:b,a:c")], "", &["MONGOFERRY_RENAME:", "renamed twice"]),
        (STEP_ALL, &[("MONGOFERRY_INCLUDE_SYSTEM", "js,user")], "", &["js,user", "`user` is none of js, roles, users"]),
        (&["step", "all", "--dry-run", "--stop-balancer", "yes"], &[], "", &["--stop-balancer yes", "--dry-run"]),
        (&["step", "all", "--rename", "a:local"], &[], "", &["`local` belongs to the server"]),
        (&["step", "all", "--expected-bucket-owner", "me"], &[], "", &["--expected-bucket-owner me:", "12 digits"]),
        (&["step", "all", "--max-lanes", "0"], &[], "", &["--max-lanes 0:", "from 1 to 1000"]),
        (&["step", "all", "--margin", "1s"], &[], "", &["--margin 1s:", "from 2s to 10m"]),
        (&["step", "all", "--lanes-per-shard", "0"], &[], "", &["--lanes-per-shard 0:", "from 1 to 1000"]),
        (&["step", "all", "--partition-size", "4KB"], &[], "", &["--partition-size 4KB:", "from 4KiB to 1TiB"]),
        (STEP_ALL, &[], "partition-size = '-5MB'", &["`partition-size = \"-5MB\"`", "not a size"]),
        (&["step", "all", "--memory", "16MiB"], &[], "", &["--memory 16MiB:", "from 32MiB to 1TiB"]),
        (&["step", "all", "--index-parallelism", "65"], &[], "", &["--index-parallelism 65:", "from 1 to 64"]),
        (&["step", "all", "--max-readers", "0"], &[], "", &["--max-readers 0:", "from 1 to 256"]),
        (&["step", "all", "--max-writers", "17"], &[], "", &["--max-writers 17:", "from 1 to 16"]),
        (&["step", "all", "--max-writers", "-1"], &[], "", &["--max-writers -1:", "from 1 to 16"]),
        (&["step", "all", "--read-order", "disk"], &[], "", &["--read-order disk:", "auto, id, natural"]),
        (&["check", "--min-oplog-window", "500ms"], &[], "", &["--min-oplog-window 500ms:", "at least 1s"]),
        (&["step", "all", "--read-preference", "slave"], &[], "", &["--read-preference slave:", "primaryPreferred"]),
        (
            &["step", "all", "--max-documents-per-second", "0"],
            &[],
            "",
            &["--max-documents-per-second 0:", "from 1 to 1000000000", "`pause`"],
        ),
        (
            &["step", "all", "--max-documents-per-second", "-5"],
            &[],
            "",
            &["--max-documents-per-second -5:", "like 500"],
        ),
        (&["step", "all", "--max-bytes-per-second", "0"], &[], "", &["from 1KiB to 1TiB, or none"]),
        (&["step", "all", "--max-bytes-per-second", "5MB/s"], &[], "", &["--max-bytes-per-second 5MB/s:", "20MB"]),
        (
            STEP_ALL,
            &[("MONGOFERRY_MAX_BYTES_PER_SECOND", "9PiB")],
            "",
            &["MONGOFERRY_MAX_BYTES_PER_SECOND=9PiB:", "from 1KiB to 1TiB"],
        ),
        (STEP_ALL, &[], "max-bytes-per-second = 'default'", &["`max-bytes-per-second = \"default\"`", "or none"]),
        (&["control", "stop"], &[], "", &["stop: ", "pause or resume"]),
        (&["control", "max-bytes-per-second=0"], &[], "", &["max-bytes-per-second=0: must be from 1KiB to 1TiB"]),
        (&["step", "all", "--existing", "replace"], &[], "", &["--existing replace:", "refuse, drop, keep"]),
        (STEP_ALL, &[], "existing = 'Drop'", &["`existing = \"Drop\"`", "refuse, drop, keep"]),
        (&["step", "all", "--on-conflict", "ask"], &[], "", &["--on-conflict ask:", "report, replace, keep"]),
        (&["step", "all", "--max-rejected", "-1"], &[], "", &["--max-rejected -1:", "from 0 on"]),
        (STEP_ALL, &[("MONGOFERRY_MAX_REJECTED", "all")], "", &["MONGOFERRY_MAX_REJECTED=all:", "a number"]),
        (&["step", "verify", "--verify", "all"], &[], "", &["--verify all:", "metadata, full, none"]),
        (
            &["step", "verify", "--verify", "full", "--against", "target"],
            &[],
            "",
            &["--against target:", "proofs, source"],
        ),
        (&["step", "all", "--against", "source"], &[], "", &["--against source:", "--verify full", "`metadata`"]),
        (
            STEP_ALL,
            &[("MONGOFERRY_VERIFY", "none"), ("MONGOFERRY_AGAINST", "proofs")],
            "",
            &["MONGOFERRY_AGAINST=proofs", "`none`"],
        ),
        (
            &["step", "verify", "--verify", "none", "--namespace", "a.b"],
            &[],
            "",
            &["--namespace", "`none`", "leave one"],
        ),
        (&["step", "all", "--drop-committed"], &[], "", &["--existing drop", "`refuse`"]),
        (&["step", "all", "--fence-writes", "true"], &[], "", &["--fence-writes true:", "yes, no"]),
        (&["step", "all", "--stop-balancer", "on"], &[], "", &["--stop-balancer on:", "yes, no"]),
        (&["step", "all", "--rename-dbrefs", "on"], &[], "", &["--rename-dbrefs on:", "yes, no"]),
        (&["step", "all", "--orphans", "delete"], &[], "", &["--orphans delete:", "skip, copy, fail"]),
        (&["step", "all", "--source-shard", "mongodb://a/"], &[], "", &["--source-shard:", "--source-config"]),
        (&["step", "all", "--source-config", "mongodb://a/"], &[], "", &["--source-config:", "--source-shard"]),
        (
            &["step", "all", "--source-config", "mongodb://a/", "--source-shard", "mongodb://b/", "--read", "mongos"],
            &[],
            "",
            &["--read mongos:", "--source"],
        ),
        (
            &["step", "all", "--checkpoint-mode", "stream"],
            &[],
            "",
            &["--checkpoint-mode stream:", "oplog, change-stream, none"],
        ),
        (
            &["step", "all", "--checkpoint-mode", "none"],
            &[("MONGOFERRY_CHECKPOINT_URI", "mongodb://a/")],
            "",
            &["MONGOFERRY_CHECKPOINT_URI:", "--checkpoint-mode none"],
        ),
        (&["step", "all", "--read", "primary"], &[], "", &["--read primary:", "shards, mongos"]),
        (&["step", "all", "--digests", "sha1"], &[], "", &["--digests sha1:", "yes, no"]),
        (
            &["step", "copy", "--digests", "no"],
            &[("MONGOFERRY_VERIFY", "full")],
            "",
            &["--digests no:", "--verify full", "--against source"],
        ),
        (
            &["step", "all", "--create-index", "later"],
            &[],
            "",
            &["--create-index later:", "none, background, foreground"],
        ),
        (&["step", "all", "--checkpoint-uri", "off"], &[], "", &["--checkpoint-uri:", "`none`"]),
        (
            &["step", "all", "--checkpoint-namespace", "ckpt"],
            &[],
            "",
            &["--checkpoint-namespace ckpt:", "db.collection"],
        ),
        (&["step", "all", "--checkpoint-namespace", "admin.ckpt"], &[], "", &["cannot be kept there"]),
        (&["step", "all", "--time-budget", "13"], &[], "", &["--time-budget 13:", "13m"]),
        (&["step", "all", "--time-budget", "0s"], &[], "", &["at least 1s"]),
        (&["step", "all", "--time-budget", "-5s"], &[], "", &["--time-budget"]),
        (STEP_ALL, &[("MONGOFERRY_TIME_BUDGET", "soon")], "", &["MONGOFERRY_TIME_BUDGET=soon:", "not a duration"]),
        (&["step", "all", "--lease", "500ms"], &[], "", &["--lease 500ms:", "from 1s to 10m"]),
        (&["step", "all", "--lease", "11m"], &[], "", &["from 1s to 10m"]),
        (STEP_ALL, &[], "lease = '1 parsec'", &["`lease = \"1 parsec\"`", "not a duration"]),
        (STEP_ALL, &[], "lease = 15", &["`lease` in mongoferry.toml must be a text"]),
        (&["step", "all", "--save-interval", "5ms"], &[], "", &["--save-interval 5ms:", "at least 10ms"]),
        (
            &["step", "all", "--save-interval", "6s"],
            &[],
            "",
            &["--save-interval 6s:", "third of the lease", "5s", "15s"],
        ),
        (STEP_ALL, &[("MONGOFERRY_SAVE_INTERVAL", "1s")], "lease = '2s'", &["MONGOFERRY_SAVE_INTERVAL=1s:", "third"]),
        (&["step", "copy", "--lane", "two"], &[], "", &["--lane two:", "a number"]),
        (&["step", "copy", "--lane", "-1"], &[], "", &["--lane -1:", "a number"]),
        (&["step", "copy", "--shard", ""], &[], "", &["--shard", "name a shard"]),
        (&["step", "index", "--namespace", "shop"], &[], "", &["--namespace shop:", "db.collection"]),
        (&["step", "all", "--http", "9216"], &[], "", &["--http 9216:", "127.0.0.1:9216"]),
        (&["step", "all", "--http", "example.org:80"], &[], "", &["--http example.org:80:", "not an IP address"]),
        (STEP_ALL, &[("MONGOFERRY_HTTP", ":65536")], "", &["MONGOFERRY_HTTP=:65536:", "0 (any that is free) to 65535"]),
        (&["step", "all", "--log-format", "xml"], &[], "", &["--log-format xml:", "text, json"]),
        (STEP_ALL, &[("MONGOFERRY_LOG_LEVEL", "loud")], "", &["MONGOFERRY_LOG_LEVEL=loud:", "error, warn, info"]),
        (&["step", "all", "--config", "missing.toml"], &[], "", &["missing.toml", "--config"]),
        (STEP_ALL, &[("MONGOFERRY_CONFIG", "missing.toml")], "", &["missing.toml"]),
        (STEP_ALL, &[], "jbo = 'x'", &["unknown key `jbo` in mongoferry.toml", "`job`"]),
        (STEP_ALL, &[], "save_interval = '1s'", &["`save_interval`", "`save-interval`"]),
        (STEP_ALL, &[], "colour = 'red'", &["unknown key `colour`", "known are job"]),
        (STEP_ALL, &[], "[source]\nuri = 'x'", &["`source` in mongoferry.toml must be a text"]),
        (STEP_ALL, &[], "include = [1]", &["`include` in mongoferry.toml must be a text or an array"]),
        (STEP_ALL, &[], "job = ['a']", &["`job` in mongoferry.toml must be a text"]),
        (STEP_ALL, &[], "takeover = true", &["`takeover` cannot be set in mongoferry.toml", "--takeover"]),
        (STEP_ALL, &[], "job = 'a'\nsource = \"mongodb://u:hidden-80x@h", &["mongoferry.toml, line 2, is not TOML"]),
        (STEP_ALL, &[], "job = 'a'\njob = 'b'", &["is not TOML"]),
    ];
    assert!(table.len() >= 40);
    for (words, environment, file, parts) in table {
        let error = match resolve(words, environment, file) {
            Err(error) => error,
            Ok(settings) => panic!("{words:?} {environment:?} {file:?} was accepted: {settings:?}"),
        };
        let text = error.to_string();
        assert_eq!(error.kind(), Kind::BadInput, "{text}");
        for part in parts {
            assert!(text.contains(part), "{words:?} {environment:?} {file:?}: `{part}` is not in `{text}`");
        }
        assert!(!text.contains('\n') && !text.contains("den-80x"), "{text}");
        assert!(!redact(&text).contains("hid@den"), "{text}");
    }
}

const MACHINE: &str = "arn:aws:states:eu-central-1:123456789012:stateMachine:ferry:live";

/// `UPDATE_GOLDEN=1 cargo test --lib stored` rewrites it; read the difference before you commit it.
#[test]
fn what_is_stored_for_a_function_is_what_was_given_in_one_form() {
    let directory = TempDir::new().unwrap();
    let file = "state = 's3://bucket/jobs'\nsource-config = 'ssm:///shop/config'\nlease = '30s'\ninclude = ['shop.a,b', 'blog']\n\
                log-level = 'debug'\n[shard-keys]\n'shop.b' = '{\"k\": 1}'\n'shop.\"a\"' = { key = '{\"x\": \"hashed\"}' }\n\
                [filters]\n'shop.c' = '{ \"tenant\": 7, \"at\": { \"$gt\": 1.0 } }'";
    std::fs::write(directory.path().join("mongoferry.toml"), file).unwrap();
    let environment: Pairs<'_> = &[
        ("MONGOFERRY_SOURCE_SHARD", "secretsmanager://shop/a#uri secretsmanager://shop/b"),
        ("MONGOFERRY_TARGET_CA", "ssm:///shop/ca"),
        ("MONGOFERRY_STATE_MACHINE", MACHINE),
        ("MONGOFERRY_CHECKPOINT_URI", "none"),
        ("MONGOFERRY_HTTP", ":9216"),
        ("MONGOFERRY_LEASE", "50s"),
    ];
    let words = ["start", "--job", "shop", "--target", "secretsmanager://shop/target", "--rename", "shop:store,blog:d"];
    let words =
        [&words[..], &["--existing", "drop", "--drop-committed", "--accept-findings", "--save-interval", "15s"]]
            .concat();
    let configuration = configuration_in(directory.path(), &words, environment).unwrap();
    let text = configuration.to_stored().unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/settings.toml");
    if crate::environment::variable("UPDATE_GOLDEN").is_some() {
        std::fs::write(&golden, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&golden).unwrap_or_default());

    let function = Environment::from_pairs([("MONGOFERRY_STATE", "s3://bucket/jobs")]);
    let read = |text: &str| {
        let mut call = RawArguments::default();
        call.set("job", [&"shop".to_owned()]);
        Configuration::stored(text, "s3://bucket/jobs/shop/settings.toml", call, &function, 1 << 30)
    };
    let stored = read(&text).unwrap();
    assert_eq!(stored.wanted().unwrap().len(), 5);
    let settings = stored.settings(&Contents::new()).unwrap();
    let given = configuration.settings(&Contents::new()).unwrap();
    assert!(settings.accept_findings && settings.drop_committed);
    assert_eq!(settings.selection(), given.selection());
    assert_eq!(settings.sharding, given.sharding);
    assert_eq!((settings.lease, settings.save_interval), (Duration::from_secs(50), Duration::from_secs(15)));
    assert_eq!((settings.memory, settings.max_readers), (768 << 20, 4), "the function's own defaults");
    // As the function writes what is for a start, no user does.
    for (text, part) in [
        ("[start]\ntakeover = true", "is damaged"),
        ("[start]\naccept-findings = 'yes'", "is damaged"),
        ("start = true", "is damaged"),
        ("colour = 'red'", "unknown key `colour` in s3://bucket/jobs/shop/settings.toml"),
    ] {
        let error = read(text).map(|_| ()).unwrap_err();
        assert!(error.kind() == Kind::BadInput && error.to_string().contains(part), "{text}: {error}");
    }
    assert!(
        resolve(STEP_ALL, &[], "[start]\naccept-findings = true")
            .unwrap_err()
            .to_string()
            .contains("unknown key `start`")
    );
}

#[test]
fn what_a_function_can_do_nothing_with_is_not_stored() {
    let good = ["start", "--state", "s3://bucket", "--source", "ssm:///s", "--target", "ssm:///t"];
    let stored = |words: &[&str], environment: Pairs<'_>| {
        let directory = TempDir::new().unwrap();
        configuration_in(directory.path(), words, environment).and_then(|configuration| configuration.to_stored())
    };
    assert_eq!(stored(&good, &[]).unwrap(), "source = \"ssm:///s\"\ntarget = \"ssm:///t\"\n");
    for (words, environment, parts) in [
        (&["--state", "folder"] as &[&str], &[] as Pairs<'_>, ["the folder folder", "--state s3://bucket/prefix"]),
        (&["--source", "mongodb://u:hidden-64x@h"], &[], ["--source:", "secretsmanager://NAME"]),
        (&["--checkpoint-uri", "mongodb://h"], &[], ["--checkpoint-uri:", "secretsmanager://NAME"]),
        (&["--target-ca", "/etc/ca.pem"], &[], ["--target-ca /etc/ca.pem:", "secretsmanager://NAME"]),
        (&["--target", ""], &[], ["--target:", "starts with"]),
        (&[], &[("MONGOFERRY_TIME_BUDGET", "13m")], ["MONGOFERRY_TIME_BUDGET=13m:", "--margin"]),
        (&["--state-machine", "ferry"], &[], ["--state-machine ferry:", "is not the ARN"]),
        (&["--save-interval", "30s"], &[], ["--save-interval 30s:", "1m"]),
    ] {
        // What comes again takes the place of what was there.
        let mut all = good.to_vec();
        if let Some(at) = words.first().and_then(|flag| good.iter().position(|word| word == flag)) {
            all.drain(at..at + 2);
        }
        all.extend(words);
        let error = stored(&all, environment).unwrap_err();
        assert_eq!(error.kind(), Kind::BadInput);
        for part in parts {
            assert!(error.to_string().contains(part) && !error.to_string().contains("hidden-64x"), "{part}: {error}");
        }
    }
    for (left_out, part) in [(3..5, "no source is given"), (5..7, "no target is given")] {
        let mut words = good.to_vec();
        words.drain(left_out);
        assert!(stored(&words, &[]).unwrap_err().to_string().contains(part));
    }
    let shards = [
        "start",
        "--state",
        "s3://bucket",
        "--target",
        "ssm:///t",
        "--source-shard",
        "ssm:///a",
        "--source-shard",
        "mongodb://b",
    ];
    let shards = [&shards[..], &["--source-config", "ssm:///c"]].concat();
    assert!(stored(&shards, &[]).unwrap_err().to_string().contains("--source-shard:"));
}

#[test]
fn shard_keys_are_a_table_of_the_file() {
    let file =
        "[shard-keys]\n\"a.b.c\" = '{\"x\": 1, \"y.z\": \"hashed\"}'\n\"a.d\" = { key = '{\"k\": 1}', unique = true }";
    let settings = resolve(STEP_ALL, &[], file).unwrap();
    let keys: Vec<(String, String, bool)> = settings
        .sharding
        .keys
        .iter()
        .map(|(namespace, asked)| (namespace.to_string(), asked.key.to_string(), asked.unique))
        .collect();
    let expected = [("a.b.c", r#"{"x":1,"y.z":"hashed"}"#, false), ("a.d", r#"{"k":1}"#, true)];
    assert_eq!(keys, expected.map(|(name, key, unique)| (name.to_owned(), key.to_owned(), unique)));
    for (table, part) in [
        ("shard-keys = 'x'", "must be a table"),
        ("[shard-keys]\nnowhere = '{\"k\": 1}'", "`nowhere`"),
        ("[shard-keys]\n'a.b' = 1", "write"),
        ("[shard-keys]\n'a.b' = '{k: 1}'", "not JSON"),
        ("[shard-keys]\n'a.b' = '{\"k\": -1}'", "must be 1"),
        ("[shard-keys]\n'a.b' = { unique = true }", "write"),
        ("[shard-keys]\n'a.b' = { key = '{\"k\": 1}', unique = 1 }", "true or false"),
        ("[shard-keys]\n'a.b' = { key = '{\"k\": \"hashed\"}', unique = true }", "cannot be unique"),
        ("[shard-keys]\n'a.b' = { key = '{\"k\": 1}', uniqe = true }", "write"),
    ] {
        let error = resolve(STEP_ALL, &[], table).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("shard-keys"), "{table}: {error}");
    }
}

#[test]
fn filters_are_a_table_of_the_file() {
    let settings = resolve(STEP_ALL, &[], "[filters]\n\"a.b.c\" = '{\"tenant\": 7, \"at\": {\"$gt\": 1.0}}'").unwrap();
    let filters: Vec<String> = settings.filters.iter().map(|(name, filter)| format!("{name} {filter}")).collect();
    assert_eq!(filters, [r#"a.b.c {"tenant":7,"at":{"$gt":1.0}}"#]);
    for (table, part) in [
        ("filters = 'x'", "must be a table"),
        ("[filters]\nnowhere = '{\"k\": 1}'", "`nowhere`"),
        ("[filters]\n'a.$b' = '{\"k\": 1}'", "collection's name"),
        ("[filters]\n'a.b' = 1", "write"),
        ("[filters]\n'a.b' = '{k: 1}'", "not JSON"),
        ("[filters]\n'a.b' = '[1]'", "no query"),
        ("[filters]\n'a.b' = '{}'", "leave it out"),
    ] {
        let error = resolve(STEP_ALL, &[], table).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("filters"), "{table}: {error}");
    }
}

#[test]
fn steps_that_take_a_part() {
    for (step, flags) in [(StepName::Copy, ["--lane", "0"]), (StepName::Index, ["--namespace", "a.b"])] {
        assert!(resolve(&["step", step.as_str(), flags[0], flags[1]], &[], "").is_ok(), "{step}");
    }
}

#[test]
fn the_documentation_names_every_setting_and_its_example_is_right() {
    let page = include_str!("../../docs/configuration.md");
    for setting in SETTINGS.iter() {
        assert!(page.contains(&format!("`--{}", setting.name)), "--{}", setting.name);
        let variable = format!("| `{}` |", setting.variable());
        assert_eq!(page.contains(&variable), setting.places != Places::Flag, "{variable}");
    }
    let mut examples = page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let filters = resolve(&["status"], &[], examples.next().unwrap()).unwrap();
    assert_eq!(filters.filters.len(), 2);
    let shard_keys = resolve(&["status"], &[], examples.next().unwrap()).unwrap();
    assert_eq!(shard_keys.sharding.keys.len(), 3);
    // The file of certificate authorities is not here; `status` does not look at it.
    let settings = resolve(&["status"], &[], examples.next().unwrap()).unwrap();
    assert_eq!(settings.renames.to_string(), "blog.posts:store.posts,shop:store");
}

#[test]
fn the_documentation_names_every_kind_with_its_exit_code() {
    let page = include_str!("../../docs/errors.md");
    for kind in Kind::ALL {
        let row = format!("| {} | `{}` |", kind.exit_code(), kind.name());
        assert!(page.contains(&row), "{row}");
    }
}
