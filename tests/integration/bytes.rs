//! Documents that are kept only by whoever passes on their bytes: every type, also those that are not made any more,
//! what a strict decoder rejects, and the largest and deepest that a server takes.

use mongodb::Client;
use mongodb::bson::{RawDocument, RawDocumentBuf, doc};

use crate::support::compare::{Scope, compare};
use crate::support::ferry::Ferry;
use crate::support::servers::{Failure, shared_source, shared_target};

/// The largest document that a server takes from a client, in bytes.
const LARGEST: usize = 16 * 1024 * 1024;

/// A document that is put together by hand.
struct Bytes(Vec<u8>);

impl Bytes {
    /// With this number as its `_id`.
    fn with_id(id: i32) -> Self {
        Bytes::new().element(0x10, b"_id", &id.to_le_bytes())
    }

    fn new() -> Self {
        Bytes(vec![0; 4])
    }

    fn element(mut self, kind: u8, name: &[u8], value: &[u8]) -> Self {
        self.0.push(kind);
        self.0.extend_from_slice(name);
        self.0.push(0);
        self.0.extend_from_slice(value);
        self
    }

    fn finish(mut self) -> Vec<u8> {
        self.0.push(0);
        let length = (self.0.len() as u32).to_le_bytes();
        self.0[..4].copy_from_slice(&length);
        self.0
    }
}

/// A text as it is in a document.
fn text(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32 + 1).to_le_bytes()[..], bytes, &[0]].concat()
}

fn every_type() -> Vec<u8> {
    let scope = Bytes::new().element(0x10, b"x", &1_i32.to_le_bytes()).finish();
    let scoped = {
        let code = text(b"return x");
        [&((4 + code.len() + scope.len()) as u32).to_le_bytes()[..], &code, &scope].concat()
    };
    let array = Bytes::new().element(0x0a, b"0", &[]).element(0x08, b"7", &[1]).element(0x0a, b"odd", &[]).finish();
    Bytes::with_id(1)
        .element(0x01, b"double", &(-0.0_f64).to_le_bytes())
        .element(0x01, b"quiet NaN", &0x7ff8_dead_beef_0001_u64.to_le_bytes())
        .element(0x01, b"signalling NaN", &0xfff0_0000_0000_0001_u64.to_le_bytes())
        .element(0x02, b"text", &text("\u{1F6A2}\0 Fähre".as_bytes()))
        .element(0x03, b"document", &scope)
        .element(0x04, b"array with odd keys", &array)
        .element(0x05, b"binary", &[&3_u32.to_le_bytes()[..], &[0x80], &[1, 2, 3]].concat())
        .element(0x05, b"old binary", &[&7_u32.to_le_bytes()[..], &[2], &3_u32.to_le_bytes(), &[1, 2, 3]].concat())
        .element(0x05, b"old uuid", &[&16_u32.to_le_bytes()[..], &[3], &[9; 16]].concat())
        .element(0x06, b"undefined", &[])
        .element(0x07, b"object id", &[7; 12])
        .element(0x08, b"boolean", &[1])
        .element(0x09, b"date", &i64::MIN.to_le_bytes())
        .element(0x0a, b"null", &[])
        .element(0x0b, b"regular expression", b"^a(b\xc3\xa9)+$\0imsx\0")
        .element(0x0c, b"pointer", &[text(b"db.collection"), vec![3; 12]].concat())
        .element(0x0d, b"code", &text(b"return 1"))
        .element(0x0e, b"symbol", &text(b"symbol"))
        .element(0x0f, b"code with scope", &scoped)
        .element(0x10, b"int", &i32::MIN.to_le_bytes())
        .element(0x11, b"timestamp", &u64::MAX.to_le_bytes())
        .element(0x12, b"long", &i64::MAX.to_le_bytes())
        .element(0x13, b"decimal", &[0xff; 16])
        .element(0x7f, b"max", &[])
        .element(0xff, b"min", &[])
        .finish()
}

fn deep(levels: usize) -> Vec<u8> {
    let inner = (0..levels).fold(Bytes::new().finish(), |inner, _| Bytes::new().element(0x03, b"d", &inner).finish());
    Bytes::with_id(3).element(0x03, b"deep", &inner).finish()
}

fn largest() -> Vec<u8> {
    let around = Bytes::with_id(4).element(0x02, b"text", &text(b"")).finish().len();
    let document = Bytes::with_id(4).element(0x02, b"text", &text(&vec![b'x'; LARGEST - around])).finish();
    assert_eq!(document.len(), LARGEST);
    document
}

fn odd() -> Vec<Vec<u8>> {
    let invalid = b"\xff\xfe \xc3";
    vec![
        every_type(),
        Bytes::with_id(2)
            .element(0x10, b"twice", &1_i32.to_le_bytes())
            .element(0x10, b"", &2_i32.to_le_bytes())
            .element(0x02, b"twice", &text(b"again"))
            .element(0x10, b"", &3_i32.to_le_bytes())
            .element(0x10, b"a.b", &4_i32.to_le_bytes())
            .element(0x10, b"$set", &5_i32.to_le_bytes())
            .finish(),
        deep(100),
        largest(),
        Bytes::with_id(5).element(0x02, invalid, &text(invalid)).finish(),
        Bytes::new().element(0x02, b"_id", &text(invalid)).element(0x0a, b"x", &[]).finish(),
        Bytes::new()
            .element(0x03, b"_id", &Bytes::new().element(0x02, invalid, &text(invalid)).finish())
            .element(0x0a, b"x", &[])
            .finish(),
    ]
}

async fn insert(client: &Client, database: &str, collection: &str, document: &[u8]) -> Result<(), Failure> {
    let mut command = RawDocumentBuf::new();
    command.append(mongodb::bson::cstr!("insert"), collection);
    let mut documents = mongodb::bson::RawArrayBuf::new();
    documents.push(RawDocument::from_bytes(document)?);
    command.append(mongodb::bson::cstr!("documents"), documents);
    let reply = client.database(database).run_raw_command(command).await?;
    if reply.get_i32("n").ok() == Some(1) { Ok(()) } else { Err(format!("not inserted: {reply}").into()) }
}

#[tokio::test]
async fn documents_arrive_as_the_bytes_they_are_in_either_order() -> Result<(), Failure> {
    let (source, target) = (shared_source().await?, shared_target().await?);
    let (from, to) = (Client::with_uri_str(source.uri()).await?, Client::with_uri_str(target.uri()).await?);
    for (database, order) in [("bytes_by_id", "id"), ("bytes_on_disk", "natural")] {
        for document in odd() {
            insert(&from, database, "odd", &document).await?;
        }
        let directory = tempfile::tempdir()?;
        let ferry = Ferry::new(directory.path(), &source.uri(), &target.uri(), database)
            .set("MONGOFERRY_INCLUDE", database)
            .set("MONGOFERRY_CHECKPOINT_NAMESPACE", format!("mongoshake.{database}"))
            .set("MONGOFERRY_READ_ORDER", order);
        ferry.run(&["step", "all"]).await.expect(0);
        let scope = Scope { only_databases: vec![database.to_owned()], ..Scope::default() };
        let outcome = compare(&from, &to, &scope).await?;
        assert!(outcome.is_equal(), "{outcome}");
        assert_eq!(outcome.documents, odd().len() as u64);

        // Met again: a duplicate's error quotes its `_id`, and the document is as it was.
        let again = tempfile::tempdir()?;
        let ferry = Ferry::new(again.path(), &source.uri(), &target.uri(), &format!("{database}_again"))
            .set("MONGOFERRY_INCLUDE", database)
            .set("MONGOFERRY_CHECKPOINT_NAMESPACE", format!("mongoshake.{database}_again"))
            .set("MONGOFERRY_EXISTING", "keep");
        ferry.run(&["step", "all"]).await.expect(0);
        let status = ferry.status().await.ok_or("no status")?;
        assert_eq!(status["documents"]["rejected"], 0, "{status}");
        to.database(database).collection::<mongodb::bson::Document>("odd").delete_many(doc! {}).await?;
    }
    Ok(())
}
