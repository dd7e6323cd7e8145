//! What a user may get wrong, one row each, against real servers: what the program says, how it ends, and that it
//! changed nothing.
//!
//! Every row is held to the same rules ([`judge`]): stdout is empty; stderr ends in the one line that begins with
//! `error: `, and before it there may be nothing but log lines of level info or warn; no password is in either, nor in
//! the state; it is clear within 30 seconds; and the databases, the marker and the checkpoint of the row's job are what
//! they were, on every server. Each row has databases, a job and a state of its own, so that rows run side by side.

use crate::support::ferry::{Ferry, Ran, files};
use crate::support::servers::{
    Failure, Minio, ROOT_PASSWORD, ReplicaSet, StartOptions, shared_minio, shared_source, shared_target,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use mongodb::Client;
use mongodb::bson::{Bson, Document, doc};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::fmt::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How many rows run at once, beside those that only wait for somebody who does not answer.
const PARALLEL: usize = 8;

/// The bound on everything, unreachable servers first of all.
const CLEAR_WITHIN: Duration = Duration::from_secs(30);

/// A part of every password here, in lower case; to be found nowhere, in whatever case.
const SECRET: &str = "hedgehog";

/// The bucket that there is.
const BUCKET: &str = "bad-input";

const PREPARED: &str = "step discover; step plan; step prepare";

const OTHER_PREPARED: &str = "step discover --job {job}-2; step plan --job {job}-2; step prepare --job {job}-2";

/// A row of the table. All its texts may hold the names of [`World::fill`] in braces.
struct Row {
    name: &'static str,
    /// The command line.
    run: &'static str,
    /// Beside what [`World::ferry`] sets; an empty value unsets.
    environment: Vec<(&'static str, &'static str)>,
    given: Vec<Given>,
    code: i32,
    /// What the error says, among other things.
    says: &'static [&'static str],
    /// A command line that does as the error said, and succeeds.
    way_out: Option<&'static str>,
    waits: bool,
}

/// What was there before.
enum Given {
    /// A collection on the source, with a document.
    Source(&'static str),
    /// The same on the target.
    Target(&'static str),
    /// A view on the target.
    View(&'static str),
    /// A file in the working directory.
    File(&'static str, &'static str),
    /// Commands that succeeded, with `; ` between, without what the row adds to the environment.
    Ran(&'static str),
    /// A command that was killed as soon as this file of the job's state was there.
    Killed(&'static str, &'static str),
    /// A file of the job's state that somebody changed.
    Edited(&'static str, &'static str, &'static str),
    /// A file of the job's state that lost its second half.
    Cut(&'static str),
    /// A file of the job's state that became these bytes.
    Overwritten(&'static str, &'static [u8]),
}

fn row(name: &'static str, run: &'static str, code: i32, says: &'static [&'static str]) -> Row {
    Row { name, run, environment: vec![], given: vec![], code, says, way_out: None, waits: false }
}

impl Row {
    fn set(mut self, name: &'static str, value: &'static str) -> Self {
        self.environment.push((name, value));
        self
    }

    /// The state in MinIO.
    fn s3(self, state: &'static str) -> Self {
        self.set("MONGOFERRY_STATE", state)
            .set("MONGOFERRY_S3_ENDPOINT", "{minio}")
            .set("AWS_ACCESS_KEY_ID", Minio::ACCESS_KEY)
            .set("AWS_SECRET_ACCESS_KEY", Minio::SECRET_KEY)
            .set("AWS_REGION", Minio::REGION)
    }

    fn given(mut self, given: impl IntoIterator<Item = Given>) -> Self {
        self.given.extend(given);
        self
    }

    fn way_out(mut self, run: &'static str) -> Self {
        self.way_out = Some(run);
        self
    }

    /// It ends when a limit of time is reached, and needs little else.
    fn waits(mut self) -> Self {
        self.waits = true;
        self
    }
}

fn table() -> Vec<Row> {
    let mut rows = command_line();
    rows.extend(values());
    rows.extend(connection_strings());
    rows.extend(settings_files());
    rows.extend(unreachable());
    rows.extend(deployments());
    rows.extend(stores());
    rows.extend(selections());
    rows.extend(targets());
    rows.extend(planned_jobs());
    rows.extend(damaged_states());
    rows
}

fn command_line() -> Vec<Row> {
    vec![
        row("unknown step", "step coppy", 2, &["'coppy'", "'copy'"]),
        row("unknown command", "stop", 2, &["'stop'", "--help"]),
        row("unknown flag", "step all --jop shop", 2, &["'--jop'", "'--job'"]),
        row("a flag without its value", "step all --job", 2, &["--job <NAME>", "--help"]),
        row("a flag given twice", "step all --job a --job b", 2, &["--job", "multiple times"]),
        row("a flag of another step", "step all --lane 1", 2, &["--lane", "`step copy` only"]),
        row("a connection string in the wrong place", "step all mongodb://u:Hedgehog@h/", 2, &["unexpected argument"]),
        row("the same without its scheme", "step all u:Hedgehog@h", 2, &["unexpected argument"]),
    ]
}

fn values() -> Vec<Row> {
    vec![
        row("existing", "step all --existing replace", 2, &["--existing replace", "refuse, drop, keep"]),
        row("existing in the environment", "step all", 2, &["MONGOFERRY_EXISTING=Drop", "refuse, drop, keep"])
            .set("MONGOFERRY_EXISTING", "Drop"),
        row("verify", "step verify --verify all", 2, &["--verify all", "metadata, full, none"]),
        row("verify in the environment", "step all", 2, &["MONGOFERRY_VERIFY=Full", "metadata, full, none"])
            .set("MONGOFERRY_VERIFY", "Full"),
        row("against", "step verify --verify full --against target", 2, &["--against target", "proofs, source"]),
        row(
            "against without full",
            "step all --against source",
            2,
            &["--against source", "--verify full", "`metadata`"],
        ),
        row("verify with copy", "step copy --verify full", 2, &["--verify", "`step verify` and `step all`"]),
        row("against with index", "step index --against source", 2, &["--against", "`step verify` and `step all`"]),
        row(
            "create-index",
            "step all --create-index later",
            2,
            &["--create-index later", "none, background, foreground"],
        ),
        row(
            "a limit of nothing",
            "step all --max-documents-per-second 0",
            2,
            &["--max-documents-per-second 0", "from 1 to", "none", "pause"],
        ),
        row(
            "a limit that is no size",
            "step all --max-bytes-per-second fast",
            2,
            &["--max-bytes-per-second fast", "20MB", "none"],
        ),
        row("a change that there is not", "control stop", 2, &["stop", "max-bytes-per-second=VALUE", "resume"]),
        row("a change without a value", "control max-bytes-per-second", 2, &["wants a value", "=none"]),
        row("a change below nothing", "control max-bytes-per-second=-5MB", 2, &["-5MB", "20MB", "default"]),
        row("a change beyond sense", "control max-bytes-per-second=9TiB", 2, &["9TiB", "from 1KiB to 1TiB"]),
        row("a change that is made twice", "control pause resume", 2, &["leave one of them out"]),
        row("http without an address", "step all --http 9216", 2, &["--http 9216", "127.0.0.1:9216"]),
        row(
            "http on another machine",
            "step all --http 192.0.2.1:0",
            2,
            &["--http 192.0.2.1:0", "no address of this machine"],
        ),
        row("log-format", "step all --log-format xml", 2, &["--log-format xml", "text, json"]),
        row("log-level", "step all --log-level loud", 2, &["--log-level loud", "error, warn, info, debug, trace"]),
        row("lease without a unit", "step all --lease 15", 2, &["--lease 15", "15s"]),
        row("lease in words", "step all --lease soon", 2, &["--lease soon", "15s"]),
        row("lease of nothing", "step all --lease 0s", 2, &["--lease 0s", "from 1s to 10m"]),
        row("lease of hours", "step all --lease 2h", 2, &["--lease 2h", "from 1s to 10m"]),
        row("lease before now", "step all --lease=-5s", 2, &["--lease -5s", "15s"]),
        row("time budget", "step all --time-budget 13min30", 2, &["--time-budget 13min30", "13m"]),
        row("time budget too short", "step all --time-budget 500ms", 2, &["--time-budget 500ms", "at least 1s"]),
        row("save interval", "step all --save-interval often", 2, &["--save-interval often", "500ms"]),
        row("save interval too short", "step all --save-interval 1ms", 2, &["--save-interval 1ms", "at least 10ms"]),
        row(
            "save interval above a third of the lease",
            "step all --save-interval 6s",
            2,
            &["--save-interval 6s", "15s", "5s", "--lease"],
        ),
        row(
            "save interval above a third of a shorter lease",
            "step all --lease 2s",
            2,
            &["MONGOFERRY_SAVE_INTERVAL=1s", "2s", "--lease"],
        )
        .set("MONGOFERRY_SAVE_INTERVAL", "1s"),
        row("job with slashes", "step all --job a/b", 2, &["--job a/b", "letters, digits"]),
        row("job without a name", "step all --job=", 2, &["--job", "letters, digits"]),
        row("job one folder up", "status --job ..", 2, &["--job ..", "letters, digits"]),
        row("job with a slash in the environment", "status", 2, &["MONGOFERRY_JOB=../x", "letters, digits"])
            .set("MONGOFERRY_JOB", "../x"),
        row("which job to abandon", "abandon", 2, &["--job NAME"]).set("MONGOFERRY_JOB", ""),
        row("an invalid pattern", "step all --include sh*p.$*", 2, &["--include sh*p.$*", "collection's name"]),
        row("a pattern of no database", "step all --exclude sh/*", 2, &["--exclude sh/*", "database's name"]),
        row(
            "include of all of a special database",
            "step all --include admin.*",
            2,
            &["--include admin", "full names"],
        ),
        row(
            "include of what is never copied",
            "step all --include local.oplog.rs",
            2,
            &["local.oplog.rs", "never copied", "take it out"],
        ),
        row("exclude with a bad name", "step all --exclude a$b", 2, &["a$b", "not a database's name"]),
        row("rename with a wildcard", "step all --rename shop.*:store.*", 2, &["no wildcards", "db:db2"]),
        row("rename without a colon", "step all --rename shop", 2, &["--rename", "`shop`", "db:db2"]),
        row(
            "rename of a database to a collection",
            "step all --rename shop:shop2.a",
            2,
            &["`shop:shop2.a`", "db.a:db2.b"],
        ),
        row("rename to an invalid name", "step all --rename shop.a:shop.$a", 2, &["`shop.a:shop.$a`", "`$`"]),
        row("rename to an invalid database", "step all --rename shop:sh/op", 2, &["`shop:sh/op`", "`/`"]),
        row("rename into the server's own", "step all --rename shop:admin", 2, &["`admin`", "another name"]),
        row("rename in two ways", "step all --rename shop:a,shop:b", 2, &["`shop`", "`a`", "leave one"]),
        row("lane", "step copy --lane first", 2, &["--lane first", "number"]),
        row("namespace", "step verify --namespace shop", 2, &["--namespace shop", "db.collection"]),
        row(
            "checkpoint namespace",
            "step all --checkpoint-namespace local.x",
            2,
            &["--checkpoint-namespace local.x", "mongoshake.ckpt_default"],
        ),
        row(
            "drop-committed alone",
            "step all --drop-committed",
            2,
            &["--drop-committed", "--existing drop", "`refuse`"],
        ),
        row(
            "state in a place of another kind",
            "status --state gs://bucket/x",
            2,
            &["gs://bucket/x", "s3://bucket/prefix"],
        ),
        row("state in a database", "status --state mongodb://u:Hedgehog@h/", 2, &["--state", "s3://bucket/prefix"]),
        row(
            "state with credentials",
            "status --state s3://key:Hedgehog@bucket/x",
            2,
            &["--state", "s3://bucket/prefix"],
        ),
        row("endpoint that is none", "status --s3-endpoint minio:9000", 2, &["minio:9000", "http://127.0.0.1:9000"]),
        row(
            "endpoint with credentials",
            "status --s3-endpoint http://key:Hedgehog@minio:9000",
            2,
            &["--s3-endpoint", "AWS_ACCESS_KEY_ID"],
        ),
        row(
            "CA file that is missing",
            "step all --source-ca nosuch.pem",
            2,
            &["--source-ca nosuch.pem", "No such file"],
        ),
        row(
            "CA file without a certificate",
            "step all --target-ca key.pem",
            2,
            &["--target-ca key.pem", "BEGIN CERTIFICATE"],
        )
        .given([Given::File("key.pem", "-----BEGIN PRIVATE KEY-----\nhedgehog\n")]),
        row(
            "CA file for a connection without encryption",
            "step all --source-ca ca.pem",
            2,
            &["--source-ca ca.pem", "tls=false"],
        )
        .set("MONGOFERRY_SOURCE", "mongodb://{source_host}/?tls=false"),
    ]
}

fn connection_strings() -> Vec<Row> {
    let source = |name, uri, says| row(name, "step all", 2, says).set("MONGOFERRY_SOURCE", uri);
    vec![
        row("no source", "step all", 2, &["no source", "MONGOFERRY_SOURCE", "--source"]).set("MONGOFERRY_SOURCE", ""),
        row("no target", "step all", 2, &["no target", "MONGOFERRY_TARGET", "--target"]).set("MONGOFERRY_TARGET", ""),
        source("no scheme", "root:Hedgehog@{source_host}", &["MONGOFERRY_SOURCE", "mongodb://"]),
        source("another scheme", "http://root:Hedgehog@{source_host}", &["MONGOFERRY_SOURCE", "mongodb://"]),
        source("no host", "mongodb://root:Hedgehog@", &["MONGOFERRY_SOURCE", "no host"]),
        source("an empty host", "mongodb://root:Hedgehog@{source_host},,h", &["MONGOFERRY_SOURCE", "host 2 is empty"]),
        source("a port that is none", "mongodb://{source_host}0000", &["MONGOFERRY_SOURCE", "65535"]),
        source("a password where the port belongs", "mongodb://root:Hedgehog", &["MONGOFERRY_SOURCE", "`@`"]),
        source("a password without a user", "mongodb://:Hedgehog@h", &["MONGOFERRY_SOURCE", "user name"]),
        source("a slash in the password", "mongodb://root:Hedge/hedgehog@h", &["MONGOFERRY_SOURCE", "%2F"]),
        source("an @ in the password", "mongodb://root:Hedge@hedgehog@h", &["MONGOFERRY_SOURCE", "%40"]),
        source("a colon in the password", "mongodb://root:hedge:hedgehog@h", &["MONGOFERRY_SOURCE", "%3A"]),
        source("a question mark in the password", "mongodb://root:Hedge?hedgehog@h", &["MONGOFERRY_SOURCE", "%3F"]),
        source("a percent sign in the password", "mongodb://root:100%Hedgehog@h", &["MONGOFERRY_SOURCE", "%25"]),
        source("a hash in the password", "mongodb://root:Hedge#hedgehog@h", &["MONGOFERRY_SOURCE", "percent-encoded"]),
        source("an option without a value", "mongodb://h/?Hedgehog", &["MONGOFERRY_SOURCE", "NAME=VALUE"]),
        source("an option of another kind", "mongodb://u:Hedgehog@h/?tls=perhaps", &["MONGOFERRY_SOURCE", "tls"]),
        source(
            "an option with a password",
            "mongodb://h/?tls=perhaps&tlsCertificateKeyFilePassword=Hedgehog",
            &["MONGOFERRY_SOURCE", "tls"],
        ),
        source("srv with a port", "mongodb+srv://u:Hedgehog@h:27017/", &["MONGOFERRY_SOURCE", "one host"]),
        row(
            "the target's on the command line",
            "step all --target mongodb://u:hedge@hedgehog@h/",
            2,
            &["--target", "%40"],
        ),
        row(
            "the checkpoint's",
            "step all --checkpoint-uri u:Hedgehog@h",
            2,
            &["--checkpoint-uri", "mongodb://", "`none`"],
        ),
    ]
}

fn settings_files() -> Vec<Row> {
    vec![
        row("a settings file that is missing", "step all --config nosuch.toml", 2, &["nosuch.toml", "--config"]),
        row("an unknown key", "step all", 2, &["`sorce`", "mongoferry.toml", "`source`"])
            .given([Given::File("mongoferry.toml", "sorce = \"mongodb://u:Hedgehog@h/\"\n")]),
        row("a key for the command line alone", "step all", 2, &["`takeover`", "mongoferry.toml", "--takeover"])
            .given([Given::File("mongoferry.toml", "takeover = true\n")]),
        row("no TOML", "step all --config jobs.toml", 2, &["jobs.toml", "line 2"])
            .given([Given::File("jobs.toml", "job = \"shop\"\nsource = \"mongodb://u:Hedgehog@h/\n")]),
        row("a number for a text", "step all", 2, &["`lease`", "mongoferry.toml", "in quotes"])
            .given([Given::File("mongoferry.toml", "lease = 15\n")]),
        row(
            "an unknown value in the file",
            "step all",
            2,
            &["`existing = \"replace\"`", "mongoferry.toml", "refuse, drop, keep"],
        )
        .given([Given::File("mongoferry.toml", "existing = \"replace\"\n")]),
    ]
}

fn unreachable() -> Vec<Row> {
    let source = |name, uri, says| row(name, "step all", 1, says).set("MONGOFERRY_SOURCE", uri).waits();
    vec![
        source(
            "a source that refuses",
            "mongodb://u:Hedgehog@127.0.0.1:1/?replicaSet=rs",
            &["the source cannot be reached", "127.0.0.1:1: ", "check its connection string"],
        ),
        source(
            "a source that is silent",
            "mongodb://{silent}/?directConnection=true",
            &["the source cannot be reached", "{silent}: ", "timed out", "check its connection string"],
        ),
        source("a source nowhere", "mongodb://192.0.2.1/", &["the source cannot be reached", "192.0.2.1:27017: "]),
        source(
            "a source with an unknown name",
            "mongodb://nosuch.invalid/",
            &["the source cannot be reached", "nosuch.invalid:27017: ", "check its connection string"],
        ),
        source(
            "a source with an unknown srv name",
            "mongodb+srv://u:Hedgehog@nosuch.invalid/",
            &["the source cannot be reached", "nosuch.invalid", "check its connection string"],
        ),
        // Whether it answers what it does not understand, or waits for the end of the line, is chance.
        source(
            "a source that is something else",
            "mongodb://{minio_host}/",
            &["{minio_host}: ", "check its connection"],
        ),
        source("a source of another set", "mongodb://{source_host}/?replicaSet=other", &["the source", "set `other`"]),
        source(
            "a source without encryption",
            "mongodb://{source_host}/?tls=true",
            &["{source_host}: ", "tls handshake"],
        ),
        row("a target that refuses", "step all", 1, &["the target cannot be reached", "127.0.0.1:1: "])
            .set("MONGOFERRY_TARGET", "mongodb://u:Hedgehog@127.0.0.1:1/")
            .waits(),
        row(
            "a place for the checkpoint that refuses",
            "step all --checkpoint-uri mongodb://127.0.0.1:1/",
            1,
            &["the checkpoint's deployment cannot be reached", "127.0.0.1:1: "],
        )
        .given([Given::Source("{db}.a")])
        .waits(),
        row("an S3 endpoint that refuses", "step all", 1, &["http://127.0.0.1:1", "try again"])
            .s3("s3://bad-input/{job}")
            .set("MONGOFERRY_S3_ENDPOINT", "http://127.0.0.1:1")
            .waits(),
    ]
}

fn deployments() -> Vec<Row> {
    vec![
        row("a wrong password for the source", "step all", 2, &["the source", "password", "authSource"])
            .set("MONGOFERRY_SOURCE", "mongodb://root:Wrong-Hedgehog@{auth_host}/?replicaSet=auth"),
        row("a wrong password for the target", "step all", 2, &["the target", "password", "authSource"])
            .set("MONGOFERRY_TARGET", "mongodb://root:Wrong%2FHedgehog@{auth_host}/?directConnection=true"),
        row("a wrong password for the checkpoint", "step all", 2, &["the checkpoint's deployment", "password"])
            .set("MONGOFERRY_CHECKPOINT_URI", "mongodb://root:Wrong-Hedgehog@{auth_host}/")
            .given([Given::Source("{db}.a")]),
        row("the right password in the wrong database", "step all", 2, &["the source", "authSource"])
            .set("MONGOFERRY_SOURCE", "mongodb://limited:{limited_password}@{auth_host}/?authSource=nosuch"),
        row("no password at all", "step all", 2, &["the source", "user name and password", "connection string"])
            .set("MONGOFERRY_SOURCE", "mongodb://{auth_host}/?replicaSet=auth"),
        row(
            "a user of the source with too few rights",
            "step all",
            2,
            &["the user of the source", "not authorized on config", "docs/configuration.md"],
        )
        .set("MONGOFERRY_SOURCE", "{limited}"),
        row(
            "a user of the target who only reads",
            "step all",
            2,
            &["the user of the target", "not authorized on mongoferry", "docs/configuration.md"],
        )
        .set("MONGOFERRY_TARGET", "{reader}")
        .given([Given::Source("{db}.a")]),
        row("source and target the same", "step all", 2, &["same deployment", "source (id ", "--source or --target"])
            .set("MONGOFERRY_TARGET", "{source}"),
        row(
            "source and target the same by another address",
            "step all",
            2,
            &["same deployment", "--source or --target"],
        )
        .set("MONGOFERRY_TARGET", "mongodb://localhost:{source_port}/?directConnection=true"),
        row(
            "source and target the same for a user with few rights",
            "step all",
            2,
            &["same deployment", "--source or --target"],
        )
        .set("MONGOFERRY_SOURCE", "{auth}")
        .set("MONGOFERRY_TARGET", "{limited}"),
        row("a standalone source", "step all", 2, &["the source is a standalone server", "replica set"])
            .set("MONGOFERRY_SOURCE", "mongodb://{standalone_host}/"),
        row("a standalone target", "step all", 2, &["the target is a standalone server", "replica set"])
            .set("MONGOFERRY_TARGET", "mongodb://{standalone_host}/?directConnection=true"),
        row("an empty source", "step all", 2, &["nothing to copy", "source", "everything", "--include"])
            .set("MONGOFERRY_SOURCE", "{auth}")
            .set("MONGOFERRY_INCLUDE", ""),
    ]
}

fn stores() -> Vec<Row> {
    vec![
        row("a missing bucket", "step all", 2, &["`bad-input-nosuch`", "does not exist", "create it"])
            .s3("s3://bad-input-nosuch/{job}"),
        row("a missing bucket for status", "status", 2, &["`bad-input-nosuch`", "create it"])
            .s3("s3://bad-input-nosuch/{job}"),
        row("a wrong S3 secret", "step all", 2, &["`bad-input`", "credentials", "SignatureDoesNotMatch", "AWS SDK"])
            .s3("s3://bad-input/{job}")
            .set("AWS_SECRET_ACCESS_KEY", "wrong/Hedgehog+"),
        row("a wrong S3 key", "step all", 2, &["`bad-input`", "credentials", "InvalidAccessKeyId", "AWS SDK"])
            .s3("s3://bad-input/{job}")
            .set("AWS_ACCESS_KEY_ID", "nobody")
            .set("AWS_SECRET_ACCESS_KEY", "hedgehog-secret"),
        row("no S3 credentials", "step all", 2, &["`bad-input`", "AWS_ACCESS_KEY_ID"])
            .s3("s3://bad-input/{job}")
            .set("AWS_ACCESS_KEY_ID", "")
            .set("AWS_SECRET_ACCESS_KEY", "")
            .set("AWS_EC2_METADATA_DISABLED", "true"),
        row("an S3 endpoint that is a database", "step all", 2, &["check the endpoint"])
            .s3("s3://bad-input/{job}")
            .set("MONGOFERRY_S3_ENDPOINT", "http://{source_host}"),
        row("a state below a file", "step all", 2, &["/dev/null/x", "--state"]).set("MONGOFERRY_STATE", "/dev/null/x"),
        row("a state that is a file", "step all", 2, &["`{dir}/file`", "not a folder"])
            .set("MONGOFERRY_STATE", "{dir}/file")
            .given([Given::File("file", "hello")]),
        row("a file where the job's state belongs", "step all", 2, &["{dir}/state/{job}", "in the way", "--state"])
            .given([Given::Source("{db}.a"), Given::File("state/{job}", "hello")]),
        row("an unknown job for rejected", "rejected", 2, &["`{job}`", "{dir}/state", "mongoferry jobs"]),
        row("an unknown job for status", "status", 2, &["`{job}`", "{dir}/state", "mongoferry jobs"]),
        row("an unknown job for abandon", "abandon", 2, &["`{job}`", "{dir}/state", "mongoferry jobs"]),
        row("an unknown job in S3", "status", 2, &["`{job}`", "s3://bad-input/x", "mongoferry jobs"])
            .s3("s3://bad-input/x"),
    ]
}

fn selections() -> Vec<Row> {
    vec![
        row(
            "an include that matches nothing",
            "step all --include {db},{db}_typo",
            2,
            &["--include {db}_typo", "matches no"],
        )
        .given([Given::Source("{db}.a")])
        .way_out("step all"),
        row(
            "a pattern that matches nothing",
            "step all --include {db},{db}.typo_*",
            2,
            &["--include {db}.typo_*", "matches no"],
        )
        .given([Given::Source("{db}.a")])
        .way_out("step all --include {db}.*"),
        row(
            "a collection where the checkpoint goes",
            "step all --checkpoint-namespace {db}.a",
            2,
            &["{db}.a, where the checkpoint goes", "--checkpoint-namespace"],
        )
        .given([Given::Source("{db}.a")])
        .way_out("step all"),
        row(
            "an include of an excluded collection",
            "step all --include {db}.a --exclude {db}",
            2,
            &["--include {db}.a"],
        )
        .given([Given::Source("{db}.a")])
        .way_out("step all"),
        row(
            "a rename of what is not copied",
            "step all --rename {db}.b:{db}.c",
            2,
            &["--rename {db}.b:{db}.c", "names nothing that is copied", "--include"],
        )
        .given([Given::Source("{db}.a")])
        .way_out("step all --rename {db}.a:{db}.c"),
        row(
            "renames that collide",
            "step all --rename {db}.a:{db}.c,{db}.b:{db}.c",
            2,
            &["{db}.a, {db}.b", "to {db}.c", "rename or exclude"],
        )
        .given([Given::Source("{db}.a"), Given::Source("{db}.b")])
        .way_out("step all"),
        row(
            "a rename onto what keeps its name",
            "step all --rename {db}.a:{db}.b",
            2,
            &["{db}.a, {db}.b", "to {db}.b", "rename or exclude"],
        )
        .given([Given::Source("{db}.a"), Given::Source("{db}.b")]),
        row("a rename that makes a name too long", "step all --rename {db}:{wide}", 2, &["{db}.{long}", "at most 255"])
            .given([Given::Source("{db}.{long}")]),
        row(
            "a filter that is no query",
            "step all",
            2,
            &["`{db}.a` in [filters]", "{\"k\":{\"$foo\":1}}", "unknown operator: $foo", "correct it"],
        )
        .given([
            Given::Source("{db}.a"),
            Given::File("mongoferry.toml", "[filters]\n'{db}.a' = '{\"k\": {\"$foo\": 1}}'"),
        ]),
        row(
            "a filter by distance, which is an order",
            "step all",
            2,
            &["`{db}.a` in [filters]", "geoNear", "leave it out"],
        )
        .given([
            Given::Source("{db}.a"),
            Given::File("mongoferry.toml", "[filters]\n'{db}.a' = '{\"at\": {\"$near\": [1, 2]}}'"),
        ]),
        row(
            "a filter by words, which has an index of its own",
            "step all",
            2,
            &["`{db}.a` in [filters]", "leave it out"],
        )
        .given([
            Given::Source("{db}.a"),
            Given::File("mongoferry.toml", "[filters]\n'{db}.a' = '{\"$text\": {\"$search\": \"was\"}}'"),
        ]),
        row(
            "a filter of what is not copied",
            "step all --exclude {db}.a",
            2,
            &["`{db}.a` in [filters]", "names nothing that is copied", "--exclude"],
        )
        .given([
            Given::Source("{db}.a"),
            Given::Source("{db}.b"),
            Given::File("mongoferry.toml", "[filters]\n'{db}.a' = '{\"k\": 1}'"),
        ])
        .way_out("step all"),
        row(
            "databases that differ in case only",
            "step all --include {db},{db}_2 --rename {db}_2:{DB}",
            2,
            &["{DB}, {db}", "differ only in case", "rename all but one"],
        )
        .given([Given::Source("{db}.a"), Given::Source("{db}_2.a")]),
    ]
}

fn targets() -> Vec<Row> {
    vec![
        row(
            "a collection in the way",
            "step all",
            2,
            &["the target has {db}.a", "--existing drop or keep", "rename or exclude"],
        )
        .given([Given::Source("{db}.a"), Given::Target("{db}.a")])
        .way_out("step all --existing drop"),
        row("a renamed collection in the way", "step all --rename {db}.a:{db}_to.b", 2, &["{db}_to.b", "--existing"])
            .given([Given::Source("{db}.a"), Given::Target("{db}_to.b")])
            .way_out("step all --existing keep --rename {db}.a:{db}_to.b"),
        row("seven collections in the way", "step all", 2, &["{db}.a, {db}.b, {db}.c, {db}.d, {db}.e and 2 more"])
            .given(["{db}.a", "{db}.b", "{db}.c", "{db}.d", "{db}.e", "{db}.f", "{db}.g"].map(Given::Source))
            .given(["{db}.a", "{db}.b", "{db}.c", "{db}.d", "{db}.e", "{db}.f", "{db}.g"].map(Given::Target)),
        row("a view in the way", "step all --existing keep", 2, &["{db}.a on the target is a view", "--existing drop"])
            .given([Given::Source("{db}.a"), Given::View("{db}.a")])
            .way_out("step all --existing drop"),
        row(
            "a database in the way but for case",
            "step all --rename {db}:{DB}",
            2,
            &["{DB}", "{db}", "differ only in case"],
        )
        .given([Given::Source("{db}.a"), Given::Target("{db}.other")]),
        row(
            "another unfinished job",
            "step all",
            2,
            &["`{job}-2`", "has claimed {db}.a", "mongoferry abandon --job {job}-2"],
        )
        .given([Given::Source("{db}.a"), Given::Ran(OTHER_PREPARED)])
        .way_out("abandon --job {job}-2"),
        row("another unfinished job, and drop", "step all --existing drop", 2, &["`{job}-2`", "has claimed {db}.a"])
            .given([Given::Source("{db}.a"), Given::Ran(OTHER_PREPARED)]),
        row(
            "drop of what is committed",
            "step all --existing drop",
            2,
            &["`{job}-2`", "has committed {db}.a", "--drop-committed"],
        )
        .given([Given::Source("{db}.a"), Given::Ran("step all --job {job}-2")])
        .way_out("step all --existing drop --drop-committed"),
    ]
}

fn planned_jobs() -> Vec<Row> {
    let prepared = || [Given::Source("{db}.a"), Given::Ran(PREPARED)];
    let discovered = || [Given::Source("{db}.a"), Given::Source("{db}.b"), Given::Ran("step discover")];
    vec![
        row("plan before discover", "step plan", 2, &["step plan", "`mongoferry step discover --job {job}`"]),
        row("copy before plan", "step copy", 2, &["step copy", "`mongoferry step plan --job {job}`"])
            .given(discovered())
            .way_out("step plan"),
        row("commit before verify", "step commit", 2, &["`mongoferry step copy --job {job}`"]).given(prepared()),
        row("an unknown shard", "step copy --shard nosuch", 2, &["--shard nosuch", "source/0"]).given(prepared()),
        row("an unknown lane", "step copy --lane 7", 2, &["--lane 7", "source/0"])
            .given(prepared())
            .way_out("step copy --lane 0"),
        row("indexes of what is not copied", "step index --namespace {db}.b", 2, &["--namespace {db}.b", "`{job}`"])
            .given(prepared())
            .given([Given::Ran("step copy")])
            .way_out("step index --namespace {db}.a"),
        row(
            "verification of what is not copied",
            "step verify --namespace other.b",
            2,
            &["--namespace other.b", "`{job}`"],
        )
        .given(prepared())
        .given([Given::Ran("step copy; step index")])
        .way_out("step verify --namespace {db}.a"),
        row("another filter", "step all --include {db}.a", 2, &["`{job}`", "filter `{db}`", "`{db}.a`", "--job"])
            .given(discovered())
            .way_out("step all --include {db}.*"),
        row("another exclude", "step plan --exclude {db}.b", 2, &["filter `{db}`", "`{db} but {db}.b`", "--job"])
            .given(discovered()),
        row("another rename", "step plan --rename {db}.a:{db}.c", 2, &["renames `none`", "`{db}.a:{db}.c`", "--job"])
            .given(discovered()),
        row("another source", "step plan", 2, &["source `source (id ", "`auth (id ", "--job"])
            .set("MONGOFERRY_SOURCE", "{auth}")
            .given(discovered()),
        row("another target", "step plan", 2, &["target `target (id ", "`auth (id ", "--job"])
            .set("MONGOFERRY_TARGET", "{auth}")
            .given(discovered()),
        row(
            "another source, for a user who cannot read its id",
            "step plan",
            2,
            &["source `source (id ", "`auth at ", "--job"],
        )
        .set("MONGOFERRY_SOURCE", "{limited}")
        .given(discovered()),
        row("another source after the checkpoint", "step all", 2, &["source `source (id ", "`auth (id ", "--job"])
            .set("MONGOFERRY_SOURCE", "{auth}")
            .given([Given::Source("{db}.a"), Given::Killed("step discover", "checkpoint.json")]),
        row(
            "another choice for what exists",
            "step prepare --existing keep",
            2,
            &["--existing refuse", "--existing keep", "--job"],
        )
        .given([
            Given::Source("{db}.a"),
            Given::Ran("step discover; step plan"),
            Given::Killed("step prepare", "prepare/before-00000.json"),
        ])
        .way_out("step all"),
        row(
            "another time for indexes",
            "step all --create-index none",
            2,
            &["--create-index foreground", "--create-index none"],
        )
        .given([
            Given::Source("{db}.a"),
            Given::Ran("step discover; step plan"),
            Given::Killed("step prepare", "prepare/before-00000.json"),
        ]),
        row("an abandoned job", "step all", 2, &["`{job}`", "abandoned", "--job"])
            .given(prepared())
            .given([Given::Ran("abandon")]),
        row("a step of an abandoned job", "step copy", 2, &["`{job}`", "abandoned", "--job"])
            .given(prepared())
            .given([Given::Ran("abandon")]),
        row("trying again before the copy is done", "rejected --retry", 2, &["step copy", "`{job}`", "--max-rejected"])
            .given(prepared()),
        row("control of an unknown job", "control pause", 2, &["`{job}`", "{dir}/state", "mongoferry jobs"]),
        row("control of an abandoned job", "control pause", 2, &["`{job}`", "abandoned", "--job"])
            .given(prepared())
            .given([Given::Ran("abandon")]),
        row("control of a committed job", "control", 2, &["`{job}`", "committed", "nothing left"])
            .given([Given::Source("{db}.a"), Given::Ran("step all")]),
        row("abandoning a committed job", "abandon", 2, &["`{job}`", "committed"])
            .given([Given::Source("{db}.a"), Given::Ran("step all")]),
        row("abandoning on another target", "abandon", 2, &["`{job}`", "target `target (id ", "`auth (id "])
            .set("MONGOFERRY_TARGET", "{auth}")
            .given(prepared())
            .way_out("abandon"),
    ]
}

fn damaged_states() -> Vec<Row> {
    let planned = || [Given::Source("{db}.a"), Given::Ran("step discover; step plan")];
    let finished = || [Given::Source("{db}.a"), Given::Ran("step all")];
    let newer = |file| Given::Edited(file, "\"version\": 1", "\"version\": 99");
    vec![
        row(
            "a job of a newer version",
            "step all",
            2,
            &["{dir}/state/{job}/job.json", "version 99", "newer mongoferry"],
        )
        .given(planned())
        .given([newer("job.json")]),
        row(
            "a step of a newer version",
            "step plan",
            2,
            &["steps/discover.json", "version 99", "up to 1", "newer mongoferry"],
        )
        .given(planned())
        .given([newer("steps/discover.json")]),
        row("a newer version for status", "status --json", 2, &["job.json", "version 99", "newer mongoferry"])
            .given(finished())
            .given([newer("job.json")]),
        row("a newer version for abandon", "abandon", 2, &["job.json", "version 99", "newer mongoferry"])
            .given(planned())
            .given([newer("job.json")]),
        row("a damaged job", "step all", 1, &["{dir}/state/{job}/job.json", "damaged", "kept as it is", "--job"])
            .given(planned())
            .given([Given::Cut("job.json")]),
        row("a damaged step", "step all", 1, &["steps/discover.json", "damaged", "kept as it is"])
            .given(planned())
            .given([Given::Cut("steps/discover.json")]),
        row("an empty step", "step prepare", 1, &["steps/plan.json", "damaged", "kept as it is"])
            .given(planned())
            .given([Given::Overwritten("steps/plan.json", b"")]),
        row("a plan that is no text", "step copy", 1, &["plan.json", "damaged", "kept as it is"])
            .given(planned())
            .given([Given::Ran("step prepare"), Given::Overwritten("plan.json", b"\xff\xfe\0\n")]),
        row("a catalog that is something else", "step prepare", 1, &["catalog.json", "`plan`", "kept as it is"])
            .given(planned())
            .given([Given::Edited("catalog.json", "\"kind\": \"catalog\"", "\"kind\": \"plan\"")]),
        row("a damaged checkpoint", "step commit", 1, &["checkpoint.json", "damaged", "kept as it is"])
            .given(planned())
            .given([Given::Ran("step prepare; step copy; step index; step verify"), Given::Cut("checkpoint.json")]),
        row(
            "a lane of a newer version",
            "step copy",
            2,
            &["lanes/source-0/lane.json", "version 99", "newer mongoferry"],
        )
        .given(planned())
        .given([
            Given::Ran("step prepare"),
            Given::Killed("step copy", "lanes/source-0/lane.json"),
            newer("lanes/source-0/lane.json"),
        ]),
        row("a damaged lane", "step copy", 1, &["lanes/source-0/lane.json", "damaged", "kept as it is"])
            .given(planned())
            .given([
                Given::Ran("step prepare"),
                Given::Killed("step copy", "lanes/source-0/lane.json"),
                Given::Cut("lanes/source-0/lane.json"),
            ]),
        row("a damaged lane for status", "status", 1, &["lane.json", "damaged", "kept as it is"])
            .given(finished())
            .given([Given::Cut("lanes/source-0/lane.json")]),
        row("a damaged job among the jobs", "jobs", 1, &["{dir}/state/{job}/job.json", "damaged"])
            .given(finished())
            .given([Given::Cut("job.json")]),
    ]
}

/// The servers, and the clients that look at them.
struct World {
    source: &'static ReplicaSet,
    target: &'static ReplicaSet,
    minio: &'static Minio,
    /// With users: `root`; `limited`, who reads one database; `reader`, who reads all.
    auth: ReplicaSet,
    standalone: ReplicaSet,
    /// Takes connections and says nothing.
    silent: TcpListener,
    clients: Vec<Client>,
}

impl World {
    async fn start() -> Result<Self, Failure> {
        let auth = StartOptions { name: "auth".to_owned(), auth: true, ..Default::default() };
        let standalone = StartOptions { standalone: true, ..Default::default() };
        let (source, target, minio, auth, standalone) = tokio::try_join!(
            shared_source(),
            shared_target(),
            shared_minio(),
            ReplicaSet::start(auth),
            ReplicaSet::start(standalone),
        )?;
        minio.create_bucket(BUCKET)?;
        let mut clients = Vec::new();
        for uri in [source.uri(), target.uri(), auth.uri(), standalone.member_uri(0)] {
            clients.push(Client::with_uri_str(uri).await?);
        }
        let users = [
            ("limited", vec![doc! {"role": "read", "db": "only"}]),
            ("reader", ["readAnyDatabase", "clusterMonitor"].map(|role| doc! {"role": role, "db": "admin"}).to_vec()),
        ];
        for (user, roles) in users {
            let create = doc! {"createUser": user, "pwd": password(user), "roles": roles};
            clients[2].database("admin").run_command(create).await?;
        }
        Ok(Self { source, target, minio, auth, standalone, silent: TcpListener::bind("127.0.0.1:0")?, clients })
    }

    /// A row's text with its names filled in.
    fn fill(&self, text: &str, place: &Place) -> Result<String, Failure> {
        let host = |set: &ReplicaSet| format!("127.0.0.1:{}", set.port(0));
        let user = |user: &str| {
            format!(
                "mongodb://{user}:{}@{}/?replicaSet=auth&authSource=admin",
                encoded(&password(user)),
                host(&self.auth)
            )
        };
        let mut text = text.to_owned();
        for (name, value) in [
            ("{db}", place.database.clone()),
            ("{DB}", place.database.to_uppercase()),
            ("{job}", place.job.clone()),
            ("{dir}", place.directory.display().to_string()),
            ("{long}", "l".repeat(200)),
            ("{wide}", format!("{}_{}", place.database, "w".repeat(62 - place.database.len()))),
            ("{source}", self.source.uri()),
            ("{source_host}", host(self.source)),
            ("{source_port}", self.source.port(0).to_string()),
            ("{auth}", self.auth.uri()),
            ("{auth_host}", host(&self.auth)),
            ("{limited}", user("limited")),
            ("{limited_password}", encoded(&password("limited"))),
            ("{reader}", user("reader")),
            ("{standalone_host}", host(&self.standalone)),
            ("{silent}", self.silent.local_addr()?.to_string()),
            ("{minio}", self.minio.endpoint()),
            ("{minio_host}", self.minio.endpoint().replace("http://", "")),
        ] {
            text = text.replace(name, &value);
        }
        Ok(text)
    }

    /// The program in a row's place: its settings are good, and lead to what is the row's own.
    fn ferry(&self, place: &Place) -> Ferry {
        Ferry::new(&place.directory, &self.source.uri(), &self.target.uri(), &place.job)
            .set("MONGOFERRY_INCLUDE", &place.database)
            .set("MONGOFERRY_CHECKPOINT_NAMESPACE", format!("mongoshake.{}", place.database))
            // What a developer has there is none of the test's business.
            .set("HOME", place.directory.display().to_string())
    }

    /// All that the row's job may have changed, on every server, as a text.
    async fn fingerprint(&self, place: &Place) -> Result<String, Failure> {
        let mut text = String::new();
        for (client, server) in self.clients.iter().zip(["source", "target", "auth", "standalone"]) {
            for name in client.list_database_names().await? {
                let is_own = name.to_lowercase().starts_with(&place.database);
                if !is_own && !["mongoferry", "mongoshake"].contains(&name.as_str()) {
                    continue;
                }
                let database = client.database(&name);
                let mut collections: Vec<_> = database.list_collections().await?.try_collect().await?;
                collections.sort_by(|one, other| one.name.cmp(&other.name));
                for collection in collections {
                    let documents = database.collection::<Document>(&collection.name);
                    let filter = match name.as_str() {
                        "mongoferry" => doc! {"job": {"$regex": format!("^{}", place.job)}},
                        "mongoshake" if !collection.name.starts_with(&place.database) => continue,
                        _ => doc! {},
                    };
                    if is_own {
                        writeln!(text, "{server}: {name}.{} {collection:?}", collection.name)?;
                    }
                    let mut found = documents.find(filter).await?;
                    while let Some(document) = found.try_next().await? {
                        let document = Bson::from(document).into_canonical_extjson();
                        writeln!(text, "{server}: {name}.{} {document}", collection.name)?;
                    }
                }
            }
        }
        Ok(text)
    }
}

fn password(user: &str) -> String {
    format!("{user}/Hedgehog@%")
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// Where a row takes place.
struct Place {
    database: String,
    job: String,
    directory: PathBuf,
}

impl Place {
    fn state(&self, file: &str) -> PathBuf {
        self.directory.join("state").join(&self.job).join(file)
    }
}

/// Runs a row. The error says what was not as it should be.
async fn run(world: &World, number: usize, row: &Row) -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let place = Place {
        database: format!("bad_input_{number:03}"),
        job: format!("bad-input-{number:03}"),
        directory: directory.path().to_owned(),
    };
    let mut kept = Vec::new();
    for given in &row.given {
        if let Some(damaged) = arrange(world, &place, given).await? {
            kept.push((damaged.clone(), std::fs::read(damaged)?));
        }
    }
    let mut ferry = world.ferry(&place);
    for (name, value) in &row.environment {
        let value = world.fill(value, &place)?;
        ferry = if value.is_empty() { ferry.unset(name) } else { ferry.set(name, value) };
    }
    let before = world.fingerprint(&place).await?;
    let arguments = world.fill(row.run, &place)?;
    let ran = tokio::time::timeout(CLEAR_WITHIN, run_words(&ferry, &arguments)).await?;
    let after = world.fingerprint(&place).await?;

    let says = row.says.iter().map(|text| world.fill(text, &place)).collect::<Result<Vec<_>, _>>()?;
    judge(&ran, row.code, &says)?;
    if before != after {
        return Err(format!("a server was changed; before:\n{before}after:\n{after}{}", ran.stderr).into());
    }
    for (path, content) in kept {
        if std::fs::read(&path)? != content {
            return Err(format!("{} was not kept", path.display()).into());
        }
    }
    let secret =
        |(path, content): &(PathBuf, Vec<u8>)| has_secret(&String::from_utf8_lossy(content)).then(|| path.clone());
    if let Some(path) = files(&place.directory.join("state")).iter().find_map(secret) {
        return Err(format!("{} holds a password", path.display()).into());
    }
    match row.way_out {
        None => Ok(()),
        Some(way_out) => succeed(&world.ferry(&place), &world.fill(way_out, &place)?).await,
    }
}

/// Makes it as it was before. Returns the file of the state that was tampered with, if one was.
async fn arrange(world: &World, place: &Place, given: &Given) -> Result<Option<PathBuf>, Failure> {
    let collection = async |client: &Client, namespace: &str, view: bool| -> Result<(), Failure> {
        let namespace = world.fill(namespace, place)?;
        let (database, name) = namespace.split_once('.').ok_or("not a namespace")?;
        let database = client.database(database);
        if view {
            database.run_command(doc! {"create": name, "viewOn": "seen", "pipeline": []}).await?;
        } else {
            database.collection(name).insert_one(doc! {"text": "as it was"}).await?;
        }
        Ok(())
    };
    let tampered = match given {
        Given::Source(namespace) => return collection(&world.clients[0], namespace, false).await.map(|()| None),
        Given::Target(namespace) => return collection(&world.clients[1], namespace, false).await.map(|()| None),
        Given::View(namespace) => return collection(&world.clients[1], namespace, true).await.map(|()| None),
        Given::File(name, content) => {
            let path = place.directory.join(world.fill(name, place)?);
            std::fs::create_dir_all(path.parent().unwrap_or(Path::new("")))?;
            std::fs::write(path, world.fill(content, place)?)?;
            return Ok(None);
        }
        Given::Ran(arguments) => {
            let arguments = world.fill(arguments, place)?;
            succeed(&world.ferry(place), &arguments).await?;
            return Ok(None);
        }
        Given::Killed(arguments, file) => {
            for point in 1.. {
                let ferry = world.ferry(place).set("MONGOFERRY_CRASH_AT", point.to_string());
                let ran = run_words(&ferry, arguments).await;
                if ran.code.is_some() {
                    return Err(format!("`{arguments}` was not killed after {file} was there: {}", ran.stderr).into());
                }
                if place.state(file).exists() {
                    break;
                }
            }
            return Ok(None);
        }
        Given::Edited(file, from, to) => {
            let content = std::fs::read_to_string(place.state(file))?;
            if !content.contains(from) {
                return Err(format!("{file} does not hold {from}: {content}").into());
            }
            std::fs::write(place.state(file), content.replace(from, to))?;
            file
        }
        Given::Cut(file) => {
            let content = std::fs::read(place.state(file))?;
            std::fs::write(place.state(file), &content[..content.len() / 2])?;
            file
        }
        Given::Overwritten(file, content) => {
            std::fs::metadata(place.state(file))?;
            std::fs::write(place.state(file), content)?;
            file
        }
    };
    Ok(Some(place.state(tampered)))
}

async fn run_words(ferry: &Ferry, arguments: &str) -> Ran {
    ferry.run(&arguments.split_whitespace().collect::<Vec<_>>()).await
}

/// Runs what must succeed, one command after the other.
async fn succeed(ferry: &Ferry, commands: &str) -> Result<(), Failure> {
    for arguments in commands.split("; ") {
        let ran = run_words(ferry, arguments).await;
        if ran.code != Some(0) {
            return Err(format!("`{arguments}` ended with {:?}: {}", ran.code, ran.stderr).into());
        }
    }
    Ok(())
}

/// Whether the run ended as every refusal must, and as this one should.
fn judge(ran: &Ran, code: i32, says: &[String]) -> Result<(), Failure> {
    let Ran { stdout, stderr, .. } = ran;
    let failed =
        |what: &str| Err(format!("{what}\nexit code {:?}, stdout:\n{stdout}\nstderr:\n{stderr}", ran.code).into());
    if ran.code != Some(code) {
        return failed(&format!("expected exit code {code}"));
    }
    if !stdout.is_empty() {
        return failed("something is on stdout");
    }
    let lines: Vec<&str> = stderr.lines().collect();
    let Some((error, logged)) = lines.split_last() else { return failed("nothing is on stderr") };
    if !error.starts_with("error: ") || !logged.iter().all(|line| is_log_line(line)) {
        return failed("stderr is not log lines and then one error");
    }
    if ["panicked", "backtrace", "internal error", "defect"].iter().any(|word| stderr.contains(word)) {
        return failed("it broke");
    }
    if has_secret(stderr) {
        return failed("a password is shown");
    }
    match says.iter().find(|text| !error.contains(text.as_str())) {
        Some(text) => failed(&format!("the error does not say: {text}")),
        None => Ok(()),
    }
}

/// `2026-11-23T09:33:20.123Z info  message`, at level info or warn.
fn is_log_line(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let is_time = words.next().is_some_and(|time| time.len() == 24 && time.contains('T') && time.ends_with('Z'));
    is_time && matches!(words.next(), Some("info" | "warn"))
}

fn has_secret(text: &str) -> bool {
    let root = [ROOT_PASSWORD.to_owned(), encoded(ROOT_PASSWORD)];
    text.to_lowercase().contains(SECRET)
        || text.contains(Minio::SECRET_KEY)
        || root.iter().any(|secret| text.contains(secret))
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_explained_and_changes_nothing() -> Result<(), Failure> {
    let rows = table();
    let world = World::start().await?;
    let (waiting, working): (Vec<_>, Vec<_>) = rows.iter().enumerate().partition(|(_, row)| row.waits);
    let run_one = async |(number, row): (usize, &Row)| {
        let failure = run(&world, number, row).await.err()?;
        Some(format!("\n{number}, {}: mongoferry {}\n{failure}\n", row.name, row.run))
    };
    let (waiting_count, working_count) = (waiting.len(), working.len());
    let (waited, worked) = tokio::join!(
        stream::iter(waiting.into_iter().map(&run_one)).buffer_unordered(waiting_count).collect::<Vec<_>>(),
        stream::iter(working.into_iter().map(&run_one)).buffer_unordered(PARALLEL).collect::<Vec<_>>(),
    );
    let failures: Vec<String> = waited.into_iter().chain(worked).flatten().collect();
    let count = waiting_count + working_count;
    assert!(failures.is_empty(), "{} of {count} rows:\n{}", failures.len(), failures.join("\n"));
    Ok(())
}

#[tokio::test]
async fn bad_input_is_an_object_for_machines() -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let uri = "mongodb://u:Hedgehog@127.0.0.1:1/";
    let ferry = Ferry::new(directory.path(), uri, uri, "machines").set("MONGOFERRY_LOG_FORMAT", "json");
    for (run, says) in
        [("step all --existing replace", "--existing replace"), ("step plan", "`mongoferry step discover")]
    {
        let Ran { code, stdout, stderr } = run_words(&ferry, run).await;
        assert_eq!((code, stdout.as_str(), stderr.lines().count()), (Some(2), "", 1), "{run}: {stderr}");
        let error: serde_json::Value = serde_json::from_str(&stderr)?;
        assert_eq!((&error["kind"], &error["exit_code"]), (&"BadInput".into(), &2.into()), "{run}: {stderr}");
        assert!(
            error["message"].as_str().is_some_and(|text| text.contains(says)) && !has_secret(&stderr),
            "{run}: {stderr}"
        );
    }
    Ok(())
}
