//! Memory that replies are read into, used again and again.
//!
//! A reply is some megabytes. Memory fresh from the system for each of them costs as much as reading does: page after
//! page is first cleared and then written (measured: a fifth of the process's time).

use std::sync::{Arc, Mutex, PoisonError};

/// What lies ready at most, in bytes: a few replies.
const MOST_READY: usize = 16 << 20;

/// Smaller ones are not worth keeping.
const LEAST: usize = 64 << 10;

/// Buffers that lie ready. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Buffers(Arc<Mutex<Vec<Vec<u8>>>>);

impl Buffers {
    /// An empty buffer that has room for so many bytes: the smallest that lies ready, or a new one.
    pub fn take(&self, size: usize) -> Vec<u8> {
        let mut ready = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Sorted by size.
        let place = ready.partition_point(|buffer| buffer.capacity() < size);
        if place < ready.len() { ready.remove(place) } else { Vec::with_capacity(size) }
    }

    /// Puts a buffer back. The smallest go when there are too many.
    pub fn put_back(&self, mut buffer: Vec<u8>) {
        let size = buffer.capacity();
        if !(LEAST..=MOST_READY).contains(&size) {
            return;
        }
        buffer.clear();
        let mut ready = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = ready.partition_point(|other| other.capacity() < size);
        ready.insert(place, buffer);
        let mut all: usize = ready.iter().map(Vec::capacity).sum();
        while all > MOST_READY {
            all -= ready.remove(0).capacity();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_where_it_is_large_enough() {
        let buffers = Buffers::default();
        let mut used = buffers.take(1 << 20);
        used.push(1);
        buffers.put_back(used);
        assert_eq!(buffers.take(2 << 20).capacity(), 2 << 20, "it is too small");
        let again = buffers.take(1 << 19);
        assert_eq!((again.capacity(), again.len()), (1 << 20, 0));
        assert_eq!(buffers.take(1 << 19).capacity(), 1 << 19, "it is taken");
    }

    #[test]
    fn what_lies_ready_is_bounded() {
        let buffers = Buffers::default();
        (0..40).for_each(|_| buffers.put_back(Vec::with_capacity(1 << 20)));
        buffers.put_back(Vec::with_capacity(8 << 20));
        buffers.put_back(Vec::with_capacity(MOST_READY + 1));
        buffers.put_back(Vec::with_capacity(10));
        let ready = buffers.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sizes: Vec<usize> = ready.iter().map(Vec::capacity).collect();
        assert_eq!(sizes, [vec![1 << 20; 8], vec![8 << 20]].concat());
    }
}
