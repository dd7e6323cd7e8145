//! OP_MSG as bytes, of a client and of a server
//! (<https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/>).

use std::io::{self, Error, ErrorKind, Read, Write};

use mongodb::bson::{RawDocument, RawDocumentBuf};

const HEADER: usize = 16;
const MAX_MESSAGE: usize = 48_000_000;
const OP_MSG: i32 = 2013;

/// The sender appended four bytes behind the sections.
const CHECKSUM_PRESENT: u32 = 1;
/// The sender wants no answer.
const MORE_TO_COME: u32 = 2;

/// A message that was read.
#[derive(Debug)]
pub struct Message {
    /// What an answer names.
    pub id: i32,
    /// Whether an answer is wanted.
    pub wants_reply: bool,
    /// The command or the reply.
    pub body: RawDocumentBuf,
    /// An array of the command that was sent beside it. No client sends more than one.
    pub sequence: Option<Sequence>,
}

/// An array of a command that is sent beside it: a batch of writes does not fit into one document.
#[derive(Debug, Clone)]
pub struct Sequence {
    /// The name that the array would have in the command.
    pub name: String,
    /// What is in it.
    pub documents: Vec<RawDocumentBuf>,
}

/// Reads the next message; none when the other side has gone.
pub fn read(stream: &mut impl Read) -> io::Result<Option<Message>> {
    let mut header = [0; HEADER];
    match stream.read_exact(&mut header) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let [length, id, _, opcode] = [0, 4, 8, 12].map(|at| number(&header[at..]));
    let rest = usize::try_from(length).ok().and_then(|length| length.checked_sub(HEADER));
    let rest = rest.filter(|rest| *rest <= MAX_MESSAGE && opcode == OP_MSG);
    let mut bytes = vec![0; rest.ok_or_else(|| nonsense("no OP_MSG"))?];
    stream.read_exact(&mut bytes)?;
    sections(id, &bytes).map(Some)
}

fn sections(id: i32, bytes: &[u8]) -> io::Result<Message> {
    let (flags, mut rest) = bytes.split_at_checked(4).ok_or_else(|| nonsense("a message without flags"))?;
    let flags = number(flags) as u32;
    if flags & CHECKSUM_PRESENT != 0 {
        rest = rest.split_at(rest.len().saturating_sub(4)).0;
    }
    let (mut body, mut sequence) = (None, None);
    while let Some((kind, behind)) = rest.split_first() {
        let length = number(behind) as usize;
        let section = behind.split_at_checked(length).filter(|(section, _)| section.len() > 4);
        let (section, behind) = section.ok_or_else(|| nonsense("a section that is cut"))?;
        rest = behind;
        match kind {
            0 => body = Some(to_document(section)?),
            1 => sequence = Some(Sequence::parse(&section[4..])?),
            _ => return Err(nonsense("a section of an unknown kind")),
        }
    }
    let body = body.ok_or_else(|| nonsense("a message without a body"))?;
    Ok(Message { id, wants_reply: flags & MORE_TO_COME == 0, body, sequence })
}

impl Sequence {
    fn parse(section: &[u8]) -> io::Result<Self> {
        let end = section.iter().position(|byte| *byte == 0).ok_or_else(|| nonsense("a sequence without a name"))?;
        let name = String::from_utf8_lossy(&section[..end]).into_owned();
        let (mut rest, mut documents) = (&section[end + 1..], Vec::new());
        while !rest.is_empty() {
            let (document, behind) =
                rest.split_at_checked(number(rest) as usize).ok_or_else(|| nonsense("a document that is cut"))?;
            documents.push(to_document(document)?);
            rest = behind;
        }
        Ok(Sequence { name, documents })
    }
}

/// Sends a message; `answers` is the request that it answers, if any.
pub fn write(
    stream: &mut impl Write,
    id: i32,
    answers: i32,
    body: &RawDocument,
    sequence: Option<&Sequence>,
) -> io::Result<()> {
    let mut bytes = vec![0; HEADER + 4];
    bytes.push(0);
    bytes.extend_from_slice(body.as_bytes());
    if let Some(Sequence { name, documents }) = sequence {
        bytes.push(1);
        let start = bytes.len();
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0);
        documents.iter().for_each(|document| bytes.extend_from_slice(document.as_bytes()));
        let length = (bytes.len() - start) as i32;
        bytes[start..start + 4].copy_from_slice(&length.to_le_bytes());
    }
    for (place, value) in [bytes.len() as i32, id, answers, OP_MSG].into_iter().enumerate() {
        bytes[place * 4..place * 4 + 4].copy_from_slice(&value.to_le_bytes());
    }
    stream.write_all(&bytes)
}

/// The number at the beginning; 0 when there are not four bytes.
fn number(bytes: &[u8]) -> i32 {
    bytes.first_chunk().map_or(0, |bytes| i32::from_le_bytes(*bytes))
}

fn to_document(bytes: &[u8]) -> io::Result<RawDocumentBuf> {
    RawDocumentBuf::from_bytes(bytes.to_vec()).map_err(|error| nonsense(&error.to_string()))
}

fn nonsense(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}
