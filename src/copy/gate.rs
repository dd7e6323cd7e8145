//! A gate that lets in so many at once, and fewer or more when it is told to.

use crate::error::{Error, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Lets in up to a limit; first come, first served.
#[derive(Debug, Clone)]
pub struct Gate {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    places: Arc<Semaphore>,
    limit: AtomicUsize,
    inside: AtomicUsize,
    /// How many of those inside take their place with them when they leave, since the limit became smaller.
    surplus: AtomicUsize,
}

/// Somebody inside; leaves when this is dropped.
#[derive(Debug)]
pub struct Entered {
    gate: Gate,
    place: Option<OwnedSemaphorePermit>,
}

impl Gate {
    /// A gate with this limit.
    pub fn new(limit: usize) -> Self {
        let (places, limit) = (Arc::new(Semaphore::new(limit)), AtomicUsize::new(limit));
        let inner = Inner { places, limit, inside: AtomicUsize::new(0), surplus: AtomicUsize::new(0) };
        Self { inner: Arc::new(inner) }
    }

    /// Waits until there is a place.
    ///
    /// # Errors
    /// Internal: never, since it is not closed.
    pub async fn enter(&self) -> Result<Entered> {
        let place = Arc::clone(&self.inner.places).acquire_owned().await;
        let place = place.map_err(|error| Error::internal(error.to_string()))?;
        self.inner.inside.fetch_add(1, Ordering::Relaxed);
        Ok(Entered { gate: self.clone(), place: Some(place) })
    }

    /// How many are inside.
    pub fn inside(&self) -> usize {
        self.inner.inside.load(Ordering::Relaxed)
    }

    /// How many are let in.
    pub fn limit(&self) -> usize {
        self.inner.limit.load(Ordering::Relaxed)
    }

    /// Lets in so many from now on. Nobody is sent out: where it becomes smaller, those who leave are not replaced. Called
    /// by one task alone.
    pub fn set_limit(&self, limit: usize) {
        let Inner { places, surplus, .. } = &*self.inner;
        let before = self.inner.limit.swap(limit, Ordering::Relaxed);
        for _ in before..limit {
            if !take_one(surplus) {
                places.add_permits(1);
            }
        }
        for _ in limit..before {
            if places.forget_permits(1) == 0 {
                surplus.fetch_add(1, Ordering::AcqRel);
            }
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let Inner { inside, surplus, .. } = &*self.gate.inner;
        inside.fetch_sub(1, Ordering::Relaxed);
        if let Some(place) = self.place.take()
            && take_one(surplus)
        {
            place.forget();
        }
    }
}

fn take_one(count: &AtomicUsize) -> bool {
    count.fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| count.checked_sub(1)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn a_smaller_limit_holds_once_enough_have_left_and_a_larger_one_at_once() -> Result<()> {
        let gate = Gate::new(3);
        let mut inside = vec![gate.enter().await?, gate.enter().await?, gate.enter().await?];
        gate.set_limit(1);
        assert!(gate.enter().now_or_never().is_none());
        inside.truncate(1);
        assert!(gate.enter().now_or_never().is_none(), "one is inside, and one is let in");
        gate.set_limit(2);
        inside.push(gate.enter().await?);
        assert!(gate.enter().now_or_never().is_none());
        assert_eq!((gate.inside(), gate.limit()), (2, 2));
        inside.clear();
        let _two = (gate.enter().await?, gate.enter().await?);
        assert!(gate.enter().now_or_never().is_none());
        Ok(())
    }

    #[tokio::test]
    async fn a_limit_that_goes_down_and_up_again_is_the_same() -> Result<()> {
        let gate = Gate::new(2);
        let inside = (gate.enter().await?, gate.enter().await?);
        gate.set_limit(1);
        gate.set_limit(2);
        drop(inside);
        let _two = (gate.enter().await?, gate.enter().await?);
        assert!(gate.enter().now_or_never().is_none());
        Ok(())
    }
}
