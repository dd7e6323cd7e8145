//! Made-up statuses, for tests of whatever shows one.

use super::{Amounts, JobStatus, NamespaceStatus, Part, Status, StepStatus};
use crate::model::catalog::Ordinal;
use crate::model::counts::Counts;
use crate::model::namespace::Namespace;
use crate::model::speed::Moved;
use crate::model::step::Step;

/// A job that was just begun.
pub fn status() -> Status {
    let step = |step| StepStatus {
        step,
        status: if step == Step::Discover { "running" } else { "pending" }.to_owned(),
        started: None,
        finished: None,
        summary: String::new(),
        collections: None,
        claims: Part { done: 0, total: 0 },
    };
    Status {
        job: "sample".to_owned(),
        id: None,
        status: JobStatus::Running,
        error: None,
        percent: None,
        rate: None,
        eta_seconds: None,
        steps: Step::ALL.map(step).to_vec(),
        documents: Amounts::default(),
        bytes: Amounts::default(),
        namespaces: Vec::new(),
        lanes: Vec::new(),
        builds: Vec::new(),
        control: None.into(),
        findings: Vec::new(),
        notes: Vec::new(),
        checkpoint: None,
        oplog: None,
        saved_by: std::collections::BTreeMap::new(),
    }
}

/// A collection of the database `db` that is planned.
pub fn namespace(collection: &str, estimated_bytes: u64) -> NamespaceStatus {
    NamespaceStatus {
        namespace: Namespace::new("db", collection),
        target: None,
        status: "planned",
        estimated_total: estimated_bytes / 10,
        written: 0,
        rejected: 0,
        estimated_bytes,
        written_bytes: 0,
        percent: Some(0.0),
        partitions: 1,
        finished: 0,
        left: Moved { documents: estimated_bytes / 10, bytes: estimated_bytes },
        ordinal: Ordinal(0),
        counts: Counts::default(),
        index: None,
        verify: None,
    }
}
