//! A thin OP_MSG connection of mongoferry's own, for the documents of the copy.
//!
//! The driver cannot send them: it puts a session of its own choice on every command, and fencing needs one that is
//! known beforehand (see [`super::writers`]); it copies a command's bytes several times; and it fails on answers that
//! quote invalid UTF-8. And it reads each reply into new memory, which costs as much again as reading (see
//! [`super::buffers`]). So one command at a time goes over one connection here: documents are written from where they
//! lie, and an answer stays the bytes that it is. Everything else, finding the right member included, is the driver's.
//!
//! Errors are the driver's, too: an I/O error where nobody knows what became of a command, a command error where the
//! server said no, so that whoever tells errors apart need not know which of the two was used.

mod authentication;
mod compression;
mod message;
mod scram;
mod tls;

pub use message::Sequence;

use super::answer::failure;
use super::buffers::Buffers;
use bson::{Document, RawDocumentBuf, rawdoc};
use bytes::BufMut;
use compression::Compressor;
use mongodb::error::Error as DriverError;
use mongodb::options::{AuthMechanism, ClientOptions, Credential, ServerAddress, Tls};
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use std::fmt;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The port where an address names none.
const DEFAULT_PORT: u16 = 27017;

/// After so long without a word the peer is asked whether it still lives, as the driver does.
const KEEPALIVE: Duration = Duration::from_secs(120);

/// For how long a connection may take to be made, where the connection string does not say; the driver's default.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// After so long without an answer the driver is asked whether the server still is what it was taken for: a server may
/// be gone without a word, and a connection does not tell. The driver's monitor looks as often.
const LOOK_AFTER: Duration = Duration::from_secs(10);

/// Waits for an answer for as long as `look` finds nothing wrong with who is to give it.
///
/// # Errors
/// Those of both.
pub async fn answered<T, L: Future<Output = Result<(), DriverError>>>(
    exchange: impl Future<Output = Result<T, DriverError>>,
    look: impl Fn() -> L,
) -> Result<T, DriverError> {
    tokio::pin!(exchange);
    loop {
        if let Ok(answer) = tokio::time::timeout(LOOK_AFTER, &mut exchange).await {
            return answer;
        }
        look().await?;
    }
}

/// Makes connections as a connection string says.
#[derive(Clone)]
pub struct Connector {
    app_name: Option<String>,
    credential: Option<Credential>,
    tls: Option<TlsConnector>,
    compressors: Vec<Compressor>,
    timeout: Duration,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

impl Connector {
    /// From what the driver made of the connection string.
    ///
    /// # Errors
    /// What it asks for that only the driver can do.
    pub fn new(options: &ClientOptions) -> Result<Self, String> {
        if options.load_balanced == Some(true) {
            return Err("a load balancer".to_owned());
        }
        if options.server_api.is_some() {
            return Err("a declared API version".to_owned());
        }
        if options.hosts.iter().any(|host| !matches!(host, ServerAddress::Tcp { .. })) {
            return Err("a Unix domain socket".to_owned());
        }
        match options.credential.as_ref().and_then(|credential| credential.mechanism.as_ref()) {
            None | Some(AuthMechanism::ScramSha1 | AuthMechanism::ScramSha256 | AuthMechanism::MongoDbX509) => {}
            Some(mechanism) => return Err(format!("the log-in {}", mechanism.as_str())),
        }
        let tls = match &options.tls {
            Some(Tls::Enabled(tls)) => Some(tls::connector(tls)?),
            _ => None,
        };
        Ok(Self {
            app_name: options.app_name.clone(),
            credential: options.credential.clone(),
            tls,
            compressors: options.compressors.iter().flatten().filter_map(Compressor::of).collect(),
            timeout: options.connect_timeout.unwrap_or(CONNECT_TIMEOUT),
        })
    }

    /// Connects to a server and logs in.
    ///
    /// # Errors
    /// The server's refusal, or an I/O error.
    pub async fn connect(&self, address: &ServerAddress) -> Result<Connection, DriverError> {
        match tokio::time::timeout(self.timeout, self.connect_in_time(address)).await {
            Ok(connected) => connected,
            Err(_) => {
                let text = format!("{address} did not take a connection within {:?}", self.timeout);
                Err(io::Error::new(io::ErrorKind::TimedOut, text).into())
            }
        }
    }

    async fn connect_in_time(&self, address: &ServerAddress) -> Result<Connection, DriverError> {
        let stream = self.stream(address).await?;
        let mut connection = Connection { stream, next_id: 0, compressor: None, buffers: None };
        let hello = connection.command("admin", self.hello()).await?;
        if let Some(credential) = &self.credential {
            authentication::log_in(&mut connection, credential, &hello).await?;
        }
        connection.compressor = self.accepted_compressor(&hello);
        Ok(connection)
    }

    async fn stream(&self, address: &ServerAddress) -> io::Result<Box<dyn Stream>> {
        let ServerAddress::Tcp { host, port } = address else {
            return Err(io::Error::new(io::ErrorKind::Unsupported, format!("{address} is no TCP address")));
        };
        let stream = TcpStream::connect((host.as_str(), port.unwrap_or(DEFAULT_PORT))).await?;
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from(host.clone())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, format!("{host}: {error}")))?;
        Ok(Box::new(tls.connect(name, stream).await?))
    }

    fn hello(&self) -> RawDocumentBuf {
        let mut client = rawdoc! {};
        if let Some(name) = &self.app_name {
            client.append(bson::cstr!("application"), rawdoc! { "name": name.as_str() });
        }
        client.append(
            bson::cstr!("driver"),
            rawdoc! { "name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION") },
        );
        client.append(
            bson::cstr!("os"),
            rawdoc! { "type": std::env::consts::OS, "architecture": std::env::consts::ARCH },
        );
        let mut hello = rawdoc! { "hello": 1, "client": client };
        if let Some(user) = self.credential.as_ref().and_then(authentication::to_negotiate) {
            hello.append(bson::cstr!("saslSupportedMechs"), user);
        }
        if !self.compressors.is_empty() {
            let names: bson::RawArrayBuf = self.compressors.iter().map(|compressor| compressor.name()).collect();
            hello.append(bson::cstr!("compression"), names);
        }
        hello
    }

    /// The first that the connection string names and the server accepts.
    fn accepted_compressor(&self, hello: &Document) -> Option<Compressor> {
        let accepted = hello.get_array("compression").ok()?;
        let is_accepted = |name: &str| accepted.iter().any(|accepted| accepted.as_str() == Some(name));
        self.compressors.iter().copied().find(|compressor| is_accepted(compressor.name()))
    }
}

/// What bytes go over: TCP, or TLS over it.
trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for S {}

/// A connection to one server, logged in. One command at a time; after an I/O error, or when [`Connection::exchange`] was
/// not waited for to its end, it cannot be used any more.
pub struct Connection {
    stream: Box<dyn Stream>,
    next_id: i32,
    compressor: Option<Compressor>,
    /// What answers are read into; new memory when there are none.
    buffers: Option<Buffers>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("compressor", &self.compressor).finish_non_exhaustive()
    }
}

impl Connection {
    /// The same connection, whose answers are read into these: for answers that are large.
    #[must_use]
    pub fn reading_into(self, buffers: Buffers) -> Self {
        Self { buffers: Some(buffers), ..self }
    }

    /// How its messages are compressed, if at all.
    pub fn compression(&self) -> Option<&'static str> {
        self.compressor.map(Compressor::name)
    }

    /// Sends a command, and an array of it beside it, and gives the server's answer, be it yes or no.
    ///
    /// # Errors
    /// I/O: nobody knows what became of the command. Another one where it is longer than any server takes.
    pub async fn exchange(
        &mut self,
        database: &str,
        mut command: RawDocumentBuf,
        sequence: Option<Sequence<'_>>,
    ) -> Result<RawDocumentBuf, DriverError> {
        command.append(bson::cstr!("$db"), database);
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        let head = message::request(id, &command, sequence);
        let documents = sequence.map_or(&[][..], |sequence| sequence.documents);
        if head.len() + documents.len() > message::MAX_MESSAGE {
            return Err(DriverError::custom("a message longer than the 48,000,000 bytes that a server takes"));
        }
        match self.compressor {
            Some(compressor) => self.stream.write_all(&message::compressed(compressor, id, &head, documents)?).await?,
            None => {
                self.stream.write_all(&head).await?;
                self.stream.write_all(documents).await?;
            }
        }
        self.stream.flush().await?;
        let mut header = [0; message::HEADER];
        self.stream.read_exact(&mut header).await?;
        let header = message::ReplyHeader::read(&header, id)?;
        let Some(length) = header.document() else {
            let rest = self.read(Vec::with_capacity(header.rest), header.rest).await?;
            return Ok(message::decompressed_reply(header, &rest)?);
        };
        let mut before = message::BEFORE_DOCUMENT.map(|_| 0);
        self.stream.read_exact(&mut before).await?;
        if before != message::BEFORE_DOCUMENT {
            return Err(message::nonsense("an answer that is not one document").into());
        }
        let buffer = self.buffers.as_ref().map_or_else(|| Vec::with_capacity(length), |buffers| buffers.take(length));
        Ok(message::document(self.read(buffer, length).await?)?)
    }

    /// So many bytes, into an empty buffer that has room for them and need not be cleared for it.
    async fn read(&mut self, mut buffer: Vec<u8>, length: usize) -> io::Result<Vec<u8>> {
        while buffer.len() < length {
            let missing = length - buffer.len();
            if self.stream.read_buf(&mut (&mut buffer).limit(missing)).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(buffer)
    }

    /// Runs a command whose answer is small and has no data of users.
    async fn command(&mut self, database: &str, command: RawDocumentBuf) -> Result<Document, DriverError> {
        let reply = self.exchange(database, command, None).await?;
        match failure(&reply) {
            Some(error) => Err(error),
            None => Ok(Document::try_from(reply.as_ref())?),
        }
    }
}
