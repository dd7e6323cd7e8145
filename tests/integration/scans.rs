//! Reading a collection from a position on.

use mongodb::Client;
use mongodb::bson::{Bson, Document, RawBsonRef, doc};
use mongoferry::connection_string::ConnectionString;
use mongoferry::model::cursor::{Key, Position};
use mongoferry::model::namespace::Namespace;
use mongoferry::model::partition::{Bound, Range};
use mongoferry::model::record::RecordPosition;
use mongoferry::mongo::deployment::Deployment;
use mongoferry::mongo::failure::Side;
use mongoferry::mongo::scan::by_id::ById;
use mongoferry::mongo::scan::natural::{self, Natural};
use mongoferry::mongo::scan::{Lost, Next, Reply, Wanted};
use mongoferry::mongo::{Comment, catalog, checkpoint};

use crate::support::servers::{Failure, shared_source};

#[tokio::test]
async fn a_scan_that_goes_on_after_the_largest_id_there_is_ends() -> Result<(), Failure> {
    let uri = shared_source().await?.uri();
    let collection = Client::with_uri_str(&uri).await?.database("scans").collection::<Document>("c");
    collection.insert_many([doc! {"_id": Bson::MinKey}, doc! {"_id": 1}, doc! {"_id": Bson::MaxKey}]).await?;

    let wanted = wanted(&uri, "scans.c").await?;
    let after = |id: RawBsonRef<'_>| ById::new(wanted.clone(), Position::After(Key::from_value(id)));
    assert!(matches!(after(RawBsonRef::MaxKey).next().await?, Next::End));
    // `min` alone would leave out MaxKey.
    let mut rest = after(RawBsonRef::Int32(1));
    let mut ids = Vec::new();
    while let Next::Documents(reply) = rest.next().await? {
        ids.extend(ids_of(&reply)?);
    }
    assert_eq!(ids, [Bson::MaxKey]);
    Ok(())
}

/// The `_id`s of what a reply gives for the first time.
fn ids_of(reply: &Reply) -> Result<Vec<Bson>, Failure> {
    let mut ids = Vec::new();
    for document in reply.documents.iter() {
        ids.push(Document::try_from(document)?.remove("_id").ok_or("no _id")?);
    }
    Ok(ids)
}

#[tokio::test]
async fn a_range_above_all_documents_gives_none_of_those_below_it() -> Result<(), Failure> {
    let uri = shared_source().await?.uri();
    let collection = Client::with_uri_str(&uri).await?.database("scans").collection::<Document>("below");
    collection.insert_many([doc! {"_id": 1}, doc! {"_id": 2}]).await?;
    let mut wanted = wanted(&uri, "scans.below").await?;
    // Whether it begins there or has come that far: what is above was deleted since.
    let nine = Key::from_value(RawBsonRef::Int32(9));
    let read = Position::After(nine.clone());
    assert_eq!(all_ids(ById::new(wanted.clone(), read)).await?, []);
    wanted.range.lower = Bound::At(nine);
    assert_eq!(all_ids(ById::new(wanted.clone(), Position::Start)).await?, []);
    // What is there is given, MaxKey too.
    collection.insert_many([doc! {"_id": 9}, doc! {"_id": Bson::MaxKey}]).await?;
    wanted.not_before = checkpoint::capture(&wanted.source).await?.majority;
    assert_eq!(all_ids(ById::new(wanted, Position::Start)).await?, [Bson::Int32(9), Bson::MaxKey]);
    Ok(())
}

async fn all_ids(mut scan: ById) -> Result<Vec<Bson>, Failure> {
    let mut ids = Vec::new();
    while let Next::Documents(reply) = scan.next().await? {
        ids.extend(ids_of(&reply)?);
    }
    Ok(ids)
}

/// A collection of so many numbered documents, and a scan of it in the order of the disk that gives 100 a reply.
async fn on_disk(name: &str, count: i32) -> Result<(Client, Wanted, natural::Natural), Failure> {
    let uri = shared_source().await?.uri();
    let client = Client::with_uri_str(&uri).await?;
    let collection = client.database("scans").collection::<Document>(name);
    collection.insert_many((0..count).map(|id| doc! {"_id": (id * 7919) % count, "number": id})).await?;
    let mut wanted = wanted(&uri, &format!("scans.{name}")).await?;
    wanted.document_size = wanted.reply_bytes / 100;
    let scan = natural(&wanted, None).await?;
    Ok((client, wanted, scan))
}

async fn natural(wanted: &Wanted, after: Option<RecordPosition>) -> Result<Natural, Failure> {
    let node = natural::node(&wanted.source).await?.ok_or("the source does not tell its node")?;
    Ok(Natural::new(wanted.clone(), node, after))
}

async fn documents(scan: &mut Natural) -> Result<Reply, Failure> {
    match scan.next().await? {
        Next::Documents(reply) => Ok(reply),
        other => Err(format!("no documents: {other:?}").into()),
    }
}

#[tokio::test]
async fn a_scan_of_the_disk_goes_on_behind_a_record_and_not_behind_a_deleted_one() -> Result<(), Failure> {
    let (client, wanted, mut scan) = on_disk("records", 1_000).await?;
    let mut first = ids_of(&documents(&mut scan).await?)?;
    assert_eq!(first.len(), 100);
    let reply = documents(&mut scan).await?;
    first.extend(ids_of(&reply)?);
    let record = reply.position.record().cloned().ok_or("no record")?;

    let mut rest = natural(&wanted, Some(record.clone())).await?;
    while let Next::Documents(reply) = rest.next().await? {
        first.extend(ids_of(&reply)?);
    }
    let mut sorted: Vec<i32> = first.iter().filter_map(Bson::as_i32).collect();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..1_000).collect::<Vec<_>>());

    client.database("scans").collection::<Document>("records").delete_one(doc! {"number": 199}).await?;
    let lost = natural(&wanted, Some(record)).await?.next().await?;
    assert!(matches!(lost, Next::Lost(Lost::Record(_))), "{lost:?}");
    Ok(())
}

#[tokio::test]
async fn a_scan_of_the_disk_does_not_go_on_where_the_node_has_other_data() -> Result<(), Failure> {
    let (_, wanted, mut scan) = on_disk("resynced", 1_000).await?;
    let mut record = documents(&mut scan).await?.position.record().cloned().ok_or("no record")?;
    record.node.initial_sync_id = "00".repeat(16);
    let lost = Natural::new(wanted, record.node.clone(), Some(record)).next().await?;
    assert!(matches!(lost, Next::Lost(Lost::Node(_))), "{lost:?}");
    Ok(())
}

#[tokio::test]
async fn a_scan_of_the_disk_ends_although_documents_are_inserted_behind_it_without_pause() -> Result<(), Failure> {
    let (client, _, mut scan) = on_disk("growing_disk", 1_000).await?;
    let collection = client.database("scans").collection::<Document>("growing_disk");
    let (mut read, mut there) = (0, 1_000);
    while let Next::Documents(reply) = scan.next().await? {
        read += ids_of(&reply)?.len();
        collection.insert_many((there..there + 200).map(|id| doc! {"_id": id})).await?;
        there += 200;
        assert!(read < 3_000, "it has read {read} documents of 1000 and does not end");
    }
    assert!(read >= 1_000, "{read}");
    Ok(())
}

#[tokio::test]
async fn a_scan_ends_although_documents_are_inserted_behind_it_without_pause() -> Result<(), Failure> {
    let uri = shared_source().await?.uri();
    let client = Client::with_uri_str(&uri).await?;
    let collection = client.database("scans").collection::<Document>("growing");
    let insert = async |ids: std::ops::Range<i32>| {
        collection.insert_many(ids.map(|id| doc! {"_id": id, "text": "x".repeat(100)})).await.map(|_| ())
    };
    insert(0..20_000).await?;
    let wanted = wanted(&uri, "scans.growing").await?;
    let mut scan = ById::new(wanted, Position::Start);
    let (mut read, mut there) = (0, 20_000);
    while let Next::Documents(reply) = scan.next().await? {
        read += ids_of(&reply)?.len() as i32;
        // More than a reply holds: a scan that read to the end of what there is now would never be there.
        insert(there..there + 6_000).await?;
        there += 6_000;
        assert!(read < 60_000, "it has read {read} documents of 20000 and does not end");
    }
    assert!(read >= 20_000, "{read}");
    Ok(())
}

async fn wanted(uri: &str, namespace: &str) -> Result<Wanted, Failure> {
    let uri = ConnectionString::parse(uri)?;
    let source = Deployment::connect(Side::Source, &uri, None, "scans", Comment("scans".to_owned())).await?;
    let namespace = Namespace::parse(namespace)?;
    let uuid = catalog::collection(&source, &namespace).await?.and_then(|listed| listed.uuid).ok_or("no UUID")?;
    let not_before = checkpoint::capture(&source).await?.majority;
    Ok(Wanted {
        source,
        namespace,
        uuid,
        range: Range::default(),
        filter: None,
        not_before,
        document_size: 100,
        reply_bytes: 4 << 20,
    })
}
