//! Settling what the target refused: which of several things it is, and what is done about it.
//!
//! | refused since | and | then |
//! | --- | --- | --- |
//! | its `_id` is taken | by the same document, byte by byte | it counts as written, wherever that came from |
//! | | in a collection that this job created, by an earlier attempt | brought to what the source has *now* |
//! | | there, by an earlier batch of a scan that gave it twice | the same; it was counted as written already |
//! | | by a foreign document | as `--on-conflict` says |
//! | anything else | | rejected |
//!
//! What is brought to now is read again from the source *after* seeing what the target has, so that an older version
//! never overwrites a newer one.

use super::deliver::{Delivery, Extent, Settlement};
use crate::error::Result;
use crate::model::choice::OnConflict;
use crate::model::counts::Counts;
use crate::model::cursor::Key;
use crate::model::digest::Digest;
use crate::model::empty_timestamp::has_empty_timestamp;
use crate::model::locator::Located;
use crate::model::reject::{Bytes, Cause, Rejected};
use crate::model::work::Progress;
use crate::mongo::documents::Documents;
use crate::mongo::failure::code;
use crate::mongo::read::{self, Found, Versions};
use crate::mongo::upsert;
use crate::mongo::write::{self, Refusal};
use bson::{RawDocument, RawDocumentBuf};
use futures_util::{StreamExt, TryStreamExt, stream};

/// How many documents whose `_id` is taken are looked at side by side.
const LOOKUPS: usize = 32;

/// How many documents that the source has deleted are deleted by one command at most.
const DELETED_AT_ONCE: usize = 1_000;

/// What became of a document that was refused.
enum Settled {
    /// The same is there.
    Equal,
    /// It was brought to what the source has now, which is this.
    Replaced(RawDocumentBuf),
    /// The source has deleted it, and so has this job.
    Deleted,
    /// An earlier batch has written it, and it stays so.
    Again,
    /// An earlier batch has written it in a version that was brought to what the source has now.
    Changed {
        /// What was there.
        before: RawDocumentBuf,
        /// What is there.
        now: RawDocumentBuf,
    },
    /// A foreign document stays in its place.
    Kept,
    /// It took the place of a foreign document, as what the source has now.
    Overwrote(RawDocumentBuf),
    /// Nothing is to be done: the source has deleted it.
    Gone,
    /// It is not there.
    Rejected(Rejected),
}

impl<P: Progress> Delivery<P> {
    /// Settles what was refused of a batch, and counts the batch.
    pub(super) async fn settle(
        &self,
        documents: &Documents,
        extent: &Extent,
        refusals: Vec<Refusal>,
        mut there: Found,
        is_replay: bool,
    ) -> Result<Settlement> {
        let (read, read_bytes) = (documents.len() as u64, documents.size() as u64);
        let digest = self.digests.then(Digest::default);
        let mut counts = Counts { read, read_bytes, digest, ..Counts::default() };
        documents.iter().for_each(|document| counts.wrote(document.as_bytes()));
        let mut rejected = Vec::new();
        there.extend(self.already_there(documents, &refusals, &there).await?);
        let settling: Vec<_> = refusals
            .into_iter()
            .map(|refusal| self.settle_one(documents, extent, refusal, &there, is_replay))
            .collect();
        let settled: Vec<(Settled, &RawDocument)> = stream::iter(settling).buffered(LOOKUPS).try_collect().await?;
        for (settled, document) in settled {
            let document = document.as_bytes();
            match settled {
                Settled::Equal => {
                    counts.replayed += u64::from(is_replay);
                    counts.present += u64::from(!self.created);
                }
                Settled::Replaced(now) => {
                    counts.replayed += 1;
                    counts.replaced += 1;
                    counts.replaced_bytes += now.as_bytes().len() as u64;
                    counts.did_not_write(document);
                    counts.wrote(now.as_bytes());
                }
                Settled::Deleted => {
                    counts.replayed += 1;
                    counts.deleted += 1;
                    counts.did_not_write(document);
                }
                Settled::Again => {
                    counts.again += 1;
                    counts.did_not_write(document);
                }
                Settled::Changed { before, now } => {
                    counts.again += 1;
                    counts.replaced += 1;
                    counts.replaced_bytes += now.as_bytes().len() as u64;
                    counts.wrote(now.as_bytes());
                    counts.did_not_write(document);
                    counts.did_not_write(before.as_bytes());
                }
                Settled::Kept => {
                    counts.kept += 1;
                    counts.did_not_write(document);
                }
                Settled::Overwrote(now) => {
                    counts.overwritten += 1;
                    counts.did_not_write(document);
                    counts.wrote(now.as_bytes());
                }
                Settled::Gone => counts.did_not_write(document),
                Settled::Rejected(one) => {
                    counts.rejected += 1;
                    counts.rejected_bytes += one.size;
                    counts.did_not_write(document);
                    rejected.push(one);
                }
            }
        }
        Ok(Settlement { counts, rejected })
    }

    /// What is to be done about documents that the source has no more: an earlier attempt may have written them.
    ///
    /// # Errors
    /// As [`Delivery::deliver`].
    pub async fn settle_gone(&self, gone: Vec<Key>, settlement: &mut Settlement) -> Result<()> {
        if self.created { self.settle_unread(gone, settlement).await } else { Ok(()) }
    }

    /// Settles what an earlier claim has sent and the source has deleted since: a document that stayed would be one too
    /// many.
    pub(super) async fn settle_unread(&self, unread: Vec<Key>, settlement: &mut Settlement) -> Result<()> {
        let mut unread = unread.as_slice();
        while !unread.is_empty() {
            let sizes = unread.iter().take(DELETED_AT_ONCE).map(|key| key.size() + upsert::OVERHEAD);
            let (these, rest) = unread.split_at(self.target.limits.fitting(sizes));
            unread = rest;
            if self.are_gone(these).await? {
                let located: Vec<Located> = these.iter().map(Located::by_id).collect();
                self.delete(these, &located).await?;
                settlement.counts.deleted += these.len() as u64;
            } else {
                self.settle_each(these, settlement).await?;
            }
        }
        Ok(())
    }

    /// Whether the source has none of these, and their `_id` is all that it takes to delete them: then that is done at once.
    /// A write takes as long as a majority does, whatever is in it.
    async fn are_gone(&self, keys: &[Key]) -> Result<bool> {
        let is_any = || read::is_any(&self.source, &self.from, self.filter.as_ref(), keys, Some(self.not_before));
        Ok(!self.locator.is_sharded() && !self.retried(&self.source, is_any).await?)
    }

    /// Brings each to what the source has now: some of them were deleted and inserted again behind the scan.
    async fn settle_each(&self, keys: &[Key], settlement: &mut Settlement) -> Result<()> {
        let bringing: Vec<_> = keys.iter().map(|key| self.bring_to_now(key)).collect();
        let settled: Vec<Settled> = stream::iter(bringing).buffer_unordered(LOOKUPS).try_collect().await?;
        let counts = &mut settlement.counts;
        for settled in settled {
            match settled {
                Settled::Replaced(now) => {
                    counts.read += 1;
                    counts.read_bytes += now.as_bytes().len() as u64;
                    counts.replaced += 1;
                    counts.replaced_bytes += now.as_bytes().len() as u64;
                    counts.wrote(now.as_bytes());
                }
                Settled::Rejected(one) => {
                    counts.read += 1;
                    counts.read_bytes += one.size;
                    counts.rejected += 1;
                    counts.rejected_bytes += one.size;
                    settlement.rejected.push(one);
                }
                _ => counts.deleted += 1,
            }
        }
        Ok(())
    }

    /// What the target has where many documents were refused: read at once, since one by one takes long.
    async fn already_there(&self, documents: &Documents, refusals: &[Refusal], known: &Found) -> Result<Found> {
        let taken: Vec<Key> = refusals
            .iter()
            .filter(|refusal| refusal.is_id_taken)
            .filter_map(|refusal| Key::of(documents.get(refusal.index)?))
            .filter(|key| !known.contains_key(key))
            .collect();
        if taken.len() > LOOKUPS { self.found(&taken).await } else { Ok(Found::new()) }
    }

    /// Settles one document that was refused, and says which.
    async fn settle_one<'a>(
        &self,
        documents: &'a Documents,
        extent: &Extent,
        refusal: Refusal,
        there: &Found,
        is_replay: bool,
    ) -> Result<(Settled, &'a RawDocument)> {
        let Some(document) = documents.get(refusal.index) else {
            return Err(self.target.side.error(format!("the target refused document {} of fewer", refusal.index)));
        };
        let key = self.key(document)?;
        if !refusal.is_id_taken {
            return Ok((Settled::Rejected(self.rejected(document, key, &refusal)), document));
        }
        // A scan in the order of the disk that met a document of an earlier batch of its own.
        let is_again = self.created && !is_replay && *extent == Extent::Scattered;
        let same = if is_again { Settled::Again } else { Settled::Equal };
        let is_equal = |there: &RawDocumentBuf| there.as_bytes() == document.as_bytes();
        if there.get(&key).is_some_and(|there| there.len() == 1 && is_equal(&there[0])) {
            return Ok((same, document));
        }
        let there = self.versions(&key).await?;
        let mut mine = Versions::new();
        for version in &there {
            if self.is_mine(version)? {
                mine.push(version.clone());
            }
        }
        let settled = match there.first() {
            Some(_) if there.iter().any(is_equal) => {
                // Of an earlier attempt, with another shard key: it would stay beside this one.
                if self.created && is_replay {
                    self.remove_others(&key, &self.located(&key, document)?, &mine).await?;
                }
                same
            }
            Some(first) if is_again => self.bring_again(&key, first.clone()).await?,
            Some(first) if self.created && mine.is_empty() => {
                self.meet_another_shards(document, key, first.clone(), &refusal).await?
            }
            Some(_) if !self.created || !is_replay => self.meet_foreign(document, key, &there, &refusal).await?,
            // By now another shard's lane may have put a document of its own there: nothing to delete.
            None if self.created && self.ownership.is_some() => match self.source_now(&key).await? {
                None => Settled::Gone,
                Some(_) => self.bring_to_now(&key).await?,
            },
            // Deleted since it was in the way, or this job's own.
            _ => self.bring_to_now(&key).await?,
        };
        Ok((settled, document))
    }

    /// A document that is none of this job's has the `_id`.
    async fn meet_foreign(
        &self,
        document: &RawDocument,
        key: Key,
        there: &Versions,
        refusal: &Refusal,
    ) -> Result<Settled> {
        match self.on_conflict {
            OnConflict::Report => Ok(Settled::Rejected(self.rejected(document, key, refusal))),
            OnConflict::Keep => Ok(Settled::Kept),
            OnConflict::Replace => match self.source_now(&key).await? {
                None => Ok(Settled::Gone),
                Some(now) => match self.put(&key, &now, there).await? {
                    None => Ok(Settled::Overwrote(now)),
                    Some(refusal) => Ok(Settled::Rejected(self.rejected(&now, key, &refusal))),
                },
            },
        }
    }

    /// A document that another shard's lane has written has the `_id`.
    async fn meet_another_shards(
        &self,
        document: &RawDocument,
        key: Key,
        there: RawDocumentBuf,
        refusal: &Refusal,
    ) -> Result<Settled> {
        let Some(ownership) = &self.ownership else { return Ok(Settled::Equal) };
        let Some(now) = self.source_now(&key).await? else {
            // Moved to that shard, or deleted since.
            return Ok(Settled::Gone);
        };
        ownership.know_others().await?;
        if self.retried(&self.source, || ownership.others_have(&key)).await? {
            let bytes = Some(Bytes::of(document));
            let twice = Rejected { cause: Cause::Twice, document: bytes, ..self.rejected(document, key, refusal) };
            return Ok(Settled::Rejected(twice));
        }
        // Moved from that shard to this one.
        match self.put(&key, &now, &Versions::from_iter([there.clone()])).await? {
            None => Ok(Settled::Changed { before: there, now }),
            Some(refusal) => Ok(Settled::Rejected(self.rejected(&now, key, &refusal))),
        }
    }

    /// Brings one of our own documents on the target to what the source has now.
    async fn bring_to_now(&self, key: &Key) -> Result<Settled> {
        let mut there = Versions::new();
        if self.locator.is_sharded() {
            let found = self.found(std::slice::from_ref(key)).await?;
            there.extend(self.mine(found)?.into_values().flatten());
        }
        match self.source_now(key).await? {
            None => {
                let located = match self.locator.is_sharded() {
                    true => there.iter().map(|version| self.located(key, version)).collect::<Result<Vec<_>>>()?,
                    false => vec![Located::by_id(key)],
                };
                for located in located {
                    self.delete(std::slice::from_ref(key), &[located]).await?;
                }
                Ok(Settled::Deleted)
            }
            Some(now) => match self.put(key, &now, &there).await? {
                None => Ok(Settled::Replaced(now)),
                Some(refusal) => Ok(Settled::Rejected(self.rejected(&now, self.key(&now)?, &refusal))),
            },
        }
    }

    /// The same for one that an earlier batch has counted. One that the source has deleted by now stays as it was
    /// counted: a stream from the checkpoint deletes it.
    async fn bring_again(&self, key: &Key, before: RawDocumentBuf) -> Result<Settled> {
        match self.source_now(key).await? {
            Some(now) if now != before => match self.put(key, &now, &Versions::from_iter([before.clone()])).await? {
                None => Ok(Settled::Changed { before, now }),
                Some(refusal) => Ok(Settled::Rejected(self.rejected(&now, self.key(&now)?, &refusal))),
            },
            _ => Ok(Settled::Again),
        }
    }

    /// What the source has under this `_id` now, as it is copied; none where that is not this shard's, or not to be copied
    /// any more.
    pub(super) async fn source_now(&self, key: &Key) -> Result<Option<RawDocumentBuf>> {
        let read = || read::document(&self.source, &self.from, self.filter.as_ref(), key, Some(self.not_before));
        match self.retried(&self.source, read).await? {
            Some(now) if self.is_mine(&now)? => Ok(Some(self.as_copied(now))),
            _ => Ok(None),
        }
    }

    /// A document of the source with its DBRefs as they are on the target. Whose it is was asked before: that says its shard
    /// key on the source.
    pub(crate) fn as_copied(&self, document: RawDocumentBuf) -> RawDocumentBuf {
        let renamed = self.dbrefs.as_ref().and_then(|dbrefs| dbrefs.renamed(document.as_bytes()));
        renamed.and_then(|bytes| RawDocumentBuf::from_bytes(bytes).ok()).unwrap_or(document)
    }

    /// How a write finds a document on the target.
    pub(super) fn located(&self, key: &Key, document: &RawDocument) -> Result<Located> {
        self.locator.of(key, document).map_err(|why| {
            self.target.side.error(format!("the document of {} with _id {key:?} has no shard key: {why}", self.to))
        })
    }

    /// Deletes documents that the target is to have no more, each found by its `_id` and whatever else that takes.
    pub(super) async fn delete(&self, keys: &[Key], located: &[Located]) -> Result<()> {
        match self.retried_write(|| write::delete(&self.writers, &self.to, &self.uuid, located)).await? {
            None => Ok(()),
            Some(refusal) => Err(self.target.side.error(format!(
                "{} refused to delete _id {:?}, which the source has no more: {}",
                self.to,
                keys.get(refusal.index),
                refusal.reason
            ))),
        }
    }

    /// Deletes those of the documents with this `_id` that have another shard key than the wanted one: on a sharded target
    /// nothing comes into their place.
    async fn remove_others(&self, key: &Key, wanted: &Located, there: &Versions) -> Result<()> {
        if !self.locator.is_sharded() {
            return Ok(());
        }
        for version in there {
            let located = self.located(key, version)?;
            if located != *wanted {
                self.delete(std::slice::from_ref(key), &[located]).await?;
            }
        }
        Ok(())
    }

    /// Puts a document in the place of those that are there with this `_id`. When it is refused, they may be gone.
    pub(super) async fn put(&self, key: &Key, document: &RawDocument, there: &Versions) -> Result<Option<Refusal>> {
        if let Some(refusal) = self.too_large(0, document) {
            return Ok(Some(refusal));
        }
        let (writers, to, uuid) = (&self.writers, &self.to, self.uuid.as_str());
        let bytes = document.as_bytes();
        let keeps_timestamps = self.target.keeps_empty_timestamps() || !has_empty_timestamp(bytes);
        let located = match self.locator.of(key, document) {
            Ok(located) => located,
            Err(why) => {
                for version in there {
                    self.delete(std::slice::from_ref(key), &[self.located(key, version)?]).await?;
                }
                let code = code::SHARD_KEY_NOT_FOUND;
                return Ok(Some(Refusal { index: 0, code, is_id_taken: false, reason: why.to_string() }));
            }
        };
        self.remove_others(key, &located, there).await?;
        // The same key of another type (1 and 1.0) cannot be changed in place, a timestamp would not stay what it is, and
        // a command that names a large key beside a large document would itself be too large.
        let in_place = Key::of(document).as_ref() == Some(key)
            && keeps_timestamps
            && self.target.limits.fitting([bytes.len(), located.query.as_bytes().len() + upsert::OVERHEAD]) == 2;
        let refused = if in_place {
            self.retried_write(|| write::replace(writers, to, uuid, &located, document)).await?
        } else {
            self.retried_write(|| write::delete(writers, to, uuid, std::slice::from_ref(&located))).await?
        };
        if refused.is_some() {
            return Ok(refused);
        }
        // Deleted just now, or by whoever: a replacement without upsert does nothing then.
        let one: Documents = [document].into_iter().collect();
        let inserted = if keeps_timestamps {
            self.retried_write(|| write::insert(writers, to, uuid, &one, false)).await?
        } else {
            self.retried_write(|| upsert::insert(writers, to, uuid, &self.locator, &one, false)).await?
        };
        Ok(inserted.filter(|refusal| !refusal.is_id_taken))
    }

    fn rejected(&self, document: &RawDocument, id: Key, refusal: &Refusal) -> Rejected {
        let cause = match refusal.code {
            code::DUPLICATE_KEY if refusal.is_id_taken => Cause::Taken,
            code::DUPLICATE_KEY => Cause::Unique,
            _ => Cause::Refused,
        };
        Rejected {
            namespace: self.from.clone(),
            target: self.to.clone(),
            id,
            cause,
            code: refusal.code,
            reason: refusal.reason.clone(),
            size: document.as_bytes().len() as u64,
            document: (cause != Cause::Taken).then(|| Bytes::of(document)),
        }
    }
}
