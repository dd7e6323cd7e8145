//! Logging in over a connection: SCRAM and X.509, as the driver specification says
//! (<https://github.com/mongodb/specifications/blob/master/source/auth/auth.md>).

use super::Connection;
use super::scram::{First, Mechanism};
use crate::random::random_id;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Document, RawBson, RawDocumentBuf, rawdoc};
use mongodb::error::Error as DriverError;
use mongodb::options::{AuthMechanism, Credential};

/// Where users are looked for when the connection string does not say.
const DEFAULT_SOURCE: &str = "admin";

fn source(credential: &Credential) -> &str {
    credential.source.as_deref().unwrap_or(DEFAULT_SOURCE)
}

/// The user whose mechanisms `hello` is to name, when the connection string names none.
pub fn to_negotiate(credential: &Credential) -> Option<String> {
    let user = credential.username.as_ref().filter(|_| credential.mechanism.is_none())?;
    Some(format!("{}.{user}", source(credential)))
}

/// Logs in. `hello` is what the server said of itself.
pub async fn log_in(connection: &mut Connection, credential: &Credential, hello: &Document) -> Result<(), DriverError> {
    let mechanism = match &credential.mechanism {
        Some(AuthMechanism::MongoDbX509) => return with_certificate(connection, credential).await,
        Some(AuthMechanism::ScramSha256) => Mechanism::Sha256,
        Some(AuthMechanism::ScramSha1) => Mechanism::Sha1,
        Some(other) => return Err(DriverError::custom(format!("no log-in with {} here", other.as_str()))),
        None => negotiated(hello),
    };
    with_password(connection, credential, mechanism).await
}

/// SCRAM-SHA-256 where the user has it, else SCRAM-SHA-1.
fn negotiated(hello: &Document) -> Mechanism {
    let offered = hello.get_array("saslSupportedMechs");
    let has_sha256 = offered.is_ok_and(|names| names.contains(&Bson::from(Mechanism::Sha256.name())));
    if has_sha256 { Mechanism::Sha256 } else { Mechanism::Sha1 }
}

async fn with_certificate(connection: &mut Connection, credential: &Credential) -> Result<(), DriverError> {
    let mut command = rawdoc! { "authenticate": 1, "mechanism": AuthMechanism::MongoDbX509.as_str() };
    if let Some(user) = &credential.username {
        command.append(bson::cstr!("user"), user.as_str());
    }
    connection.command("$external", command).await.map(|_| ())
}

async fn with_password(
    connection: &mut Connection,
    credential: &Credential,
    mechanism: Mechanism,
) -> Result<(), DriverError> {
    let (Some(user), Some(password)) = (&credential.username, &credential.password) else {
        return Err(DriverError::custom("a log-in without a user or a password"));
    };
    let database = source(credential);
    let first = First::new(mechanism, user, random_id());
    let start = rawdoc! {
        "saslStart": 1,
        "mechanism": mechanism.name(),
        "payload": payload(&first.message()),
        "options": { "skipEmptyExchange": true },
    };
    let started = Said::read(&connection.command(database, start).await?)?;
    let last = first.last(password, &started.text).map_err(DriverError::custom)?;
    let mut said = started.answer(connection, database, &last.message).await?;
    if !last.is_answered_by(&said.text) {
        return Err(DriverError::custom("the server does not know the password that it was asked about"));
    }
    // A server that does not know `skipEmptyExchange` wants an empty word at the end.
    if !said.is_done {
        said = said.answer(connection, database, "").await?;
    }
    if said.is_done { Ok(()) } else { Err(DriverError::custom("the server does not end the log-in")) }
}

fn payload(text: &str) -> Binary {
    Binary { subtype: BinarySubtype::Generic, bytes: text.as_bytes().to_vec() }
}

/// What the server said in a conversation.
struct Said {
    conversation: RawBson,
    text: String,
    is_done: bool,
}

impl Said {
    fn read(reply: &Document) -> Result<Self, DriverError> {
        let nonsense = || DriverError::custom("the server's part of the log-in makes no sense");
        let text = reply.get_binary_generic("payload").ok().and_then(|bytes| String::from_utf8(bytes.clone()).ok());
        let conversation = reply.get("conversationId").cloned().and_then(|id| RawBson::try_from(id).ok());
        Ok(Self {
            conversation: conversation.ok_or_else(nonsense)?,
            text: text.ok_or_else(nonsense)?,
            is_done: reply.get_bool("done").map_err(|_| nonsense())?,
        })
    }

    async fn answer(&self, connection: &mut Connection, database: &str, text: &str) -> Result<Self, DriverError> {
        let command: RawDocumentBuf = rawdoc! {
            "saslContinue": 1,
            "conversationId": self.conversation.clone(),
            "payload": payload(text),
        };
        Self::read(&connection.command(database, command).await?)
    }
}
