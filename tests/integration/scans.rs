//! Reading a collection from a position on.

use mongodb::Client;
use mongodb::bson::{Bson, Document, RawBsonRef, doc};
use mongoferry::connection_string::ConnectionString;
use mongoferry::model::cursor::{Key, Position};
use mongoferry::model::namespace::Namespace;
use mongoferry::model::partition::{Bound, Range};
use mongoferry::mongo::deployment::Deployment;
use mongoferry::mongo::failure::Side;
use mongoferry::mongo::scan::{Next, Scan, Wanted};
use mongoferry::mongo::{Comment, catalog, checkpoint};

use crate::support::servers::{Failure, shared_source};

#[tokio::test]
async fn a_scan_that_goes_on_after_the_largest_id_there_is_ends() -> Result<(), Failure> {
    let uri = shared_source().await?.uri();
    let collection = Client::with_uri_str(&uri).await?.database("scans").collection::<Document>("c");
    collection.insert_many([doc! {"_id": Bson::MinKey}, doc! {"_id": 1}, doc! {"_id": Bson::MaxKey}]).await?;

    let wanted = wanted(&uri, "scans.c").await?;
    let after = |id: RawBsonRef<'_>| Scan::new(wanted.clone(), Position::After(Key::from_value(id)));
    assert!(matches!(after(RawBsonRef::MaxKey).next().await?, Next::End));
    // `min` alone would leave out MaxKey.
    let mut rest = after(RawBsonRef::Int32(1));
    let mut ids = Vec::new();
    while let Next::Documents(batch) = rest.next().await? {
        for document in batch.doc_slices()? {
            let document = document?.as_document().ok_or("no document")?;
            if !rest.is_repeated(document) {
                ids.push(Document::try_from(document)?.remove("_id").ok_or("no _id")?);
            }
        }
    }
    assert_eq!(ids, [Bson::MaxKey]);
    Ok(())
}

#[tokio::test]
async fn what_is_below_the_range_is_not_given_although_nothing_else_is_left() -> Result<(), Failure> {
    let uri = shared_source().await?.uri();
    let collection = Client::with_uri_str(&uri).await?.database("scans").collection::<Document>("below");
    collection.insert_many([doc! {"_id": 1}, doc! {"_id": 2}]).await?;

    // What was above has been deleted since the range was planned, or since the document at this position was read.
    let above = Key::from_value(RawBsonRef::Int32(5));
    let wanted = wanted(&uri, "scans.below").await?;
    let range = Range { lower: Bound::At(above.clone()), upper: Bound::Unbounded };
    let planned = Wanted { range, ..wanted.clone() };
    assert!(matches!(Scan::new(planned.clone(), Position::Start).next().await?, Next::End));
    assert!(matches!(Scan::new(wanted, Position::After(above)).next().await?, Next::End));

    // MaxKey is above every bound.
    collection.insert_one(doc! {"_id": Bson::MaxKey}).await?;
    let mut rest = Scan::new(planned, Position::Start);
    let mut given = 0;
    while let Next::Documents(batch) = rest.next().await? {
        given += batch.doc_slices()?.iter_elements().count();
    }
    assert_eq!(given, 1);
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
    let mut scan = Scan::new(wanted, Position::Start);
    let (mut read, mut there) = (0, 20_000);
    while let Next::Documents(batch) = scan.next().await? {
        read += batch.doc_slices()?.iter_elements().count() as i32;
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
    Ok(Wanted { source, namespace, uuid, range: Range::default(), not_before, document_size: 100 })
}
