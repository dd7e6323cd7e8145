//! A small router for tests: what clients may take for a mongos of a [`Cluster`].
//!
//! It listens on a port, speaks OP_MSG, and does what a mongos does with the commands that a copy sends: reads the chunk
//! map from the config server, sends each part of a command to the shard that it is for, with the versions by which the
//! shards notice that a map is stale, and merges what they answer. docs/testing.md says what it is not.
//!
//! ```text
//!  client ─▶ message ─▶ session ─┬▶ read, cursor, pipeline ─┐
//!                                ├▶ write, target, shard_key ├▶ route ─▶ upstream ─▶ config server, shards
//!                                └▶ admin, ddl ──────────────┘
//! ```
//!
//! Nothing here is asynchronous: a client has a thread, so that a router serves whatever a test's own runtime does. It
//! uses nothing of mongoferry but pure parts of its model.

mod admin;
mod answer;
mod cursor;
mod ddl;
mod message;
mod pipeline;
mod raw;
mod read;
mod route;
mod session;
mod shard_key;
mod target;
mod upstream;
mod write;

use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::cluster::Cluster;
use super::servers::Failure;
use session::Session;

/// A running router. It ends, and its clients lose their connections, when it is dropped.
#[derive(Debug)]
pub struct Router {
    port: u16,
    shared: Arc<Shared>,
}

/// What all clients of a router have in common.
#[derive(Debug, Default)]
pub struct Shared {
    config: String,
    clock: Arc<upstream::Clock>,
    routes: route::Routes,
    cursors: cursor::Cursors,
    is_over: AtomicBool,
    clients: Mutex<Vec<TcpStream>>,
}

impl Router {
    /// Starts one for a cluster without users.
    pub fn start(cluster: &Cluster) -> Result<Self, Failure> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared { config: cluster.config_set.seeds(), ..Default::default() });
        let for_clients = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if for_clients.is_over.load(Ordering::Relaxed) {
                    return;
                }
                // A client that could not be taken notices it.
                if let Ok(stream) = stream {
                    let _ = Router::serve(&for_clients, stream);
                }
            }
        });
        Ok(Router { port, shared })
    }

    fn serve(shared: &Arc<Shared>, stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        shared.clients().push(stream.try_clone()?);
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            let _ = Session::new(shared).serve(&stream);
            // Whatever ended it, the client is to see that: another handle of the connection is still open.
            let _ = stream.shutdown(Shutdown::Both);
        });
        Ok(())
    }

    /// Its connection string, that of a mongos.
    pub fn uri(&self) -> String {
        format!("mongodb://127.0.0.1:{}/", self.port)
    }
}

impl Shared {
    fn clients(&self) -> std::sync::MutexGuard<'_, Vec<TcpStream>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        // Wakes the thread that waits for clients.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        for client in self.shared.clients().drain(..) {
            let _ = client.shutdown(Shutdown::Both);
        }
    }
}
