//! OP_MSG and OP_COMPRESSED as bytes
//! (<https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/>).

use super::compression::Compressor;
use bson::RawDocumentBuf;
use std::io;

/// A header's length in bytes.
pub const HEADER: usize = 16;

/// What no reply exceeds, in bytes: `maxMessageSizeBytes` of every server so far. A longer one is nonsense, and would be
/// memory that somebody else decides about.
pub const MAX_MESSAGE: usize = 48_000_000;

const OP_MSG: i32 = 2013;
const OP_COMPRESSED: i32 = 2012;

/// The flags of an OP_MSG: neither side here uses any.
const NO_FLAGS: [u8; 4] = [0; 4];

/// A section that is one document.
const BODY: u8 = 0;
/// A section that is an array of the command, taken out of it.
const SEQUENCE: u8 = 1;

/// An array of a command that is sent beside it.
#[derive(Debug, Clone, Copy)]
pub struct Sequence<'a> {
    /// The name that the array would have in the command.
    pub name: &'a str,
    /// Its documents, one behind the other.
    pub documents: &'a [u8],
}

/// A message to be sent: what `head` has, then the documents of the sequence, if any.
pub fn request(id: i32, command: &RawDocumentBuf, sequence: Option<Sequence<'_>>) -> Vec<u8> {
    let body = command.as_bytes();
    let mut head = Vec::with_capacity(HEADER + body.len() + 64);
    head.extend_from_slice(&[0; HEADER]);
    head.extend_from_slice(&NO_FLAGS);
    head.push(BODY);
    head.extend_from_slice(body);
    let mut behind = 0;
    if let Some(Sequence { name, documents }) = sequence {
        head.push(SEQUENCE);
        behind = documents.len();
        // The length counts itself, the name and its NUL.
        head.extend_from_slice(&((4 + name.len() + 1 + behind) as u32).to_le_bytes());
        head.extend_from_slice(name.as_bytes());
        head.push(0);
    }
    let length = head.len() + behind;
    write_header(&mut head, length, id, OP_MSG);
    head
}

/// The same message compressed.
pub fn compressed(compressor: Compressor, id: i32, head: &[u8], documents: &[u8]) -> io::Result<Vec<u8>> {
    let plain = head.get(HEADER..).unwrap_or_default();
    let mut message = vec![0; HEADER];
    message.extend_from_slice(&OP_MSG.to_le_bytes());
    message.extend_from_slice(&((plain.len() + documents.len()) as u32).to_le_bytes());
    message.push(compressor.id());
    compressor.compress(&[plain, documents], &mut message)?;
    let length = message.len();
    write_header(&mut message, length, id, OP_COMPRESSED);
    Ok(message)
}

fn write_header(message: &mut [u8], length: usize, id: i32, opcode: i32) {
    for (place, value) in [length as i32, id, 0, opcode].into_iter().enumerate() {
        message[place * 4..place * 4 + 4].copy_from_slice(&value.to_le_bytes());
    }
}

/// A reply's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyHeader {
    /// How many bytes follow.
    pub rest: usize,
    opcode: i32,
}

impl ReplyHeader {
    /// Reads it, and checks that it answers this request.
    pub fn read(bytes: &[u8; HEADER], request: i32) -> io::Result<Self> {
        let [length, _, answers, opcode] =
            [0, 4, 8, 12].map(|at| i32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]));
        let rest = usize::try_from(length).ok().and_then(|length| length.checked_sub(HEADER));
        match rest {
            Some(rest) if rest <= MAX_MESSAGE && answers == request => Ok(Self { rest, opcode }),
            _ => Err(nonsense("a header that answers nothing that was asked")),
        }
    }
}

/// What is before the document of a reply that is not compressed: no flags, and a section that is one document.
pub const BEFORE_DOCUMENT: [u8; 5] = [0, 0, 0, 0, BODY];

impl ReplyHeader {
    /// How long its document is, behind [`BEFORE_DOCUMENT`]; none when it has to be decompressed first.
    pub fn document(&self) -> Option<usize> {
        self.rest.checked_sub(BEFORE_DOCUMENT.len()).filter(|_| self.opcode == OP_MSG)
    }
}

/// The document of a compressed reply that was read as a whole.
pub fn decompressed_reply(header: ReplyHeader, rest: &[u8]) -> io::Result<RawDocumentBuf> {
    if header.opcode != OP_COMPRESSED {
        return Err(nonsense(&format!("opcode {}", header.opcode)));
    }
    let mut plain = decompressed(rest)?;
    if !plain.starts_with(&BEFORE_DOCUMENT) {
        return Err(nonsense("an answer that is not one document"));
    }
    plain.drain(..BEFORE_DOCUMENT.len());
    document(plain)
}

/// Bytes that are to be a document.
pub fn document(bytes: Vec<u8>) -> io::Result<RawDocumentBuf> {
    RawDocumentBuf::from_bytes(bytes).map_err(|error| nonsense(&error.to_string()))
}

fn decompressed(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let (head, compressed) = bytes.split_at_checked(9).ok_or_else(|| nonsense("a compressed answer without a head"))?;
    let number = |at: usize| i32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let size = usize::try_from(number(4)).ok().filter(|size| *size <= MAX_MESSAGE);
    match (number(0), size) {
        (OP_MSG, Some(size)) => super::compression::decompress(head[8], compressed, size),
        _ => Err(nonsense("a compressed answer that says nothing of its size")),
    }
}

/// What a server must not send.
pub fn nonsense(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the server sent {what}"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use bson::rawdoc;
    use proptest::prelude::*;

    /// The message as a server would answer to `request`.
    fn as_answer(mut message: Vec<u8>, request: i32) -> (ReplyHeader, Vec<u8>) {
        message[8..12].copy_from_slice(&request.to_le_bytes());
        let header = ReplyHeader::read(message.first_chunk().unwrap(), request).unwrap();
        (header, message.split_off(HEADER))
    }

    /// As a connection does, once all bytes are there.
    fn read(header: ReplyHeader, rest: &[u8]) -> io::Result<RawDocumentBuf> {
        match header.document() {
            Some(length) => document(rest[rest.len() - length..].to_vec()),
            None => decompressed_reply(header, rest),
        }
    }

    #[test]
    fn a_message_is_what_the_manual_says() {
        let command = rawdoc! { "insert": "c", "$db": "d" };
        let document = rawdoc! { "_id": 1 };
        let head = request(7, &command, Some(Sequence { name: "documents", documents: document.as_bytes() }));
        let sequence = 4 + "documents".len() + 1 + document.as_bytes().len();
        let length = HEADER + 4 + 1 + command.as_bytes().len() + 1 + sequence;
        let mut expected: Vec<u8> = [length as i32, 7, 0, 2013, 0].iter().flat_map(|n| n.to_le_bytes()).collect();
        expected.push(0);
        expected.extend_from_slice(command.as_bytes());
        expected.push(1);
        expected.extend_from_slice(&(sequence as i32).to_le_bytes());
        expected.extend_from_slice(b"documents\0");
        assert_eq!(head, expected);
    }

    #[test]
    fn what_was_sent_is_read_whether_compressed_or_not() {
        let command = rawdoc! { "ok": 1, "text": "a".repeat(1000) };
        let head = request(3, &command, None);
        let (header, rest) = as_answer(head.clone(), 3);
        assert_eq!(read(header, &rest).unwrap(), command);
        for compressor in [Compressor::Snappy, Compressor::Zlib(6), Compressor::Zstd(3)] {
            let message = compressed(compressor, 3, &head, &[]).unwrap();
            assert!(message.len() < head.len() / 2, "{compressor:?}");
            let (header, rest) = as_answer(message, 3);
            assert_eq!(read(header, &rest).unwrap(), command, "{compressor:?}");
        }
    }

    #[test]
    fn an_answer_to_something_else_or_without_end_is_refused() {
        let head = request(3, &rawdoc! { "ok": 1 }, None);
        let header = |change: fn(&mut Vec<u8>)| {
            let mut head = head.clone();
            head[8..12].copy_from_slice(&3_i32.to_le_bytes());
            change(&mut head);
            ReplyHeader::read(head.first_chunk().unwrap(), 3)
        };
        assert!(header(|_| {}).is_ok());
        assert!(header(|head| head[8] = 4).is_err());
        assert!(header(|head| head[3] = 0x7f).is_err());
        assert!(header(|head| head[3] = 0xff).is_err());
        assert!(header(|head| head[..4].copy_from_slice(&[15, 0, 0, 0])).is_err());
    }

    proptest! {
        #[test]
        fn nonsense_does_no_harm(rest in any::<Vec<u8>>(), opcode in prop_oneof![Just(OP_MSG), Just(OP_COMPRESSED)]) {
            let header = ReplyHeader { rest: rest.len(), opcode };
            let _ = read(header, &rest);
        }
    }
}
