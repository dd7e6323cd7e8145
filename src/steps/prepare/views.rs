//! Making the views, after the collections, each after those that it is based on. A view has no UUID: it is its options,
//! so what has its name is looked at before it is touched.

use super::present::Image;
use crate::claim::Claim;
use crate::crash;
use crate::error::{Error, Result};
use crate::model::catalog::{CollectionKind, Ordinal, option_differences};
use crate::model::finding::Finding;
use crate::model::namespace::Namespace;
use crate::model::view::in_order;
use crate::model::work::StepProgress;
use crate::mongo::catalog::{self, Listed};
use crate::mongo::collection::{self, Creation};
use crate::mongo::deployment::Deployment;
use crate::state::pages::InventoryEntry;
use std::collections::HashMap;

/// Makes those of the wanted that are views, where they are not there yet. What the target refuses is a finding.
///
/// # Errors
/// Bad input when somebody else has put something in the place of one.
pub async fn make(
    target: &Deployment,
    claim: &Claim<StepProgress>,
    wanted: &[Image<'_>],
    before: &[InventoryEntry],
) -> Result<Vec<Finding>> {
    let by_ordinal: HashMap<Ordinal, &Image<'_>> = wanted.iter().map(|wanted| (wanted.entry.ordinal, wanted)).collect();
    let before: HashMap<Ordinal, &InventoryEntry> = before.iter().map(|before| (before.ordinal, before)).collect();
    let views = wanted.iter().map(|wanted| wanted.entry).filter(|entry| entry.kind == CollectionKind::View);
    let mut findings = Vec::new();
    for entry in in_order(views) {
        let (Some(wanted), Some(before)) = (by_ordinal.get(&entry.ordinal), before.get(&entry.ordinal)) else {
            return Err(Error::state(format!("prepare has no inventory of {}; use another --job", entry.namespace)));
        };
        let refused = make_one(target, claim, wanted, before).await?;
        findings.extend(refused.map(|why| Finding {
            namespace: entry.namespace.clone(),
            text: format!("is a view that the target does not take: {why}; accept it, or exclude it in another --job"),
        }));
    }
    Ok(findings)
}

/// The reason when the target refuses it.
async fn make_one(
    target: &Deployment,
    claim: &Claim<StepProgress>,
    wanted: &Image<'_>,
    before: &InventoryEntry,
) -> Result<Option<String>> {
    let name = &wanted.target;
    let is_wanted = |there: &Listed| {
        there.kind == CollectionKind::View && option_differences(&wanted.options, &there.options).is_empty()
    };
    match catalog::collection(target, name).await? {
        Some(there) if is_wanted(&there) => return Ok(None),
        Some(there) if there.uuid.is_some() && there.uuid == before.uuid => {
            let uuid = before.uuid.as_deref().unwrap_or_default();
            claim.ensure_may_send().await?;
            crash::around("drop", collection::drop_by_uuid(target, name, uuid)).await?;
        }
        Some(there) if there.kind == CollectionKind::View && before.view.as_ref() == Some(&there.options) => {
            claim.ensure_may_send().await?;
            crash::around("drop", collection::drop_view(target, name)).await?;
        }
        Some(there) => return Err(anothers(name, &there)),
        None => {}
    }
    claim.ensure_may_send().await?;
    match crash::around("create", collection::create(target, name, &wanted.options)).await? {
        Creation::Created => Ok(None),
        Creation::Refused(why) => Ok(Some(why)),
        Creation::Exists => match catalog::collection(target, name).await? {
            Some(there) if !is_wanted(&there) => Err(anothers(name, &there)),
            _ => Ok(None),
        },
    }
}

fn anothers(name: &Namespace, there: &Listed) -> Error {
    Error::bad_input(format!(
        "somebody else made {name}, a {}, on the target while this job prepared it; drop it, or use another --job",
        there.kind.text()
    ))
}
