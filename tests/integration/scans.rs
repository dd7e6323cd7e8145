//! Reading a collection from a position on.

use mongodb::Client;
use mongodb::bson::{Bson, Document, RawBsonRef, doc};
use mongoferry::connection_string::ConnectionString;
use mongoferry::model::cursor::{Key, Position};
use mongoferry::model::namespace::Namespace;
use mongoferry::mongo::deployment::Deployment;
use mongoferry::mongo::failure::Side;
use mongoferry::mongo::read::{Next, Scan};
use mongoferry::mongo::{Comment, catalog, checkpoint};

use crate::support::servers::{Failure, shared_source};

#[tokio::test]
async fn a_scan_that_goes_on_after_the_largest_id_there_is_ends() -> Result<(), Failure> {
    let uri = shared_source().await?.uri();
    let collection = Client::with_uri_str(&uri).await?.database("scans").collection::<Document>("c");
    collection.insert_many([doc! {"_id": Bson::MinKey}, doc! {"_id": 1}, doc! {"_id": Bson::MaxKey}]).await?;

    let uri = ConnectionString::parse(&uri)?;
    let source = Deployment::connect(Side::Source, &uri, None, "scans", Comment("scans".to_owned())).await?;
    let namespace = Namespace::parse("scans.c")?;
    let uuid = catalog::collection(&source, &namespace).await?.and_then(|listed| listed.uuid).ok_or("no UUID")?;
    let not_before = checkpoint::capture(&source).await?.majority;
    let after = |id: RawBsonRef<'_>| {
        let position = Position::After(Key::from_value(id));
        Scan::new(source.clone(), namespace.clone(), uuid.clone(), position, not_before)
    };
    assert!(matches!(after(RawBsonRef::MaxKey).next().await?, Next::End));
    assert!(matches!(after(RawBsonRef::MinKey).next().await?, Next::Documents(_)));
    Ok(())
}
