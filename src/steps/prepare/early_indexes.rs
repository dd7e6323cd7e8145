//! The indexes that need not wait for the data, with `--create-index background`.

use crate::claim::Claim;
use crate::error::Result;
use crate::model::catalog::CatalogEntry;
use crate::model::index::wanted;
use crate::model::namespace::Namespace;
use crate::model::work::StepProgress;
use crate::mongo::deployment::Deployment;
use crate::mongo::index;
use serde_json::Value;

/// Builds them. What is refused is asked for once more after the data, when it becomes a finding.
///
/// # Errors
/// Those of the target, but for a refusal.
pub async fn build(
    target: &Deployment,
    claim: &Claim<StepProgress>,
    entry: &CatalogEntry,
    (name, uuid): (&Namespace, &str),
) -> Result<()> {
    let early: Vec<Value> =
        wanted(entry).into_iter().filter(|wanted| !wanted.waits_for_data()).map(|wanted| wanted.spec).collect();
    claim.ensure_may_send().await?;
    for index in index::build(target, name, uuid, &early).await? {
        tracing::warn!(namespace = %name, "index {} was refused before the data: {}", index.name, index.reason);
    }
    Ok(())
}
