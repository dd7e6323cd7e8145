//! Metrics of an invocation in CloudWatch's embedded format: a line of the log that CloudWatch makes metrics of
//! (<https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>).
//!
//! By job and step, and over all of them for alarms. Not by shard or lane: each combination is billed as a metric of its
//! own.

use super::event::Call;
use crate::tally::Tallied;
use serde_json::{Value, json};
use std::time::Duration;

/// The namespace of all metrics.
const NAMESPACE: &str = "mongoferry";

/// The line. `seconds` is the time now, since 1970.
pub fn embedded(call: &Call, tallied: &Tallied, is_yield: bool, failed: bool, took: Duration, seconds: u64) -> Value {
    let count = |is: bool| u64::from(is);
    let mut metrics = vec![
        ("Documents", "Count", json!(tallied.documents)),
        ("Bytes", "Bytes", json!(tallied.bytes)),
        ("RejectedDocuments", "Count", json!(tallied.rejected)),
        ("Yields", "Count", json!(count(is_yield))),
        ("Failures", "Count", json!(count(failed))),
        ("DurationMilliseconds", "Milliseconds", json!(u64::try_from(took.as_millis()).unwrap_or(u64::MAX))),
    ];
    if let Some(left) = tallied.oplog_window_left {
        metrics.push(("OplogWindowLeft", "Percent", json!(left)));
    }
    let names: Vec<Value> = metrics.iter().map(|(name, unit, _)| json!({ "Name": name, "Unit": unit })).collect();
    let about = json!({ "Namespace": NAMESPACE, "Dimensions": [["job", "step"], []], "Metrics": names });
    let mut line = json!({
        "_aws": { "Timestamp": seconds * 1_000, "CloudWatchMetrics": [about] },
        "job": call.job.as_str(),
        "step": call.step.name(),
    });
    for (name, _, value) in metrics {
        line[name] = value;
    }
    line
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::model::job_name::JobName;
    use crate::model::step::Step;

    #[test]
    fn metrics_have_the_dimensions_job_and_step_and_no_others() {
        let job = JobName::parse("shop").unwrap();
        let call = Call { step: Step::Copy, job, lane: Some(("rs0".to_owned(), 3)), namespace: None };
        let tallied = Tallied { documents: 1_000, bytes: 300_000, rejected: 2, oplog_window_left: Some(87.5) };
        let line = embedded(&call, &tallied, true, false, Duration::from_millis(4_200), 1_795_687_200);
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/lambda/metrics.json");
        assert_eq!(line, serde_json::from_slice::<Value>(&std::fs::read(path).unwrap()).unwrap());
        let without = embedded(&call, &Tallied::default(), false, false, Duration::ZERO, 0);
        assert!(without.get("OplogWindowLeft").is_none() && !without.to_string().contains("OplogWindowLeft"));
    }
}
