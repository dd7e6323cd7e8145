//! Cursors over connections of our own: the documents that the driver gives, nothing left open on the server.

use std::time::{Duration, Instant};

use mongodb::Client;
use mongodb::bson::{Document, RawDocumentBuf, doc, rawdoc};
use mongoferry::mongo::deployment::Deployment;

use crate::support::servers::{Failure, ReplicaSet, StartOptions, shared_target};
use crate::support::writing::target as connected;

/// The documents of all replies, ten in each.
async fn read(source: &Deployment, database: &str) -> Result<(Vec<u8>, usize), Failure> {
    let command = rawdoc! { "find": "c", "batchSize": 10, "sort": { "_id": 1 } };
    let mut cursor = source.cursor(database, command, 10).await?;
    let (mut bytes, mut pages) = (Vec::new(), 0);
    while let Some(page) = cursor.next().await? {
        bytes.extend_from_slice(page.documents.bytes());
        pages += 1;
    }
    Ok((bytes, pages))
}

#[tokio::test]
async fn replies_hold_the_bytes_that_the_server_has() -> Result<(), Failure> {
    let set = shared_target().await?;
    let documents: Vec<RawDocumentBuf> = (0..95)
        .map(|id| rawdoc! { "_id": id, "text": "t".repeat(id as usize * 31), "": { "a.b": [1, "two"] } })
        .collect();
    let database = Client::with_uri_str(set.uri()).await?.database("cursors");
    database.collection::<RawDocumentBuf>("c").insert_many(&documents).await?;
    let expected: Vec<u8> = documents.into_iter().flat_map(RawDocumentBuf::into_bytes).collect();

    for (uri, is_ours) in [
        (set.uri(), true),
        (format!("{}&compressors=zstd", set.uri()), true),
        (format!("{}&compressors=snappy", set.uri()), true),
        // Through the driver, which alone knows sockets.
        (set.socket_uri(0), false),
    ] {
        let source = connected(&uri, None).await?;
        assert_eq!(source.connector().is_ok(), is_ours, "{uri}");
        assert_eq!(read(&source, "cursors").await?, (expected.clone(), 10), "{uri}");
    }
    Ok(())
}

#[tokio::test]
async fn a_cursor_that_is_given_up_is_closed_on_the_server() -> Result<(), Failure> {
    let set = ReplicaSet::start(StartOptions { name: "cursors".to_owned(), ..Default::default() }).await?;
    let client = Client::with_uri_str(set.uri()).await?;
    let documents: Vec<Document> = (0..95).map(|id| doc! {"_id": id}).collect();
    client.database("cursors").collection("c").insert_many(documents).await?;
    let source = connected(&set.uri(), None).await?;
    let open = async || {
        let status = client.database("admin").run_command(doc! {"serverStatus": 1}).await?;
        Ok::<_, Failure>(
            status.get_document("metrics")?.get_document("cursor")?.get_document("open")?.get_i64("total")?,
        )
    };

    let mut cursor = source.cursor("cursors", rawdoc! { "find": "c", "batchSize": 10 }, 10).await?;
    assert_eq!(cursor.next().await?.ok_or("no reply")?.documents.len(), 10);
    assert_eq!(open().await?, 1);
    drop(cursor);
    let began = Instant::now();
    while open().await? > 0 {
        assert!(began.elapsed() < Duration::from_secs(30), "it is still open");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // What is kept of it is of use to the next one.
    assert_eq!(read(&source, "cursors").await?.1, 10);
    Ok(())
}

#[tokio::test]
async fn a_connection_that_died_while_nobody_read_is_not_used_twice() -> Result<(), Failure> {
    let mut set = ReplicaSet::start(StartOptions { name: "cursors_restart".to_owned(), ..Default::default() }).await?;
    let client = Client::with_uri_str(set.uri()).await?;
    client.database("cursors").collection("c").insert_one(doc! {"_id": 1}).await?;
    let source = connected(&set.uri(), None).await?;
    // Many of them are kept.
    let connections = 12;
    futures_util::future::try_join_all((0..connections).map(|_| read(&source, "cursors"))).await?;
    set.kill(0)?;
    set.restart(0)?;
    set.primary().await?;
    let mut failures = 0;
    while let Err(error) = read(&source, "cursors").await {
        failures += 1;
        assert!(failures < connections / 2, "each of them fails by itself: {error}");
    }
    assert!(failures > 0, "none of them was kept");
    Ok(())
}
