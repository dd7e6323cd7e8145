//! What the function answers: whether a step is done, and the few figures that a state machine goes on by. It is kept in
//! the execution's history, so it is small.

use crate::driver::Outcome;
use serde_json::{Value, json};

/// The longest summary. A checkpoint of many shards makes it long, and `status` has all of it.
const LONGEST_SUMMARY: usize = 200;

/// What plan says to the state machine.
pub struct Parts {
    /// How many lanes there are to copy, collections to index, and to verify.
    pub counts: [usize; 3],
    /// How many lanes may be copied at once.
    pub lanes_at_once: u32,
    /// Where in the bucket it is listed what each worker of a step is to do.
    pub items: String,
}

/// The result of a step.
pub fn of(outcome: &Outcome, parts: Option<Parts>) -> Value {
    match (outcome, parts) {
        (Outcome::Yield { reason, .. }, _) => json!({ "status": "yield", "reason": reason }),
        (Outcome::Done { summary, .. }, None) => json!({ "status": "done", "summary": shortened(summary) }),
        (Outcome::Done { summary, .. }, Some(Parts { counts: [lanes, index, verify], lanes_at_once, items })) => {
            json!({
                "status": "done",
                "summary": shortened(summary),
                "lanes": lanes,
                "index": index,
                "verify": verify,
                "max_lanes": lanes_at_once,
                "items": items,
            })
        }
    }
}

/// An execution's end was written down.
pub fn recorded() -> Value {
    json!({ "status": "done" })
}

/// Whether the step is to be called again.
pub fn is_yield(reply: &Value) -> bool {
    reply.get("status").is_some_and(|status| status == "yield")
}

fn shortened(summary: &str) -> String {
    if summary.chars().count() <= LONGEST_SUMMARY {
        return summary.to_owned();
    }
    summary.chars().take(LONGEST_SUMMARY).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::model::step::Step;

    #[test]
    fn replies_are_as_they_were_from_the_beginning() {
        let done = |step, summary: &str| Outcome::Done { step, summary: summary.to_owned() };
        let parts = Parts { counts: [4, 0, 7], lanes_at_once: 16, items: "jobs/shop/items".to_owned() };
        let yielded = Outcome::Yield { step: Step::Copy, reason: "the time budget is used up".to_owned() };
        for (name, reply) in [
            ("reply-plan", of(&done(Step::Plan, "9 partitions in 4 lanes"), Some(parts))),
            ("reply-copy", of(&done(Step::Copy, "this run's lanes are done, lane rs0/1 is not"), None)),
            ("reply-yield", of(&yielded, None)),
            ("reply-execution", recorded()),
        ] {
            let path = format!("{}/tests/golden/lambda/{name}.json", env!("CARGO_MANIFEST_DIR"));
            let golden: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
            assert_eq!(reply, golden, "{name}");
            assert_eq!(is_yield(&reply), name == "reply-yield");
        }
        let long = of(&done(Step::Commit, &"é".repeat(10_000)), None);
        assert!(long.to_string().len() < 500, "{long}");
    }
}
