//! The pure parts of the benchmark, tested without servers: a benchmark that starts itself has no place for tests.

#[expect(dead_code, reason = "the benchmark uses more of it")]
mod contestant;
#[path = "../../tests/support/generated_document.rs"]
mod generated_document;
mod goals;
mod results;
#[expect(dead_code, reason = "the benchmark uses more of it")]
mod sets;

use std::collections::{BTreeMap, BTreeSet};

use mongodb::bson::RawDocument;

use contestant::Contestant;
use goals::{Goal, goals};
use results::{Cost, Median, Run, SetResults, median, steps_in_log};
use sets::{BATCH_BYTES, Set, SetName};

/// The `_id`s of a set's first collection, in natural order.
fn ids(set: &Set) -> Vec<String> {
    let mut ids = Vec::new();
    for batch in &set.collections[0].batches {
        let mut rest = batch.bytes.as_slice();
        while !rest.is_empty() {
            let length = u32::from_le_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
            let document = RawDocument::from_bytes(&rest[..length]).expect("what was generated is BSON");
            let id = document.get("_id").expect("what was generated is BSON").expect("each has an _id");
            ids.push(format!("{id:?}"));
            rest = &rest[length..];
        }
    }
    ids
}

#[test]
fn a_set_has_the_documents_that_it_says() {
    for (name, documents, bytes) in [(SetName::A, 2_000, 600_000), (SetName::B, 200, 819_200), (SetName::D, 500, 0)] {
        let set = Set::generate(name, 0.001);
        assert_eq!(set.documents(), documents);
        let ids = ids(&set);
        assert_eq!(ids.len(), documents);
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), documents, "{name:?} has an _id twice");
        assert!(bytes == 0 || set.bytes() == bytes, "{name:?} has {} bytes", set.bytes());
    }
}

#[test]
fn a_batch_is_full_or_the_last_one() {
    let set = Set::generate(SetName::B, 0.02);
    let batches = &set.collections[0].batches;
    assert!(batches.len() > 3);
    for batch in batches {
        assert!(batch.bytes.len() <= BATCH_BYTES);
    }
    for batch in &batches[..batches.len() - 1] {
        assert!(batch.bytes.len() + 4096 > BATCH_BYTES);
    }
    let large = Set::generate(SetName::C, 0.01);
    assert!(large.collections[0].batches.iter().all(|batch| batch.documents == 1));
}

#[test]
fn the_collections_of_e_have_up_to_ten_documents() {
    let set = Set::generate(SetName::E, 0.01);
    assert_eq!(set.collections.len(), 50);
    assert!(set.collections[0].batches.is_empty());
    assert_eq!(set.collections[10].batches[0].documents, 10);
}

#[test]
fn the_median_is_in_the_middle() {
    assert_eq!(median(vec![]), None);
    assert_eq!(median(vec![3.0]), Some(3.0));
    assert_eq!(median(vec![9.0, 1.0, 2.0]), Some(2.0));
    assert_eq!(median(vec![4.0, 1.0]), Some(2.5));
}

#[test]
fn a_run_that_failed_does_not_count() {
    let run = |wall_seconds, failure: Option<&str>| Run {
        contestant: Contestant::Pcsm,
        round: 1,
        cost: Some(Cost { wall_seconds, ..Cost::default() }),
        steps: BTreeMap::new(),
        failure: failure.map(str::to_owned),
    };
    let mut results = empty_set("A");
    results.runs = vec![run(1.0, Some("lost a document")), run(5.0, None), run(7.0, None)];
    results.compute_medians();
    let median = results.median(Contestant::Pcsm).expect("two runs ended well");
    assert_eq!((median.runs, median.cost.wall_seconds, median.wall_range_seconds), (2, 6.0, [5.0, 7.0]));
    assert!(results.median(Contestant::Baseline).is_none());
}

#[test]
fn a_step_ends_with_its_line() {
    let log = "2026-11-23T10:59:33.000Z info  discover: 3 collections
2026-11-23T10:59:33.250Z info  plan: 3 partitions in 1 lanes
2026-11-23T10:59:34.000Z info  copying: 5 of 9 documents
2026-11-23T10:59:35.250Z info  copy: 9 documents read
";
    let expected = [("copy".to_owned(), 2.0), ("plan".to_owned(), 0.25)];
    assert_eq!(steps_in_log(log), BTreeMap::from(expected));
}

/// A set without runs.
fn empty_set(name: &str) -> SetResults {
    SetResults {
        name: name.to_owned(),
        description: String::new(),
        documents: 0,
        bytes: 0,
        collections: 1,
        writers: 1,
        writers_tried: BTreeMap::new(),
        runs: Vec::new(),
        medians: Vec::new(),
    }
}

fn with(name: &str, walls: &[(Contestant, f64)]) -> SetResults {
    let mut set = empty_set(name);
    set.bytes = 2_000_000_000;
    set.medians = walls
        .iter()
        .map(|(contestant, wall_seconds)| Median {
            contestant: *contestant,
            runs: 3,
            cost: Cost {
                wall_seconds: *wall_seconds,
                tool_cpu_seconds: 3.1,
                peak_rss_bytes: Some(64_000_000),
                ..Cost::default()
            },
            wall_range_seconds: [0.0, 0.0],
            steps: BTreeMap::new(),
        })
        .collect();
    set
}

fn find(goals: &[Goal], what: &str) -> (Option<f64>, Option<bool>) {
    let goal = goals.iter().find(|goal| goal.what == what).expect("there is such a goal");
    (goal.value, goal.is_reached)
}

#[test]
fn what_is_reached_and_what_is_not() {
    let walls = [(Contestant::Baseline, 10.0), (Contestant::Mongoferry, 11.0), (Contestant::DumpRestore, 22.0)];
    let goals = goals(&[with("B", &walls)]);
    assert_eq!(find(&goals, "wall ÷ baseline"), (Some(1.1), Some(true)));
    assert_eq!(find(&goals, "faster than dump-restore"), (Some(2.0), Some(false)));
    assert_eq!(find(&goals, "faster than pcsm"), (None, None));
    assert_eq!(find(&goals, "tool CPU per GB"), (Some(1.55), Some(false)));
    assert_eq!(find(&goals, "tool CPU per GB without digests"), (None, None));
    assert_eq!(find(&goals, "peak resident set"), (Some(64.0), Some(true)));
    assert!(goals.iter().all(|goal| goal.set == "B"));
}

#[test]
fn saving_and_collections_are_what_is_above() {
    let a = with("A", &[(Contestant::Mongoferry, 102.0), (Contestant::RareSaves, 100.0), (Contestant::Minio, 103.0)]);
    let mut e = with("E", &[(Contestant::Baseline, 10.0), (Contestant::Mongoferry, 20.0)]);
    e.collections = 5_000;
    let goals = goals(&[a, e]);
    let (folder, _) = find(&goals, "saving in a folder");
    assert!(folder.is_some_and(|percent| (percent - 2.0).abs() < 1e-9));
    assert_eq!(find(&goals, "saving in MinIO").1, Some(false));
    assert_eq!(find(&goals, "a collection, above the baseline"), (Some(2.0), Some(true)));
}
