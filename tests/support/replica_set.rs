//! Makes mongod processes that listen on this machine a replica set.

use std::error::Error;
use std::time::{Duration, Instant};

use mongodb::Client;
use mongodb::bson::{Bson, Document, doc};

/// A set that has no primary after this long has no prospect of one.
const PRIMARY_WITHIN: Duration = Duration::from_secs(60);

/// `AlreadyInitialized`: somebody was here before, which is as good.
const ALREADY_INITIALIZED: i32 = 23;

/// The connection string of one member alone, whatever its role.
pub fn direct_uri(port: u16) -> String {
    format!("mongodb://127.0.0.1:{port}/?directConnection=true&serverSelectionTimeoutMS=30000")
}

/// Initiates the replica set `name` with a member on each port, the first preferred, and waits until one of them is
/// primary and, with several members, until the others are secondaries. Returns the port of the primary.
pub async fn initiate(name: &str, ports: &[u16]) -> Result<u16, Box<dyn Error + Send + Sync>> {
    let first = *ports.first().ok_or("a replica set needs a port")?;
    let members: Vec<Bson> = ports
        .iter()
        .enumerate()
        .map(|(index, port)| {
            let priority = if index == 0 { 2 } else { 1 };
            Bson::from(doc! {"_id": index as i32, "host": format!("127.0.0.1:{port}"), "priority": priority})
        })
        .collect();
    // Short timeouts, so that a first election and a failover take seconds.
    let configuration = doc! {
        "_id": name,
        "members": members,
        "settings": {"electionTimeoutMillis": 2000, "heartbeatIntervalMillis": 500},
    };
    let client = Client::with_uri_str(direct_uri(first)).await?;
    if let Err(error) = client.database("admin").run_command(doc! {"replSetInitiate": configuration}).await {
        let code = match &*error.kind {
            mongodb::error::ErrorKind::Command(command) => command.code,
            _ => 0,
        };
        if code != ALREADY_INITIALIZED {
            return Err(error.into());
        }
    }
    wait_for_members(ports).await
}

/// Waits until one of the members that listen on these ports is primary and all others are secondaries. Returns the
/// port of the primary. It asks nothing that needs a password.
pub async fn wait_for_members(ports: &[u16]) -> Result<u16, Box<dyn Error + Send + Sync>> {
    let mut clients = Vec::new();
    for port in ports {
        clients.push((*port, Client::with_uri_str(direct_uri(*port)).await?));
    }
    let started = Instant::now();
    loop {
        let mut primary = None;
        let mut ready = 0;
        for (port, client) in &clients {
            let hello: Document = client.database("admin").run_command(doc! {"hello": 1}).await?;
            if hello.get_bool("isWritablePrimary").unwrap_or(false) {
                primary = Some(*port);
                ready += 1;
            } else if hello.get_bool("secondary").unwrap_or(false) {
                ready += 1;
            }
        }
        if let Some(port) = primary
            && ready == clients.len()
        {
            return Ok(port);
        }
        if started.elapsed() > PRIMARY_WITHIN {
            return Err(format!("no primary on the ports {ports:?} after {PRIMARY_WITHIN:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
