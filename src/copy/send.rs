//! Sending a batch's documents until the target has taken or refused each of them, whatever happens to the connection.
//!
//! A server takes many times longer to refuse a document than to insert one, and when the answer that names what it
//! refused grows larger than a reply may be, it closes the connection and gives none. So after a failure what arrived is
//! looked for before the rest is sent again, in halves when the answer was lost.

use super::deliver::Delivery;
use crate::error::{Error, Result};
use crate::model::cursor::Key;
use crate::model::empty_timestamp::has_empty_timestamp;
use crate::model::work::Progress;
use crate::mongo::deployment::Deployment;
use crate::mongo::documents::Documents;
use crate::mongo::failure::{code, code_of, is_lost_answer, is_transient, is_transient_code};
use crate::mongo::read::{self, Found, Versions};
use crate::mongo::upsert;
use crate::mongo::write::{self, Answer, Refusal};
use bson::RawDocument;
use mongodb::error::Error as DriverError;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::time::Duration;
use tokio_retry::strategy::{ExponentialBackoff, jitter};

/// How often a batch is sent again before the target counts as unavailable: with the waits between, about two minutes,
/// longer than an election.
const ATTEMPTS: usize = 60;

/// What came of sending.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// What the target did not take, by the document's place in the batch.
    pub refusals: Vec<Refusal>,
    /// Whether something was sent twice: then what is there may be this job's own.
    pub is_replay: bool,
}

/// Documents that are to be sent in the same way, by their places in the batch.
struct Queue {
    places: VecDeque<usize>,
    /// By an upsert, since a field is `Timestamp(0, 0)` and the server would replace it.
    as_upserts: bool,
}

impl<P: Progress> Delivery<P> {
    /// Inserts those of a batch that are not `there`, and adds to `there` what turns out to be.
    pub(super) async fn send(&self, batch: &Documents, there: &mut Found) -> Result<Sent> {
        let mut sent = Sent::default();
        let mut waits = waits();
        for mut queue in self.queues(batch, there, &mut sent.refusals) {
            let mut most = usize::MAX;
            while !queue.places.is_empty() {
                let places = self.next(batch, &queue, most);
                self.claim.ensure_may_send().await?;
                let failure = match self.attempt(batch, &places, queue.as_upserts).await {
                    Ok(Answer::Acknowledged(refusals)) => match transient(&refusals) {
                        None => {
                            // In order, nothing after the first one that is refused was looked at.
                            let first = refusals.first().filter(|_| self.in_order);
                            let looked_at = first.map_or(places.len(), |refusal| refusal.index + 1);
                            for refusal in refusals {
                                let index = self.place(&places, &refusal)?;
                                sent.refusals.push(Refusal { index, ..refusal });
                            }
                            queue.places.drain(..looked_at);
                            continue;
                        }
                        Some(reason) => reason,
                    },
                    Ok(Answer::NoMajority(reason)) => reason,
                    Err(error) if places.len() == 1 && is_about_documents(&error) => {
                        let code = code_of(&error).unwrap_or_default();
                        let refusal = Refusal { index: places[0], code, is_id_taken: false, reason: error.to_string() };
                        sent.refusals.push(refusal);
                        queue.places.pop_front();
                        continue;
                    }
                    Err(error) if is_lost_answer(&error) || is_about_documents(&error) => {
                        most = (places.len() / 2).max(1);
                        error.to_string()
                    }
                    Err(error) if is_transient(&error) => error.to_string(),
                    Err(error) => return Err(self.failed(&error)),
                };
                sent.is_replay = true;
                self.pause(&mut waits, &failure).await?;
                there.extend(self.look_for(batch, &places).await?);
                queue.places.retain(|place| match there_already(batch, *place, there) {
                    Some(refusal) => {
                        sent.refusals.push(refusal);
                        false
                    }
                    None => true,
                });
            }
        }
        sent.refusals.sort_by_key(|refusal| refusal.index);
        Ok(sent)
    }

    /// The place in the batch of what the target refused of a command with the documents of these places.
    fn place(&self, places: &[usize], refusal: &Refusal) -> Result<usize> {
        let (index, sent) = (refusal.index, places.len());
        let unknown =
            || self.target.side.error(format!("the target refused document {index} of {sent} of {}", self.to));
        places.get(index).copied().ok_or_else(unknown)
    }

    /// What has to be sent, by the way in which; what is there is refused without asking. Where the order matters, the ways
    /// take turns.
    fn queues(&self, batch: &Documents, there: &Found, refusals: &mut Vec<Refusal>) -> Vec<Queue> {
        let mut queues: Vec<Queue> = Vec::new();
        let keeps_timestamps = self.target.keeps_empty_timestamps();
        for (place, document) in batch.iter().enumerate() {
            if let Some(refusal) = there_already(batch, place, there) {
                refusals.push(refusal);
                continue;
            }
            if let Some(refusal) = self.too_large(place, document) {
                refusals.push(refusal);
                continue;
            }
            let as_upserts = !keeps_timestamps
                && has_empty_timestamp(document.as_bytes())
                // What has no shard key is the server's to refuse.
                && Key::of(document).is_some_and(|key| self.locator.of(&key, document).is_ok());
            let fits = |queue: &&mut Queue| queue.as_upserts == as_upserts;
            let queue = match self.in_order {
                true => queues.last_mut().filter(fits),
                false => queues.iter_mut().find(fits),
            };
            match queue {
                Some(queue) => queue.places.push_back(place),
                None => queues.push(Queue { places: [place].into(), as_upserts }),
            }
        }
        queues
    }

    /// What the target would say of a document that is larger than any may be. It is not asked: it could not read a message
    /// that is much larger, either. No document of the source is; one whose DBRefs have longer names now may be.
    pub(super) fn too_large(&self, index: usize, document: &RawDocument) -> Option<Refusal> {
        let (size, most) = (document.as_bytes().len(), self.target.limits.document);
        let reason = format!("object to insert too large. size in bytes: {size}, max size: {most}");
        let code = code::BSON_OBJECT_TOO_LARGE;
        (self.dbrefs.is_some() && size > most).then_some(Refusal { index, code, is_id_taken: false, reason })
    }

    /// The places of what goes into the next command.
    fn next(&self, batch: &Documents, queue: &Queue, most: usize) -> Vec<usize> {
        let size = |place: &usize| {
            let document = batch.get(*place);
            let size = document.map_or(0, |document| document.as_bytes().len());
            if !queue.as_upserts {
                return size;
            }
            let located = document.and_then(|document| self.locator.of(&Key::of(document)?, document).ok());
            size + upsert::OVERHEAD + located.map_or(0, |located| located.query.as_bytes().len())
        };
        let count = self.target.limits.fitting(queue.places.iter().map(size)).min(most);
        queue.places.iter().take(count).copied().collect()
    }

    async fn attempt(
        &self,
        batch: &Documents,
        places: &[usize],
        as_upserts: bool,
    ) -> std::result::Result<Answer, DriverError> {
        let documents = if places.len() == batch.len() { Cow::Borrowed(batch) } else { Cow::Owned(batch.pick(places)) };
        if as_upserts {
            upsert::insert(&self.writers, &self.to, &self.uuid, &self.locator, &documents, self.in_order).await
        } else {
            write::insert(&self.writers, &self.to, &self.uuid, &documents, self.in_order).await
        }
    }

    /// What the target has of this shard's under the `_id`s of these documents.
    async fn look_for(&self, batch: &Documents, places: &[usize]) -> Result<Found> {
        let keys: Vec<Key> = places.iter().filter_map(|place| Key::of(batch.get(*place)?)).collect();
        self.mine(self.found(&keys).await?)
    }

    /// What the target has under these `_id`s.
    pub(super) async fn found(&self, keys: &[Key]) -> Result<Found> {
        self.retried(&self.target, || read::documents_with(&self.target, &self.to, None, keys, None)).await
    }

    /// What the target has under this `_id`.
    pub(super) async fn versions(&self, key: &Key) -> Result<Versions> {
        // Under another `_id` of the same value, 1.0 for 1, as well.
        Ok(self.found(std::slice::from_ref(key)).await?.into_values().flatten().collect())
    }

    /// Whether the target has this very document.
    ///
    /// # Errors
    /// Unavailable when it does not answer.
    pub async fn is_there(&self, key: &Key, document: &RawDocument) -> Result<bool> {
        Ok(self.versions(key).await?.iter().any(|version| version.as_bytes() == document.as_bytes()))
    }

    /// A write of one document, sent again until it is answered.
    pub(super) async fn retried_write<W>(&self, write: impl Fn() -> W) -> Result<Option<Refusal>>
    where
        W: Future<Output = std::result::Result<Answer, DriverError>>,
    {
        let mut waits = waits();
        loop {
            self.claim.ensure_may_send().await?;
            let failure = match write().await {
                Ok(Answer::Acknowledged(refusals)) => match transient(&refusals) {
                    None => return Ok(refusals.into_iter().next()),
                    Some(reason) => reason,
                },
                Ok(Answer::NoMajority(reason)) => reason,
                Err(error) if is_transient(&error) => error.to_string(),
                Err(error) => return Err(self.failed(&error)),
            };
            self.pause(&mut waits, &failure).await?;
        }
    }

    /// A read, sent again until it is answered.
    pub(super) async fn retried<T, R>(&self, deployment: &Deployment, read: impl Fn() -> R) -> Result<T>
    where
        R: Future<Output = std::result::Result<T, DriverError>>,
    {
        let mut waits = waits();
        loop {
            let error = match read().await {
                Ok(found) => return Ok(found),
                Err(error) => error,
            };
            match waits.next() {
                Some(wait) if is_transient(&error) => tokio::time::sleep(wait).await,
                _ => return Err(deployment.failed(&error).during(format!("looking at what {} has", self.to))),
            }
        }
    }

    async fn pause(&self, waits: &mut impl Iterator<Item = Duration>, failure: &str) -> Result<()> {
        let Some(wait) = waits.next() else {
            return Err(self.target.side.error(format!("writing {} failed again and again: {failure}", self.to)));
        };
        tracing::warn!(namespace = %self.to, "a batch was not acknowledged, sending it again: {failure}");
        tokio::time::sleep(wait).await;
        Ok(())
    }

    fn failed(&self, error: &DriverError) -> Error {
        self.target.failed(error).during(format!("writing {}", self.to))
    }
}

/// What the target would say of a document that it has, none where it has none.
fn there_already(batch: &Documents, place: usize, there: &Found) -> Option<Refusal> {
    if there.is_empty() || !there.contains_key(&Key::of(batch.get(place)?)?) {
        return None;
    }
    Some(Refusal { index: place, code: code::DUPLICATE_KEY, is_id_taken: true, reason: String::new() })
}

pub(super) fn waits() -> impl Iterator<Item = Duration> {
    ExponentialBackoff::from_millis(2).factor(25).max_delay(Duration::from_secs(2)).map(jitter).take(ATTEMPTS)
}

/// A refusal that says nothing about the document: an election came in between.
fn transient(refusals: &[Refusal]) -> Option<String> {
    refusals.iter().find(|refusal| is_transient_code(refusal.code)).map(|refusal| refusal.reason.clone())
}

/// Whether a server does not take a command for what is in one of its documents: nested too deep, broken, or too large.
fn is_about_documents(error: &DriverError) -> bool {
    matches!(code_of(error), Some(code::OVERFLOW | code::INVALID_BSON | code::BSON_OBJECT_TOO_LARGE))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use bson::{RawBsonRef, rawdoc};

    #[test]
    fn what_is_there_is_refused_without_asking() {
        let documents: Documents = (0..5).map(|id| rawdoc! { "_id": id }).collect();
        let key = |id: i32| Key::from_value(RawBsonRef::Int32(id));
        let there: Found = [1, 3].map(|id| (key(id), Versions::from_iter([rawdoc! { "_id": id }]))).into();
        let refused: Vec<usize> = (0..5).filter(|place| there_already(&documents, *place, &there).is_some()).collect();
        assert_eq!(refused, [1, 3]);
        assert!(there_already(&documents, 1, &there).unwrap().is_id_taken);
        assert!(there_already(&documents, 1, &Found::new()).is_none());
    }
}
