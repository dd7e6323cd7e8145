//! The lane protocol as a pure model, explored exhaustively: two workers, one document in a store that loses answers,
//! one target, one commit at the end.
//!
//! The model asks the crate itself who may claim ([`mongoferry::model::lease::Lease::claim`]), how long a permit is good
//! ([`mongoferry::model::lease::send_limit`]) and what a cursor covers ([`mongoferry::model::cursor::Tracker`]), so that
//! model and program cannot drift apart there. What the program has to do around that is in [`rules::Rules`]: each rule
//! has a test that breaks it and sees the model checker find out.
//!
//! **The exception.** Between looking at its permit and sending, a worker can be frozen, and a message can be on its way
//! for long. The model has both (`Permit` and `Send` are two steps, batches arrive whenever they like), and the checker
//! finds that what was permitted *before* commit can arrive *after* it. No lease can prevent that, only the target can;
//! what the protocol promises is that nobody who looks at its permit after commit finds it good. What arrives late is
//! content that the source had before commit: harmless as long as nothing else writes to the target, and not beyond.
//!
//! Every run prints its number of states. `cargo test --test protocol -- --nocapture` shows them.

#![expect(clippy::disallowed_methods, clippy::disallowed_macros, reason = "a test says how much it explored")]

mod model;
mod rules;
mod tails;

use model::Lane;
use rules::{Bounds, Rules};
use stateright::{Checker, Expectation, HasDiscoveries, Model};
use std::time::Instant;

const NOTHING_GOES_WRONG: Bounds = Bounds { claims: 2, takeovers: 0, crashes: 0, unanswered: 0, releases: 0 };

const FINISHES: &str = "a worker finishes what a crashed one began";
const TAKEOVER: &str = "a takeover succeeds while the former holder works";
const RECOGNISED: &str = "a success behind a lost answer is recognised";
const RECOGNISED_LATE: &str = "an earlier write that came through late is recognised";
const OVERTAKEN: &str = "the job is committed while an overtaken worker lives";
const ARRIVES_LATE: &str = "what was permitted before commit arrives after it";

/// Explores everything within the bounds; nothing that must always hold is ever broken, and these things do happen.
fn holds(bounds: Bounds, happens: &[&'static str]) {
    let began = Instant::now();
    let checker = Lane { rules: Rules::PROTOCOL, bounds }.checker().spawn_bfs().join();
    println!("{bounds:?}: {} states in {:.1?}", checker.unique_state_count(), began.elapsed());
    for property in checker.model().properties() {
        if property.expectation == Expectation::Always {
            checker.assert_no_discovery(property.name);
        }
    }
    for name in happens {
        checker.assert_any_discovery(name);
    }
}

/// The checker finds a way in which workers that keep to these rules break this property.
fn is_caught(rules: Rules, bounds: Bounds, broken: &'static str) {
    let began = Instant::now();
    let checker = Lane { rules, bounds }.checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let path = checker.assert_any_discovery(broken);
    println!(
        "{broken}: broken after {} states in {:.1?} by {:?}",
        checker.unique_state_count(),
        began.elapsed(),
        path.into_actions()
    );
}

const COVERS: &str = "the cursor covers only what the target has acknowledged";
const FENCED: &str = "an overtaken worker's writes of state have no effect";
const COMMIT: &str = "no permit is good after commit";
const ONE_PERMIT: &str = "without a takeover only one worker has a good permit";

#[test]
fn holds_with_a_crash_and_a_lost_answer() {
    holds(Bounds { crashes: 1, unanswered: 1, ..NOTHING_GOES_WRONG }, &[FINISHES, RECOGNISED, OVERTAKEN, ARRIVES_LATE]);
}

#[test]
fn holds_with_two_lost_answers() {
    holds(Bounds { unanswered: 2, ..NOTHING_GOES_WRONG }, &[RECOGNISED, RECOGNISED_LATE, OVERTAKEN]);
}

#[test]
fn holds_with_a_takeover_and_a_lost_answer() {
    holds(Bounds { takeovers: 1, unanswered: 1, ..NOTHING_GOES_WRONG }, &[TAKEOVER, RECOGNISED, RECOGNISED_LATE]);
}

#[test]
fn holds_with_a_crash_and_a_release() {
    holds(Bounds { claims: 3, crashes: 1, releases: 1, ..NOTHING_GOES_WRONG }, &[FINISHES]);
}

#[test]
fn holds_with_a_takeover_and_a_crash() {
    holds(Bounds { claims: 3, takeovers: 1, crashes: 1, ..NOTHING_GOES_WRONG }, &[TAKEOVER, FINISHES]);
}

#[test]
fn holds_with_a_takeover_and_a_release() {
    holds(Bounds { claims: 3, takeovers: 1, releases: 1, ..NOTHING_GOES_WRONG }, &[TAKEOVER, OVERTAKEN]);
}

#[test]
fn holds_with_a_release_whose_answer_is_lost() {
    holds(Bounds { unanswered: 1, releases: 1, ..NOTHING_GOES_WRONG }, &[RECOGNISED]);
}

#[test]
fn a_save_before_the_acknowledgement_is_caught() {
    let rules = Rules { save_waits_for_acknowledgement: false, ..Rules::PROTOCOL };
    is_caught(rules, NOTHING_GOES_WRONG, COVERS);
}

#[test]
fn a_cursor_over_a_gap_is_caught() {
    let rules = Rules { cursor_stops_at_gaps: false, ..Rules::PROTOCOL };
    is_caught(rules, NOTHING_GOES_WRONG, COVERS);
}

#[test]
fn writing_again_after_a_conflict_without_a_look_at_the_writer_is_caught() {
    let rules = Rules { conflict_looks_at_the_writer: false, ..Rules::PROTOCOL };
    is_caught(rules, NOTHING_GOES_WRONG, FENCED);
}

#[test]
fn sending_without_a_permit_is_caught() {
    let rules = Rules { permit_is_checked: false, ..Rules::PROTOCOL };
    is_caught(rules, NOTHING_GOES_WRONG, ONE_PERMIT);
}

#[test]
fn a_permit_that_is_good_until_the_limit_and_at_it_is_caught() {
    let rules = Rules { permit_ends_before_the_limit: false, ..Rules::PROTOCOL };
    is_caught(rules, Bounds { takeovers: 1, ..NOTHING_GOES_WRONG }, COMMIT);
}

#[test]
fn a_save_that_counts_from_its_answer_is_caught() {
    let rules = Rules { save_counts_from_its_request: false, ..Rules::PROTOCOL };
    is_caught(rules, NOTHING_GOES_WRONG, ONE_PERMIT);
}

#[test]
fn an_own_late_write_that_counts_from_when_it_was_found_is_caught() {
    let rules = Rules { adopting_renews_nothing: false, ..Rules::PROTOCOL };
    is_caught(rules, Bounds { unanswered: 1, ..NOTHING_GOES_WRONG }, ONE_PERMIT);
}

#[test]
fn done_right_after_a_takeover_is_caught() {
    let rules = Rules { takeover_is_outlived: false, ..Rules::PROTOCOL };
    is_caught(rules, Bounds { takeovers: 1, ..NOTHING_GOES_WRONG }, COMMIT);
}

#[test]
fn a_takeover_forgotten_when_the_one_who_took_over_crashes_is_caught() {
    let rules = Rules { outliving_is_inherited: false, ..Rules::PROTOCOL };
    is_caught(rules, Bounds { claims: 3, takeovers: 1, crashes: 1, ..NOTHING_GOES_WRONG }, COMMIT);
}

#[test]
fn a_takeover_forgotten_when_the_one_who_took_over_releases_is_caught() {
    let rules = Rules { outliving_is_inherited: false, ..Rules::PROTOCOL };
    is_caught(rules, Bounds { claims: 3, takeovers: 1, releases: 1, ..NOTHING_GOES_WRONG }, COMMIT);
}

#[test]
fn sending_after_asking_for_release_is_caught() {
    let rules = Rules { release_is_final: false, ..Rules::PROTOCOL };
    is_caught(rules, Bounds { releases: 1, ..NOTHING_GOES_WRONG }, ONE_PERMIT);
}

#[test]
fn a_clock_that_stops_with_the_machine_is_caught() {
    let rules = Rules { clock_runs_while_frozen: false, ..Rules::PROTOCOL };
    is_caught(rules, NOTHING_GOES_WRONG, ONE_PERMIT);
}
