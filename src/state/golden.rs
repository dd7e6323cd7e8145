//! Every state document as each version wrote it, kept for good: what is stored somewhere must be readable by every later
//! program, and written the same until the version changes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::document::{Document, encode, parse};
use super::pages::{CatalogHead, CatalogPage, InventoryPage, PlanHead, PlanPage, PreparedPage, ProofSegment};
use super::rejects::{RejectedObject, Repair};
use crate::model::balancer::BalancerRecord;
use crate::model::failure::Failure;
use crate::model::job::{CheckpointMap, JobRecord};
use crate::model::lane::LaneProgress;
use crate::model::limit::Control;
use crate::model::oplog_window::OplogBegins;
use crate::model::work::{StepProgress, UnitProgress, Work};
use serde_json::Value;

fn check<T: Document>(name: &str) {
    check_of::<T>(1, name);
}

fn check_of<T: Document>(version: u32, name: &str) {
    let path = format!("{}/tests/golden/state/v{version}/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let body = std::fs::read(path).unwrap();
    let stored: Value = serde_json::from_slice(&body).unwrap();
    let Ok((document, write_id)) = parse::<T>(&body) else { panic!("{name} of version {version} cannot be read") };
    let written: Value = serde_json::from_slice(&encode(&document, &write_id).unwrap()).unwrap();
    assert_eq!(written, stored, "{name}");
}

#[test]
fn documents_of_version_1_are_read_and_written_as_they_are() {
    check::<JobRecord>("job");
    check::<CheckpointMap>("checkpoint");
    check::<BalancerRecord>("balancer");
    check::<BalancerRecord>("balancer-restored");
    check::<CatalogHead>("catalog");
    check::<CatalogPage>("catalog-page");
    check::<PlanHead>("plan");
    check::<PlanPage>("plan-page");
    check::<InventoryPage>("inventory-page");
    check::<PreparedPage>("prepared-page");
    check::<Work<LaneProgress>>("lane");
    check::<Work<LaneProgress>>("lane-open");
    check::<ProofSegment>("proofs");
    check::<RejectedObject>("rejected");
    check::<Repair>("repair");
    check::<Work<StepProgress>>("step");
    check::<Control>("control");
    check::<Control>("control-paused");
    check::<OplogBegins>("oplog-begins");
    check::<Failure>("failure");
    check::<Work<UnitProgress>>("unit");
    check::<Work<UnitProgress>>("unit-open");
}

#[test]
fn a_lane_with_tails_is_a_document_of_version_2() {
    check_of::<Work<LaneProgress>>(2, "lane-tail");
}
