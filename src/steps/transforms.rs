//! What is not copied as it is: filters of documents, looked at before anything is changed (whether each is about a collection
//! that is copied, of a kind whose documents can be asked for, and whether the source takes it as a query), and DBRefs.

use crate::config::file::FILTERS;
use crate::context::{Context, Servers};
use crate::error::{Error, Result};
use crate::model::catalog::{CatalogEntry, CollectionKind};
use crate::model::finding::Note;
use crate::model::job::Selection;
use crate::mongo::document_filter;

/// Refuses filters that cannot be meant.
///
/// # Errors
/// Bad input that names the collection and, where it was asked, the server's reason.
pub async fn check(context: &Context, servers: &Servers, entries: &[CatalogEntry]) -> Result<()> {
    for namespace in context.settings.filters.keys() {
        if !entries.iter().any(|entry| entry.namespace == *namespace) {
            return Err(Error::bad_input(format!(
                "`{namespace}` in [{FILTERS}] names nothing that is copied; correct it, --include or --exclude"
            )));
        }
    }
    for entry in entries {
        let (namespace, Some(filter)) = (&entry.namespace, &entry.filter) else { continue };
        let kind = entry.kind.text();
        match entry.kind {
            CollectionKind::Collection | CollectionKind::Capped => {}
            CollectionKind::View => {
                return Err(Error::bad_input(format!(
                    "`{namespace}` in [{FILTERS}] is a {kind}, which has no documents; leave it out there, and filter what it is based on"
                )));
            }
            CollectionKind::TimeSeries | CollectionKind::Viewless => {
                return Err(Error::bad_input(format!(
                    "`{namespace}` in [{FILTERS}] is a {kind}, whose documents are buckets of many measurements and are copied whole; leave it out there, and delete on the target what is too much"
                )));
            }
        }
        let mut homes = Vec::new();
        for part in &entry.parts {
            homes.push(&servers.source.shard(&part.shard)?.deployment);
        }
        if homes.is_empty() {
            homes.push(servers.source.home(entry)?);
        }
        for home in homes {
            if let Some(why) = document_filter::refused(home, &entry.documents_in(), filter, entry.order).await? {
                return Err(Error::bad_input(format!(
                    "the source does not take the filter {filter} of `{namespace}` in [{FILTERS}] as a query: {why}; correct it, or leave it out"
                )));
            }
        }
    }
    Ok(())
}

/// What is to be known of collections that are copied in part, or whose DBRefs do not follow.
pub fn notes(entries: &[CatalogEntry], selection: &Selection) -> Vec<Note> {
    let follow = selection.rename_dbrefs && !selection.renames.is_empty();
    let mut notes = Vec::new();
    for entry in entries {
        let mut note = |text| notes.push(Note { namespace: entry.namespace.clone(), text });
        if let Some(filter) = &entry.filter {
            note(format!("is copied in part: what matches {filter}"));
        }
        if follow && entry.kind == CollectionKind::TimeSeries {
            note(
                "is a time series: its buckets are copied as they are, and DBRefs in them do not follow renames".into(),
            );
        }
    }
    notes
}
