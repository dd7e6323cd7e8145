//! A thin OP_MSG connection of mongoferry's own, for the writes of the copy.
//!
//! The driver cannot send them: it puts a session of its own choice on every command, and fencing needs one that is
//! known beforehand (see [`super::writers`]); it copies a command's bytes several times; and it fails on answers that
//! quote invalid UTF-8. So one command at a time goes over one connection here: documents are written from where they
//! lie, and an answer stays the bytes that it is. Everything else, finding the primary included, is the driver's.
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
use bson::{Document, RawDocumentBuf, rawdoc};
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
        let mut connection = Connection { stream, next_id: 0, compressor: None };
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
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("compressor", &self.compressor).finish_non_exhaustive()
    }
}

impl Connection {
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
        let mut rest = vec![0; header.rest];
        self.stream.read_exact(&mut rest).await?;
        Ok(message::reply(header, rest)?)
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
