//! Collections that are cut into ranges, whatever their `_id`s are.

use std::collections::BTreeMap;
use std::time::Duration;

use mongodb::Client;
use mongodb::bson::{Document, RawBson, RawDocumentBuf, doc, rawdoc};
use mongoferry::connection_string::ConnectionString;
use mongoferry::model::cursor::{Key, Position};
use mongoferry::model::namespace::Namespace;
use mongoferry::model::partition::ranges;
use mongoferry::mongo::deployment::Deployment;
use mongoferry::mongo::failure::Side;
use mongoferry::mongo::scan::by_id::ById;
use mongoferry::mongo::scan::{Next, Wanted};
use mongoferry::mongo::{Comment, catalog, checkpoint, split};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use rustix::process::Signal;

use crate::support::bson_values::any_value;
use crate::support::compare::{Scope, compare};
use crate::support::data;
use crate::support::ferry::Ferry;
use crate::support::running::Running;
use crate::support::servers::{Failure, shared_source, shared_target};

/// Far more than anything here takes: only a hang reaches it.
const AT_MOST: Duration = Duration::from_secs(120);

/// `_id`s of every type that one may be of: neither an array nor a regular expression nor undefined.
fn ids(count: usize) -> Vec<RawBson> {
    let may_be_id =
        |value: &RawBson| !matches!(value, RawBson::Array(_) | RawBson::RegularExpression(_) | RawBson::Undefined);
    let strategy = any_value().prop_filter("no `_id`", may_be_id);
    let mut runner = TestRunner::deterministic();
    let mut ids: Vec<RawBson> =
        (0..count).map(|_| strategy.new_tree(&mut runner).expect("a value").current()).collect();
    ids.extend([RawBson::MinKey, RawBson::MaxKey, RawBson::Null, RawBson::Double(f64::NAN)]);
    ids
}

/// Inserts a document for each `_id` that no other one equals. Returns how many there are.
async fn insert(client: &Client, database: &str, collection: &str, ids: Vec<RawBson>) -> Result<u64, Failure> {
    let database = client.database(database);
    for ids in ids.chunks(5_000) {
        let mut documents = mongodb::bson::RawArrayBuf::new();
        for (number, id) in ids.iter().enumerate() {
            let mut document = RawDocumentBuf::new();
            document.append(mongodb::bson::cstr!("_id"), id.clone());
            document.append(mongodb::bson::cstr!("number"), number as i32);
            document.append(mongodb::bson::cstr!("text"), "some text so that it has a size");
            documents.push(document);
        }
        let mut command = rawdoc! {"insert": collection, "ordered": false, "writeConcern": {"w": "majority"}};
        command.append(mongodb::bson::cstr!("documents"), documents);
        // Two that are equal to the server are no error here, and what it answers may hold anything.
        let _ = database.run_raw_command(command).await;
    }
    Ok(database.collection::<Document>(collection).count_documents(doc! {}).await?)
}

async fn create(client: &Client, database: &str, collection: &str, options: Document) -> Result<(), Failure> {
    let mut command = doc! {"create": collection};
    command.extend(options);
    client.database(database).run_command(command).await?;
    Ok(())
}

/// Accents and capitals count for nothing: as different from the order of bytes as it gets.
fn french() -> Document {
    doc! {"collation": {"locale": "fr", "strength": 1}}
}

fn clustered() -> Document {
    doc! {"clusteredIndex": {"key": {"_id": 1}, "unique": true}}
}

fn words(count: usize) -> Vec<RawBson> {
    let letters = ["a", "B", "é", "E", "z", "Z", "ö", "o", "œ", "-", " "];
    let word = |mut number: usize| {
        let mut word = String::new();
        while number > 0 {
            word.push_str(letters[number % letters.len()]);
            number /= letters.len();
        }
        word
    };
    let text = |number: usize| RawBson::String(word(number * 2_654_435_761 % 100_000_007));
    (0..count).map(|number| if number % 5 == 0 { RawBson::Int64(number as i64) } else { text(number) }).collect()
}

#[tokio::test]
async fn ranges_are_disjoint_and_complete_whatever_the_ids() -> Result<(), Failure> {
    let uri = shared_source().await?.uri();
    let client = Client::with_uri_str(&uri).await?;
    let database = "partitions";
    client.database(database).drop().await?;
    for (collection, options, ids) in [
        ("every_type", doc! {}, ids(6_000)),
        ("collated", french(), [ids(3_000), words(20_000)].concat()),
        ("clustered", clustered(), ids(6_000)),
    ] {
        create(&client, database, collection, options).await?;
        let count = insert(&client, database, collection, ids).await?;
        assert!(count > 2_000, "{count} documents in {collection}");
        let parsed = ConnectionString::parse(&uri)?;
        let comment = Comment("partitions".to_owned());
        let source = Deployment::connect(Side::Source, &parsed, None, "partitions", comment).await?;
        let namespace = Namespace::new(database, collection);
        let listed = catalog::collection(&source, &namespace).await?.ok_or("not there")?;
        let size = catalog::size(&source, &namespace).await?;
        let not_before = checkpoint::capture(&source).await?.majority;

        let cuts = split::cuts(&source, &namespace, size, size.1 / 20).await?;
        assert!(cuts.len() >= 3, "{collection} is cut into {} ranges", cuts.len() + 1);
        let mut seen: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
        for range in ranges(&cuts) {
            let wanted = Wanted {
                source: source.clone(),
                namespace: namespace.clone(),
                uuid: listed.uuid.clone().ok_or("no UUID")?,
                range,
                filter: None,
                not_before,
                document_size: 100,
                // A few replies for each range.
                reply_bytes: 10_000,
            };
            let mut scan = ById::new(wanted, Position::Start);
            while let Next::Documents(reply) = scan.next().await? {
                for document in reply.documents.iter() {
                    let key = Key::of(document).ok_or("no _id")?;
                    *seen.entry(key.document().as_bytes().to_vec()).or_default() += 1;
                }
            }
        }
        assert_eq!(seen.len() as u64, count, "{collection}");
        assert!(seen.values().all(|times| *times == 1), "{collection}");
    }
    Ok(())
}

#[tokio::test]
async fn sixty_four_ranges_of_every_type_are_killed_and_resumed() -> Result<(), Failure> {
    let database = "sixty_four";
    let (source, target) = (shared_source().await?, shared_target().await?);
    let client = Client::with_uri_str(source.uri()).await?;
    data::load(&client, database, "every_type", 60_000).await?;
    insert(&client, database, "every_type", ids(6_000)).await?;
    create(&client, database, "collated", french()).await?;
    insert(&client, database, "collated", [ids(3_000), words(60_000)].concat()).await?;
    create(&client, database, "clustered", clustered()).await?;
    insert(&client, database, "clustered", [ids(3_000), words(40_000)].concat()).await?;

    let size = client.database(database).run_command(doc! {"collStats": "every_type"}).await?;
    let bytes = size.get_i32("size")? / 64;
    let directory = tempfile::tempdir()?;
    let ferry = Ferry::new(directory.path(), &source.uri(), &target.uri(), "sixty_four")
        .set("MONGOFERRY_INCLUDE", database)
        .set("MONGOFERRY_CHECKPOINT_NAMESPACE", "mongoshake.sixty_four")
        .set("MONGOFERRY_PARTITION_SIZE", bytes.to_string())
        .set("MONGOFERRY_READ_ORDER", "id")
        .set("MONGOFERRY_SAVE_INTERVAL", "20ms");
    let mut kills = 0;
    loop {
        let mut run = Running::start(&ferry, &["step", "all"])?;
        let before = ferry.status().await.and_then(|status| status["documents"]["written"].as_u64()).unwrap_or(0);
        if kills < 5 && run.has_written(&ferry, before + 10_000).await.is_ok() {
            run.signal(Signal::KILL)?;
            kills += i32::from(run.ended_within(AT_MOST).await?.code.is_none());
            continue;
        }
        run.ended_within(AT_MOST).await?.expect(0);
        break;
    }
    assert!(kills > 0, "it was never caught in the middle");
    let status = ferry.status().await.ok_or("no status")?;
    assert!(status["lanes"][0]["partitions"].as_u64() > Some(100), "{status}");
    let on_target = Client::with_uri_str(target.uri()).await?;
    let scope = Scope { only_databases: vec![database.to_owned()], ..Default::default() };
    let outcome = compare(&client, &on_target, &scope).await?;
    assert!(outcome.is_equal(), "{outcome}");
    assert_eq!(status["documents"]["written"], outcome.documents, "{status}");
    Ok(())
}
