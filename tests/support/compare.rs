//! Compares two deployments byte by byte: which collections there are, their options, their indexes, and every
//! document. It is written apart from the copier, and shares no code with it, so that the two cannot agree on an error.
//!
//! Both sides must be quiet. Documents are streamed in the order of their `_id`, those of a capped collection in that of their
//! insertion, and merged, so that memory stays small
//! whatever the size. `system.views` and `system.profile` are left out: the first holds names that a rename changes and
//! is compared as the views' options, the second is a log.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt;
use std::ops::Range;

use futures_util::StreamExt;
use mongodb::Client;
use mongodb::bson::{Bson, Document, RawBsonRef, RawDocument, RawDocumentBuf, doc};
use mongodb::raw_batch_cursor::{RawBatch, RawBatchCursor};
use tokio::sync::mpsc;

/// What no copy is made of: the server's own databases, MongoShake's and mongoferry's.
const NEVER_COPIED: [&str; 5] = ["admin", "config", "local", "mongoshake", "mongoferry"];

/// After so many differences in one collection the rest of it is not looked at.
const DIFFERENCES_A_COLLECTION: usize = 5;

/// A document is shown up to this many characters.
const SHOWN_CHARACTERS: usize = 400;

type Failure = Box<dyn Error + Send + Sync>;

/// What is compared with what.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// Pairs `db` → `db2` or `db.collection` → `db2.collection2`; the more specific one wins.
    pub renames: Vec<(String, String)>,
    /// Only these databases of the source, and what they became in the target; all when empty.
    pub only_databases: Vec<String>,
    /// Not these databases, on neither side, unless something that is compared was renamed into them.
    pub without_databases: Vec<String>,
}

impl Scope {
    /// Reads a rename as the command line has it: `from:to`.
    pub fn rename(&mut self, pair: &str) -> Result<(), Failure> {
        let (from, to) = pair.split_once(':').ok_or_else(|| format!("`{pair}` is no rename; write FROM:TO"))?;
        if from.is_empty() || to.is_empty() || from.contains('.') != to.contains('.') {
            return Err(format!("`{pair}` is no rename; write db:db2 or db.a:db2.b").into());
        }
        self.renames.push((from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn covers_source(&self, database: &str) -> bool {
        !NEVER_COPIED.contains(&database)
            && !self.without_databases.iter().any(|name| name == database)
            && (self.only_databases.is_empty() || self.only_databases.iter().any(|name| name == database))
    }

    /// Whether a collection of this target database that has no counterpart is a difference.
    fn covers_target(&self, database: &str) -> bool {
        if NEVER_COPIED.contains(&database) || self.without_databases.iter().any(|name| name == database) {
            return false;
        }
        self.only_databases.is_empty()
            || self.only_databases.iter().any(|name| self.image_of_database(name) == database)
    }

    fn image_of_database<'a>(&'a self, database: &'a str) -> &'a str {
        self.renames.iter().find(|(from, _)| from == database).map_or(database, |(_, to)| to)
    }

    fn image(&self, source: &Namespace) -> Namespace {
        // The buckets of a time series have its name.
        if let Some(series) = source.collection.strip_prefix("system.buckets.") {
            let series = Namespace { database: source.database.clone(), collection: series.to_owned() };
            let Namespace { database, collection } = self.image(&series);
            return Namespace { database, collection: format!("system.buckets.{collection}") };
        }
        let full = source.to_string();
        if let Some((_, to)) = self.renames.iter().find(|(from, _)| *from == full)
            && let Some((database, collection)) = to.split_once('.')
        {
            return Namespace { database: database.to_owned(), collection: collection.to_owned() };
        }
        Namespace {
            database: self.image_of_database(&source.database).to_owned(),
            collection: source.collection.clone(),
        }
    }
}

/// What a comparison found.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Collections and views that are on both sides.
    pub collections: u64,
    /// Documents that are equal.
    pub documents: u64,
    /// The bytes of those documents.
    pub bytes: u64,
    /// One line for each of the first differences; empty when all is equal.
    pub differences: Vec<String>,
}

impl Outcome {
    /// Whether nothing differs.
    pub fn is_equal(&self) -> bool {
        self.differences.is_empty()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_equal() {
            let Outcome { collections, documents, bytes, .. } = self;
            return write!(formatter, "equal: {collections} collections, {documents} documents, {bytes} bytes");
        }
        write!(formatter, "different:")?;
        for difference in &self.differences {
            write!(formatter, "\n  {difference}")?;
        }
        Ok(())
    }
}

/// Compares what `scope` covers, in all respects that a copy keeps.
pub async fn compare(source: &Client, target: &Client, scope: &Scope) -> Result<Outcome, Failure> {
    let (source_entries, target_entries) = tokio::try_join!(list(source), list(target))?;
    let mut outcome = Outcome::default();
    let mut expected = BTreeSet::new();
    for (namespace, entry) in &source_entries {
        if !scope.covers_source(&namespace.database) {
            continue;
        }
        let image = scope.image(namespace);
        match target_entries.get(&image) {
            None => outcome.differences.push(format!("{namespace}: {image} is not in the target")),
            Some(target_entry) => {
                outcome.collections += 1;
                compare_entries(namespace, entry, target_entry, &mut outcome);
                if entry.kind == "collection" && target_entry.kind == "collection" {
                    compare_indexes((source, namespace), (target, &image), &mut outcome).await?;
                    let is_capped = entry.options.contains_key("capped");
                    compare_documents((source, namespace), (target, &image), is_capped, &mut outcome).await?;
                }
            }
        }
        expected.insert(image);
    }
    for namespace in target_entries.keys() {
        if scope.covers_target(&namespace.database) && !expected.contains(namespace) {
            outcome.differences.push(format!("{namespace}: only in the target"));
        }
    }
    Ok(outcome)
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Namespace {
    database: String,
    collection: String,
}

impl fmt::Display for Namespace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.database, self.collection)
    }
}

/// One answer of listCollections, without what is a collection's own (its UUID) or listed elsewhere (its `_id` index).
struct Entry {
    kind: String,
    options: BTreeMap<String, Vec<u8>>,
}

async fn list(client: &Client) -> Result<BTreeMap<Namespace, Entry>, Failure> {
    let mut entries = BTreeMap::new();
    for database in client.list_database_names().await? {
        if NEVER_COPIED.contains(&database.as_str()) {
            continue;
        }
        let mut batches = client.database(&database).list_collections().batch().await?;
        while let Some(batch) = batches.next().await {
            for document in batch?.doc_slices()? {
                let document = document?.as_document().ok_or("listCollections: not a document")?;
                let collection = document.get_str("name")?.to_owned();
                if collection == "system.views" || collection == "system.profile" {
                    continue;
                }
                let kind = document.get_str("type")?.to_owned();
                let options = fields(document.get_document("options")?, &[])?;
                entries.insert(Namespace { database: database.clone(), collection }, Entry { kind, options });
            }
        }
    }
    Ok(entries)
}

/// The fields of a document by name, each as bytes: the order of the options does not matter, the order inside of an
/// option does.
fn fields(document: &RawDocument, without: &[&str]) -> Result<BTreeMap<String, Vec<u8>>, Failure> {
    let mut fields = BTreeMap::new();
    for element in document {
        let (name, value) = element?;
        if !without.contains(&name.as_str()) {
            let mut single = RawDocumentBuf::new();
            single.append(name, value);
            fields.insert(name.as_str().to_owned(), single.into_bytes());
        }
    }
    Ok(fields)
}

fn compare_entries(namespace: &Namespace, source: &Entry, target: &Entry, outcome: &mut Outcome) {
    if source.kind != target.kind {
        outcome
            .differences
            .push(format!("{namespace}: a {} in the source, a {} in the target", source.kind, target.kind));
        return;
    }
    compare_fields(&format!("{namespace}: option"), &source.options, &target.options, outcome);
}

fn compare_fields(
    what: &str,
    source: &BTreeMap<String, Vec<u8>>,
    target: &BTreeMap<String, Vec<u8>>,
    outcome: &mut Outcome,
) {
    let names: BTreeSet<&String> = source.keys().chain(target.keys()).collect();
    for name in names {
        let (source, target) = (source.get(name), target.get(name));
        if source != target {
            let shown = |bytes: Option<&Vec<u8>>| bytes.map_or("nothing".to_owned(), |bytes| show(bytes));
            outcome.differences.push(format!("{what} {name}: source {}, target {}", shown(source), shown(target)));
        }
    }
}

type Indexes = BTreeMap<String, BTreeMap<String, Vec<u8>>>;

async fn compare_indexes(
    (source, source_namespace): (&Client, &Namespace),
    (target, target_namespace): (&Client, &Namespace),
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    let (source, target) =
        tokio::try_join!(list_indexes(source, source_namespace), list_indexes(target, target_namespace))?;
    let names: BTreeSet<&String> = source.keys().chain(target.keys()).collect();
    for name in names {
        match (source.get(name), target.get(name)) {
            (Some(source), Some(target)) => {
                compare_fields(&format!("{source_namespace}: index {name}"), source, target, outcome);
            }
            (Some(_), None) => {
                outcome.differences.push(format!("{source_namespace}: index {name} is not in the target"));
            }
            _ => outcome.differences.push(format!("{source_namespace}: index {name} is only in the target")),
        }
    }
    Ok(())
}

async fn list_indexes(client: &Client, namespace: &Namespace) -> Result<Indexes, Failure> {
    let collection = client.database(&namespace.database).collection::<RawDocumentBuf>(&namespace.collection);
    let mut batches = collection.list_indexes().batch().await?;
    let mut indexes = Indexes::new();
    while let Some(batch) = batches.next().await {
        for document in batch?.doc_slices()? {
            let document = document?.as_document().ok_or("listIndexes: not a document")?;
            // Servers before 4.4 name the namespace in each index, which a rename changes.
            indexes.insert(document.get_str("name")?.to_owned(), fields(document, &["ns"])?);
        }
    }
    Ok(indexes)
}

async fn compare_documents(
    (source, source_namespace): (&Client, &Namespace),
    (target, target_namespace): (&Client, &Namespace),
    is_capped: bool,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    let mut left = Side::open(source, source_namespace, is_capped).await?;
    let mut right = Side::open(target, target_namespace, is_capped).await?;
    let mut found = 0;
    loop {
        left.fill().await?;
        right.fill().await?;
        // Equal documents, the usual case, without a look at what they are.
        while let (Some(source_document), Some(target_document)) = (left.current(), right.current()) {
            if source_document != target_document {
                break;
            }
            outcome.documents += 1;
            outcome.bytes += source_document.len() as u64;
            left.advance();
            right.advance();
        }
        if left.must_fill() || right.must_fill() {
            continue;
        }
        if found == DIFFERENCES_A_COLLECTION {
            outcome.differences.push(format!("{source_namespace}: and perhaps more, not looked at"));
            return Ok(());
        }
        let difference = match (left.current(), right.current()) {
            (None, None) => return Ok(()),
            (Some(only), None) => {
                let difference = format!("not in the target: {}", show(only));
                left.advance();
                difference
            }
            (None, Some(only)) => {
                let difference = format!("only in the target: {}", show(only));
                right.advance();
                difference
            }
            (Some(one), Some(other)) => {
                // Which of the two is ahead would take the server's order of keys and collations; a look whether the
                // other side has it at all does not.
                let counterpart = find(target, target_namespace, one).await?;
                if counterpart.as_ref().is_some_and(|document| document.as_bytes() == other) {
                    let difference = format!("source {}, target {}", show(one), show(other));
                    left.advance();
                    right.advance();
                    difference
                } else if counterpart.is_none() {
                    let difference = format!("not in the target: {}", show(one));
                    left.advance();
                    difference
                } else if find(source, source_namespace, other).await?.is_none() {
                    let difference = format!("only in the target: {}", show(other));
                    right.advance();
                    difference
                } else {
                    outcome.differences.push(format!("{source_namespace}: another order from {} on", show(one)));
                    return Ok(());
                }
            }
        };
        found += 1;
        outcome.differences.push(format!("{source_namespace}: {difference}"));
    }
}

/// The document that has the `_id` of this one.
async fn find(client: &Client, namespace: &Namespace, like: &[u8]) -> Result<Option<RawDocumentBuf>, Failure> {
    let id: Bson = RawDocument::from_bytes(like)?.get("_id")?.ok_or("a document without _id")?.try_into()?;
    let collection = client.database(&namespace.database).collection::<RawDocumentBuf>(&namespace.collection);
    Ok(collection.find_one(doc! {"_id": {"$eq": id}}).await?)
}

fn show(bytes: &[u8]) -> String {
    let parsed = RawDocument::from_bytes(bytes).ok().and_then(|raw| Document::try_from(raw).ok());
    let Some(document) = parsed else {
        return format!("{} bytes that are no document", bytes.len());
    };
    let text = Bson::from(document).into_canonical_extjson().to_string();
    match text.char_indices().nth(SHOWN_CHARACTERS) {
        None => text,
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], bytes.len()),
    }
}

/// A batch as it came, and where its documents lie in it.
struct Batch {
    reply: RawBatch,
    documents: Vec<Range<usize>>,
}

impl Batch {
    fn new(reply: RawBatch) -> Result<Self, Failure> {
        let start = reply.as_raw_document().as_bytes().as_ptr() as usize;
        let mut documents = Vec::new();
        for value in reply.doc_slices()? {
            let RawBsonRef::Document(document) = value? else {
                return Err("a batch with something that is not a document".into());
            };
            let bytes = document.as_bytes();
            let offset = bytes.as_ptr() as usize - start;
            documents.push(offset..offset + bytes.len());
        }
        Ok(Batch { reply, documents })
    }
}

/// One collection, read in its order one batch ahead.
struct Side {
    batches: mpsc::Receiver<Result<Batch, Failure>>,
    batch: Option<Batch>,
    next: usize,
    exhausted: bool,
}

impl Side {
    async fn open(client: &Client, namespace: &Namespace, is_capped: bool) -> Result<Self, Failure> {
        let order = if is_capped {
            doc! {"$natural": 1}
        } else {
            doc! {"_id": 1}
        };
        let collection = client.database(&namespace.database).collection::<RawDocumentBuf>(&namespace.collection);
        let mut cursor: RawBatchCursor = collection
            .find(doc! {})
            .sort(order.clone())
            .hint(mongodb::options::Hint::Keys(order))
            .batch_size(100_000)
            .batch()
            .await?;
        let (sender, batches) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Some(reply) = cursor.next().await {
                let batch = reply.map_err(Failure::from).and_then(Batch::new);
                let failed = batch.is_err();
                if sender.send(batch).await.is_err() || failed {
                    return;
                }
            }
        });
        Ok(Side { batches, batch: None, next: 0, exhausted: false })
    }

    /// Makes `current` tell the next document, if there is one.
    async fn fill(&mut self) -> Result<(), Failure> {
        while self.must_fill() {
            self.batch = self.batches.recv().await.transpose()?;
            self.next = 0;
            self.exhausted = self.batch.is_none();
        }
        Ok(())
    }

    fn must_fill(&self) -> bool {
        !self.exhausted && self.current().is_none()
    }

    fn current(&self) -> Option<&[u8]> {
        let batch = self.batch.as_ref()?;
        let range = batch.documents.get(self.next)?;
        Some(&batch.reply.as_raw_document().as_bytes()[range.clone()])
    }

    fn advance(&mut self) {
        self.next += 1;
    }
}
