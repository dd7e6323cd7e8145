//! What all lanes of a process share: the memory that documents on their way may take, the readers, the writers, the
//! limits; and the task that finds out how many of them there should be.

use super::gate::Gate;
use crate::limits::Limits;
use crate::model::tuning::{Concurrency, Sample, Tuner};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a process takes that holds no documents: code, connections, buffers of the runtime and of the driver (measured:
/// 17 MB, and some more while TLS and S3 are in use).
const OVERHEAD: u64 = 24 << 20;

/// How many times the bytes of a document on its way are in memory at most: where it was read to, from where it is sent,
/// and a second time where messages are compressed.
const COPIES: u64 = 2;

/// What documents may take at least, whatever is left: one of them goes through in any case.
const LEAST_IN_FLIGHT: u64 = 4 << 20;

/// How large a reply of the source should be. Larger ones bring nothing, and are done again as a whole after a crash.
const LARGEST_REPLY: u64 = 4 << 20;

/// So many replies fit at least into what may be in flight.
const REPLIES_IN_FLIGHT: u64 = 4;

/// How many readers and writers a copy begins with.
const FIRST: Concurrency = Concurrency { readers: 4, writers: 3 };

/// How long a period is after which the number of readers and writers is looked at.
const PERIOD: Duration = Duration::from_secs(1);

/// How often within it is looked whether writers have something to send.
const LOOKS: u32 = 20;

/// What a partition that has ended counts as, in bytes: where they are small, it is their number that tells how fast the
/// copy is.
const WORK_OF_A_PARTITION: u64 = 64 << 10;

/// What all lanes of a process share.
#[derive(Debug, Clone)]
pub struct Flow {
    /// What documents on their way may take.
    pub memory: Memory,
    /// Partitions that are read at once.
    pub readers: Gate,
    /// Batches that are sent at once.
    pub writers: Gate,
    /// What may go when.
    pub limits: Arc<Limits>,
    most: Concurrency,
    work: Arc<AtomicU64>,
}

impl Flow {
    /// For a process that may hold `memory` bytes, and never has more readers and writers than `most`.
    pub fn new(memory: u64, most: Concurrency, limits: Arc<Limits>) -> Self {
        let first = Tuner::new(FIRST, most).now();
        Self {
            memory: Memory::new(memory),
            readers: Gate::new(first.readers),
            writers: Gate::new(first.writers),
            limits,
            most,
            work: Arc::default(),
        }
    }

    /// So many bytes more were acknowledged.
    pub fn acknowledged(&self, bytes: u64) {
        self.work.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A partition has ended.
    pub fn partition_ended(&self) {
        self.work.fetch_add(WORK_OF_A_PARTITION, Ordering::Relaxed);
    }

    /// Looks at each period's end how many readers and writers there should be. Never ends.
    pub async fn tune(&self) -> Infallible {
        let mut tuner = Tuner::new(FIRST, self.most);
        loop {
            let mut idle = 0;
            for _ in 0..LOOKS {
                tokio::time::sleep(PERIOD / LOOKS).await;
                idle += u32::from(self.writers.inside() < self.writers.limit());
            }
            let before = tuner.now();
            let work = self.work.swap(0, Ordering::Relaxed);
            if self.limits.held_back() {
                continue;
            }
            let sample = Sample { work, idle: f64::from(idle) / f64::from(LOOKS) };
            let now = tuner.observe(sample);
            if now != before {
                tracing::debug!(readers = now.readers, writers = now.writers, "concurrency, {sample:?}");
                self.readers.set_limit(now.readers);
                self.writers.set_limit(now.writers);
            }
        }
    }
}

/// What documents on their way may take. Counted in KiB.
#[derive(Debug, Clone)]
pub struct Memory {
    free: Arc<Semaphore>,
    kib: u32,
}

/// A part of the memory, free again when this is dropped.
#[derive(Debug)]
pub struct Reserved {
    permit: OwnedSemaphorePermit,
}

impl Memory {
    fn new(process: u64) -> Self {
        let in_flight = (process.saturating_sub(OVERHEAD) / COPIES).max(LEAST_IN_FLIGHT);
        let kib = kib(in_flight).min(Semaphore::MAX_PERMITS as u64) as u32;
        Self { free: Arc::new(Semaphore::new(kib as usize)), kib }
    }

    /// How large a reply of the source should be, in bytes.
    pub fn reply_bytes(&self) -> u64 {
        (u64::from(self.kib) * 1024 / REPLIES_IN_FLIGHT).min(LARGEST_REPLY)
    }

    /// Waits until so many bytes are free. What is larger than all of it waits until nothing else is on its way.
    pub async fn reserve(&self, bytes: u64) -> Option<Reserved> {
        let wanted = kib(bytes).min(u64::from(self.kib)) as u32;
        let permit = Arc::clone(&self.free).acquire_many_owned(wanted).await.ok()?;
        Some(Reserved { permit })
    }

    /// What was reserved turns out to be so many bytes. What is missing is taken only where it is free: those who wait
    /// for more while they hold some could wait for each other.
    pub fn resize(&self, reserved: &mut Reserved, bytes: u64) {
        let wanted = kib(bytes).min(u64::from(self.kib)) as usize;
        let has = reserved.permit.num_permits();
        if wanted < has {
            drop(reserved.permit.split(has - wanted));
        } else if let Ok(more) = Arc::clone(&self.free).try_acquire_many_owned((wanted - has) as u32) {
            reserved.permit.merge(more);
        }
    }
}

fn kib(bytes: u64) -> u64 {
    bytes.div_ceil(1024).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn memory_is_counted_in_bytes_and_what_is_too_large_goes_alone() {
        let memory = Memory::new(OVERHEAD + COPIES * (8 << 20));
        let mut small = memory.reserve(2 << 20).await;
        assert!(memory.reserve(16 << 20).now_or_never().is_none(), "something else is on its way");
        if let Some(small) = &mut small {
            memory.resize(small, 6 << 20);
        }
        assert!(memory.reserve(3 << 20).now_or_never().is_none());
        assert!(memory.reserve(2 << 20).now_or_never().is_some());
        drop(small);
        assert!(memory.reserve(16 << 20).now_or_never().is_some());
        assert_eq!(memory.reply_bytes(), 2 << 20);
    }
}
