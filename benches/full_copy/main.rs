//! The benchmark: how fast a full copy is, beside what the target can insert at most and beside other tools.
//!
//! ```text
//!  settings ─▶ rounds ─┬▶ sets ─▶ loader ──▶ source, and the baseline into the target
//!                      ├▶ start ─▶ measure ▶ each contestant's processes, from the source into the target
//!                      └▶ results ─▶ goals ─▶ report ──▶ stdout, benches/results/*.json
//! ```
//!
//! `make bench` starts it with the binary of a release; docs/benchmarks.md says what is measured, and how.

#![expect(clippy::disallowed_methods, reason = "the benchmark has a clock and an environment of its own")]

#[expect(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/support/cluster.rs"]
mod cluster;
mod contestant;
#[path = "../../tests/support/generated_document.rs"]
mod generated_document;
mod goals;
mod guard;
#[expect(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/support/guarded.rs"]
mod guarded;
mod loader;
mod machine;
mod measure;
#[path = "../../tests/support/replica_set.rs"]
mod replica_set;
mod report;
mod results;
mod rounds;
#[expect(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/support/servers.rs"]
mod servers;
mod sets;
mod settings;
mod start;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use mongodb::Client;
use mongodb::bson::doc;

use contestant::Contestant;
use guard::Guard;
use report::Results;
use rounds::Rounds;
use servers::{Failure, Minio, ReplicaSet, StartOptions};
use settings::Settings;

/// One thread: while something is measured, nothing else runs here.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report::say(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Failure> {
    let settings = Settings::from_environment()?;
    let mut guard = Guard::start()?;
    let (mut contestants, mut missing) = (settings.contestants.clone(), BTreeMap::new());
    let programs = find_programs(&settings, &mut contestants, &mut missing).await;
    let mut results = Results {
        at: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        scale: settings.scale,
        rounds: settings.rounds,
        machine: machine::facts(guard.root(), &programs, mongod_version().await?),
        missing,
        sets: Vec::new(),
        goals: Vec::new(),
    };
    for name in &settings.sets {
        let set = Rounds::prepare(&settings, &programs, &mut guard, *name).await?.run(&contestants).await?;
        results.sets.push(set);
        results.goals = goals::goals(&results.sets);
        // After each set: what was measured is not lost when the rest is interrupted.
        report::write(&results, &settings.results)?;
    }
    report::print(&report::text(&results))?;
    report::say(&format!("kept in {}", report::write(&results, &settings.results)?.display()));
    Ok(())
}

/// Takes those out that cannot run here, with the reason, and finds the programs of the others.
async fn find_programs(
    settings: &Settings,
    contestants: &mut Vec<Contestant>,
    missing: &mut BTreeMap<String, String>,
) -> BTreeMap<String, PathBuf> {
    let mut programs = BTreeMap::new();
    let mut absent = Vec::new();
    for contestant in contestants.iter() {
        for name in contestant.programs() {
            match start::find_program(name, settings.peers.as_deref(), &settings.path) {
                Some(program) => _ = programs.insert((*name).to_owned(), program),
                None => absent.push((*contestant, format!("no `{name}` in BENCH_PEERS or on PATH"))),
            }
        }
        if *contestant == Contestant::Minio
            && settings.sets.iter().any(|set| Contestant::Minio.takes_part_in(*set))
            && let Err(error) = Minio::start().await
        {
            absent.push((*contestant, error.to_string()));
        }
    }
    for (contestant, why) in absent {
        report::say(&format!("{} is left out: {why}", contestant.as_str()));
        contestants.retain(|other| *other != contestant);
        missing.insert(contestant.as_str().to_owned(), why);
    }
    programs
}

async fn mongod_version() -> Result<String, Failure> {
    let server = ReplicaSet::start(StartOptions::default()).await?;
    let client = Client::with_uri_str(server.uri()).await?;
    let information = client.database("admin").run_command(doc! {"buildInfo": 1}).await?;
    Ok(information.get_str("version")?.to_owned())
}
