//! Connections beside the driver's that documents are read over, kept while nobody reads.

use super::buffers::Buffers;
use super::read_from::ReadFrom;
use super::wire::Connection;
use mongodb::options::ServerAddress;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The connections of a deployment that nobody reads over just now, and the memory that is read into.
#[derive(Default)]
pub struct Readers {
    /// What replies are read into.
    pub buffers: Buffers,
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    /// For whom the member was chosen.
    read_from: ReadFrom,
    address: ServerAddress,
    connection: Connection,
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readers").finish_non_exhaustive()
    }
}

impl Readers {
    /// A connection to a member that was chosen in this way, the one that was used last.
    pub fn take(&self, read_from: &ReadFrom) -> Option<(ServerAddress, Connection)> {
        let mut idle = self.idle();
        let place = idle.iter().rposition(|idle| idle.read_from == *read_from)?;
        let Idle { address, connection, .. } = idle.remove(place);
        Some((address, connection))
    }

    /// Nobody reads over it any more. There are never more of them than there were readers at once.
    pub fn put_back(&self, read_from: &ReadFrom, address: &ServerAddress, connection: Connection) {
        self.idle().push(Idle { read_from: read_from.clone(), address: address.clone(), connection });
    }

    /// Something is wrong with this member: what is kept for it would fail as well, or read from what is no longer the
    /// member that is wanted.
    pub fn forget(&self, address: &ServerAddress) {
        self.idle().retain(|idle| idle.address != *address);
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
