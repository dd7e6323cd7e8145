//! The connection of the copy's writes: it logs in and encrypts as the driver does, and its answers are those that the
//! driver gets.

use mongodb::Client;
use mongodb::bson::{Document, RawDocumentBuf, doc, rawdoc};
use mongoferry::error::Kind;
use mongoferry::mongo::answer::{Answer, failure};
use mongoferry::mongo::deployment::Deployment;
use mongoferry::mongo::failure::{code_of, is_transient};
use mongoferry::mongo::wire::{Connector, Sequence};
use mongoferry::mongo::writers::Writers;

use crate::support::certificates::Certificates;
use crate::support::servers::{Failure, ReplicaSet, StartOptions, shared_target};
use crate::support::writing::{Collection, batch, everything, target as connected};

/// Inserts one document with what this deployment's connection string says, and how that was compressed.
async fn inserts(target: &Deployment, collection: &str) -> Result<Option<&'static str>, Failure> {
    let mut connection = target.connector()?.connect(&target.writable().await?).await?;
    let document = rawdoc! { "text": "a".repeat(10_000) };
    let sequence = Sequence { name: "documents", documents: document.as_bytes() };
    let reply = connection.exchange("wire", rawdoc! { "insert": collection }, Some(sequence)).await?;
    if let Some(error) = failure(&reply) {
        return Err(error.into());
    }
    Ok(connection.compression())
}

#[tokio::test]
async fn users_log_in_with_either_kind_of_password_and_their_messages_are_compressed() -> Result<(), Failure> {
    let set = ReplicaSet::start(StartOptions { auth: true, ..Default::default() }).await?;
    let root = Client::with_uri_str(set.uri()).await?;
    for (user, mechanism) in [("old", "SCRAM-SHA-1"), ("new", "SCRAM-SHA-256")] {
        let create = doc! {
            "createUser": user, "pwd": "p\u{fc}\u{2168} %", "mechanisms": [mechanism], "roles": ["readWriteAnyDatabase"],
        };
        root.database("admin").run_command(create).await?;
    }
    let uri = |user, password, options| {
        format!("mongodb://{user}:{password}@127.0.0.1:{}/?authSource=admin{options}", set.port(0))
    };
    let password = "p%C3%BC%E2%85%A8%20%25";
    let logins = [
        ("new", "", None),
        ("new", "&authMechanism=SCRAM-SHA-256&compressors=zstd", Some("zstd")),
        ("old", "&compressors=zlib,snappy&zlibCompressionLevel=9", Some("zlib")),
        ("old", "&authMechanism=SCRAM-SHA-1&compressors=snappy", Some("snappy")),
    ];
    for (user, options, compression) in logins {
        let target = connected(&uri(user, password, options), None).await?;
        assert_eq!(inserts(&target, "logins").await?, compression, "{user} {options}");
    }
    let all = root.database("wire").collection::<Document>("logins");
    assert_eq!(all.count_documents(doc! {"text": "a".repeat(10_000)}).await?, 4);

    // A password that was changed since the driver logged in is refused as the driver's would be.
    let changed = connected(&uri("new", password, ""), None).await?;
    root.database("admin").run_command(doc! {"updateUser": "new", "pwd": "another"}).await?;
    let connected = changed.connector()?.connect(&changed.writable().await?).await;
    let refused = connected.expect_err("another password");
    assert_eq!(changed.failed(&refused).kind(), Kind::BadInput, "{refused}");
    Ok(())
}

#[tokio::test]
async fn a_certificate_is_a_login_and_a_server_without_a_good_one_is_not_spoken_to() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let certificates = Certificates::make(folder.path())?;
    let [authority, server, client] =
        [&certificates.authority, &certificates.server, &certificates.client].map(|path| path.display().to_string());
    // Clients without TLS make the set and its first user.
    let tls = ["--tlsMode", "preferTLS", "--tlsCertificateKeyFile", &server, "--tlsCAFile", &authority];
    let extra_args = tls.iter().chain(&["--tlsAllowConnectionsWithoutCertificates"]).map(ToString::to_string).collect();
    let set = ReplicaSet::start(StartOptions { auth: true, extra_args, ..Default::default() }).await?;
    let create = doc! {"createUser": Certificates::CLIENT, "roles": [{"role": "readWriteAnyDatabase", "db": "admin"}]};
    Client::with_uri_str(set.uri()).await?.database("$external").run_command(create).await?;

    let login = format!("authMechanism=MONGODB-X509&tlsCertificateKeyFile={client}");
    let uri = |options: &str| format!("mongodb://127.0.0.1:{}/?tls=true&{options}", set.port(0));
    let known = connected(&uri(&login), Some(&certificates.authority)).await?;
    inserts(&known, "with_certificate").await?;
    let insecure = connected(&uri(&format!("tlsInsecure=true&{login}")), None).await?;
    inserts(&insecure, "with_certificate").await?;
    let password = connected(&(set.uri() + "&tls=true"), Some(&certificates.authority)).await?;
    inserts(&password, "with_certificate").await?;

    // The driver would not have come so far: its connector alone is asked.
    let options = mongodb::options::ClientOptions::parse(uri(&login)).await?;
    let refused = Connector::new(&options)?.connect(&known.writable().await?).await.expect_err("an unknown authority");
    assert!(refused.to_string().contains("UnknownIssuer"), "{refused}");
    Ok(())
}

#[tokio::test]
async fn what_only_the_driver_can_do_is_left_to_it() -> Result<(), Failure> {
    for (uri, reason) in [
        ("mongodb://h/?loadBalanced=true", "a load balancer"),
        ("mongodb://%2Ftmp%2Fmongodb-27017.sock/", "a Unix domain socket"),
        ("mongodb://u:p@h/?authMechanism=PLAIN", "the log-in PLAIN"),
    ] {
        let options = mongodb::options::ClientOptions::parse(uri).await?;
        assert_eq!(Connector::new(&options).expect_err(uri), reason);
    }
    Ok(())
}

#[tokio::test]
async fn answers_are_the_bytes_that_the_driver_gets() -> Result<(), Failure> {
    let target = connected(&shared_target().await?.uri(), None).await?;
    let mut connection = target.connector()?.connect(&target.writable().await?).await?;
    let batch = batch([rawdoc! {"_id": 1, "x": 1}, rawdoc! {"_id": 2, "x": 1}, rawdoc! {"_id": {"a": "b"}, "x": 2}]);
    target
        .run("wire", doc! {"createIndexes": "same", "indexes": [{"key": {"x": 1}, "name": "x", "unique": true}]})
        .await?;
    let sequence = Sequence { name: "documents", documents: batch.bytes() };
    connection.exchange("wire", rawdoc! {"insert": "same", "ordered": false}, Some(sequence)).await?;
    for command in [
        rawdoc! {"insert": "same", "ordered": false},
        rawdoc! {"insert": "same", "ordered": false, "writeConcern": {"w": 9, "wtimeout": 1}},
        rawdoc! {"insert": "same", "nonsense": true},
    ] {
        connection.exchange("wire", rawdoc! {"delete": "same", "deletes": [{"q": {"x": 2}, "limit": 0}]}, None).await?;
        let ours = connection.exchange("wire", command.clone(), Some(sequence)).await?;
        connection.exchange("wire", rawdoc! {"delete": "same", "deletes": [{"q": {"x": 2}, "limit": 0}]}, None).await?;
        let mut whole = Document::try_from(command.as_ref())?;
        let all: Result<Vec<_>, _> = batch.iter().map(Document::try_from).collect();
        whole.insert("documents", all?);
        let drivers = target.run_raw("wire", RawDocumentBuf::try_from(&whole)?).await;
        match (failure(&ours), drivers) {
            (None, Ok(drivers)) => {
                let without_times = |mut reply: Document| {
                    ["$clusterTime", "operationTime", "electionId", "opTime"].iter().for_each(|name| {
                        reply.remove(name);
                    });
                    reply
                };
                let ours = RawDocumentBuf::try_from(&without_times(Document::try_from(ours.as_ref())?))?;
                let drivers = RawDocumentBuf::try_from(&without_times(drivers))?;
                assert_eq!(ours.as_bytes(), drivers.as_bytes(), "{ours:?}, {drivers:?}");
            }
            (Some(ours), Err(drivers)) => {
                assert_eq!((code_of(&ours), is_transient(&ours)), (code_of(&drivers), is_transient(&drivers)));
                assert_eq!(target.failed(&ours).to_string(), target.failed(&drivers).to_string());
            }
            (ours, drivers) => return Err(format!("{ours:?}, {drivers:?}").into()),
        }
    }
    Ok(())
}

#[tokio::test]
async fn documents_of_every_size_arrive_and_an_id_of_invalid_utf_8_is_recognised() -> Result<(), Failure> {
    let target = connected(&shared_target().await?.uri(), None).await?;
    let writers = Writers::new(target.clone(), None)?;
    let small = Collection::make(&target, "wire", "small").await?;
    let large = Collection::make(&target, "wire", "large").await?;
    let invalid = Collection::make(&target, "wire", "invalid").await?;
    assert_eq!(small.insert(&writers, (0..100_000).map(|id| rawdoc! {"_id": id})).await?, everything());

    // The largest document: 16,777,216 bytes.
    let mut largest = rawdoc! {"_id": 1, "text": "a".repeat(16 * 1024 * 1024 - 25)};
    assert_eq!(largest.as_bytes().len(), 16 * 1024 * 1024);
    assert_eq!(large.insert(&writers, [largest.clone()]).await?, everything());
    largest.append(mongodb::bson::cstr!("more"), 1);
    let answer = large.insert(&writers, [largest]).await;
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer != everything()), "more than there may be");

    let mut bytes = rawdoc! {"_id": "QQ"}.into_bytes();
    let at = bytes.len() - 4;
    bytes[at..at + 2].copy_from_slice(&[0xff, 0xfe]);
    let document = RawDocumentBuf::from_bytes(bytes)?;
    assert_eq!(invalid.insert(&writers, [document.clone()]).await?, everything());
    match invalid.insert(&writers, [document]).await? {
        Answer::Acknowledged(refusals) => assert!(refusals.len() == 1 && refusals[0].is_id_taken, "{refusals:?}"),
        answer => return Err(format!("{answer:?}").into()),
    }
    Ok(())
}

/// Makes the next command of these fail in this way.
async fn fail_next(client: &Client, command: &str, how: Document) -> Result<(), Failure> {
    let mut data = doc! {"failCommands": [command]};
    data.extend(how);
    let fail = doc! {"configureFailPoint": "failCommand", "mode": {"times": 1}, "data": data};
    client.database("admin").run_command(fail).await?;
    Ok(())
}

#[tokio::test]
async fn a_server_that_says_nothing_or_is_no_longer_primary_is_asked_again() -> Result<(), Failure> {
    let mut set = ReplicaSet::start(StartOptions { test_commands: true, ..Default::default() }).await?;
    let client = Client::with_uri_str(set.uri()).await?;
    let target = connected(&set.uri(), None).await?;
    let writers = Writers::new(target.clone(), None)?;
    let failing = Collection::make(&target, "wire", "failing").await?;
    for (how, code) in [
        (doc! {"closeConnection": true}, None),
        (doc! {"errorCode": 10107}, Some(10107)),
        (doc! {"errorCode": 91}, Some(91)),
    ] {
        fail_next(&client, "insert", how).await?;
        let failed = failing.insert(&writers, [rawdoc! {"a": 1}]).await.expect_err("it was made to fail");
        assert!(is_transient(&failed) && code_of(&failed) == code, "{failed}");
        assert_eq!(failing.insert(&writers, [rawdoc! {"a": 1}]).await?, everything());
    }
    fail_next(&client, "insert", doc! {"errorCode": 13}).await?;
    let failed = failing.insert(&writers, [rawdoc! {"a": 1}]).await.expect_err("it was made to fail");
    assert!(!is_transient(&failed), "{failed}");
    fail_next(&client, "insert", doc! {"writeConcernError": {"code": 64, "errmsg": "slow"}}).await?;
    let answer = failing.insert(&writers, [rawdoc! {"a": 1}]).await?;
    assert_eq!(answer, Answer::NoMajority("slow (code 64)".to_owned()));

    set.kill(0)?;
    let failed = failing.insert(&writers, [rawdoc! {"a": 1}]).await.expect_err("nobody is there");
    assert!(is_transient(&failed), "{failed}");
    set.restart(0)?;
    set.primary().await?;
    assert_eq!(failing.insert(&writers, [rawdoc! {"a": 1}]).await?, everything());
    Ok(())
}
