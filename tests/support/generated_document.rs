//! Generated documents: the same arguments make the same bytes, on every machine. The fixture loads them, and the
//! benchmark copies them.

use clap::ValueEnum;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, DateTime, RawBson, RawDocumentBuf, rawdoc};

/// 2024-01-01T00:00:00Z in seconds; the documents' dates and ObjectIds begin here.
const EPOCH_SECONDS: u32 = 1_704_067_200;

/// What the `_id`s are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Ids {
    /// ObjectIds that grow, as a driver makes them
    Objectid,
    /// 0, 1, 2, …
    Int,
    /// Seven types in turn, so that ranges of `_id` cross types
    Mixed,
    /// UUIDs: the order of `_id` is not the order of insertion
    Random,
}

/// splitmix64: small, good enough for test data, and fixed for ever.
struct Random(u64);

impl Random {
    fn for_document(seed: u64, number: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ number.wrapping_mul(0xD1B5_4A32_D192_ED03));
        random.next();
        random
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn text(&mut self, length: usize) -> String {
        const LETTERS: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 -";
        let mut text = String::with_capacity(length);
        while text.len() < length {
            let mut bits = self.next();
            for _ in 0..10.min(length - text.len()) {
                text.push(char::from(LETTERS[(bits & 63) as usize]));
                bits >>= 6;
            }
        }
        text
    }

    fn object_id(&mut self, seed: u64, number: u64) -> ObjectId {
        let mut bytes = [0; 12];
        bytes[..4].copy_from_slice(&(EPOCH_SECONDS + (number / 1000) as u32).to_be_bytes());
        bytes[4..9].copy_from_slice(&seed.to_be_bytes()[3..]);
        bytes[9..].copy_from_slice(&(number as u32).to_be_bytes()[1..]);
        ObjectId::from_bytes(bytes)
    }

    fn uuid(&mut self) -> RawBson {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.next().to_be_bytes());
        bytes[8..].copy_from_slice(&self.next().to_be_bytes());
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        RawBson::Binary(Binary { subtype: BinarySubtype::Uuid, bytes: bytes.to_vec() })
    }
}

fn id(ids: Ids, seed: u64, number: u64, random: &mut Random) -> RawBson {
    match ids {
        Ids::Objectid => RawBson::ObjectId(random.object_id(seed, number)),
        Ids::Int => match i32::try_from(number) {
            Ok(small) => RawBson::Int32(small),
            Err(_) => RawBson::Int64(number as i64),
        },
        Ids::Random => random.uuid(),
        Ids::Mixed => match number % 7 {
            0 => RawBson::Int32(number as i32),
            1 => RawBson::Int64(number as i64),
            2 => RawBson::Double(number as f64 + 0.5),
            3 => RawBson::String(format!("key-{:016x}", random.next())),
            4 => RawBson::ObjectId(random.object_id(seed, number)),
            5 => RawBson::Document(rawdoc! {"tenant": (number % 10) as i32, "number": number as i64}),
            _ => random.uuid(),
        },
    }
}

/// The document with this number, of so many bytes (at least 200). Its fields are `_id`, `k` (a random number), `group` (0
/// to 999), `at` (a date), `amount`, `tags`, and a `payload` that fills it up to its size.
pub fn document(seed: u64, ids: Ids, bytes: u32, number: u64) -> RawDocumentBuf {
    let mut random = Random::for_document(seed, number);
    let id = id(ids, seed, number, &mut random);
    let at = i64::from(EPOCH_SECONDS) * 1000 + number as i64 * 100 + (random.next() % 60_000) as i64;
    let mut document = rawdoc! {
        "_id": id,
        "k": (random.next() >> 16) as i64,
        "group": (random.next() % 1000) as i32,
        "at": DateTime::from_millis(at),
        "amount": (random.next() % 1_000_000) as f64 / 100.0,
        "tags": [random.text(4), random.text(6)],
    };
    // An element of a string: its type, its name with a zero, four bytes of length, a zero at the end.
    let overhead = 1 + "payload".len() + 1 + 4 + 1;
    let length = (bytes as usize).saturating_sub(document.as_bytes().len() + overhead);
    document.append(mongodb::bson::cstr!("payload"), random.text(length));
    document
}
