//! What `--http` serves, asked for as a client does: over a socket of its own, while a real job runs.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use mongoferry::clock;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::data::{self, SHARED, SHARED_LARGE};
use crate::support::ferry::{Ferry, files};
use crate::support::running::Running;
use crate::support::servers::{Failure, shared_source, shared_target};

/// Far more than anything here takes: only a hang reaches it.
const AT_MOST: Duration = Duration::from_secs(90);

/// An answer: its status, its head in lower case, its body.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

/// Asks once, and reads to the end.
fn ask_with(address: SocketAddr, method: &str, path: &str, host: &str) -> Result<Answer, Failure> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(AT_MOST))?;
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| format!("no head in {text:?}"))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or("no status")?;
    Ok(Answer { status, head: head.to_ascii_lowercase(), body: body.to_owned() })
}

fn ask(address: SocketAddr, method: &str, path: &str) -> Result<Answer, Failure> {
    ask_with(address, method, path, "localhost")
}

/// A job that copies the shared data to a name of its own.
async fn job(name: &str) -> Result<(Ferry, TempDir), Failure> {
    data::shared().await?;
    let (source, target) = (shared_source().await?, shared_target().await?);
    let directory = tempfile::tempdir()?;
    let copy = format!("http_{name}");
    let ferry = Ferry::new(directory.path(), &source.uri(), &target.uri(), name)
        .set("MONGOFERRY_INCLUDE", SHARED)
        .set("MONGOFERRY_RENAME", format!("{SHARED}:{copy}"))
        .set("MONGOFERRY_CHECKPOINT_NAMESPACE", format!("mongoshake.{copy}"))
        .set("MONGOFERRY_SAVE_INTERVAL", "50ms")
        .set("MONGOFERRY_LEASE", "10m");
    Ok((ferry, directory))
}

/// A job of which one worker has copied some and is frozen, and another one that serves, and waits for the first: so
/// nothing moves for as long as the lease.
async fn frozen(name: &str) -> Result<(Ferry, [Running; 2], SocketAddr, TempDir), Failure> {
    let (ferry, directory) = job(name).await?;
    for step in ["discover", "plan", "prepare"] {
        ferry.run(&["step", step]).await.expect(0);
    }
    let mut first = Running::start(&ferry, &["step", "copy"])?;
    first.has_written(&ferry, 1).await?;
    first.signal(Signal::STOP)?;
    let second = Running::start(&ferry, &["step", "copy", "--http", ":0"])?;
    let address = second.served_at().await?;
    Ok((ferry, [first, second], address, directory))
}

/// Asks until the job was looked at.
async fn progress(address: SocketAddr) -> Result<Value, Failure> {
    let since = clock::monotonic();
    loop {
        let answer = ask(address, "GET", "/progress")?;
        if answer.status == 200 {
            return Ok(serde_json::from_str(&answer.body)?);
        }
        if since.elapsed() > AT_MOST {
            return Err(format!("{}: {}", answer.status, answer.body).into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn progress_is_what_status_says() -> Result<(), Failure> {
    let (ferry, [first, second], address, _directory) = frozen("equal").await?;
    // The frozen worker may have had a save on its way: what is compared is read on both sides of the look.
    let mut served = progress(address).await?;
    let mut status = ferry.status().await.ok_or("no status")?;
    for _ in 0..50 {
        served = progress(address).await?;
        let live = served.as_object_mut().and_then(|fields| fields.remove("live")).ok_or("no live part")?;
        assert!(live["run"].is_string() && live["looked"].is_string(), "{live}");
        if served == status {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        status = ferry.status().await.ok_or("no status")?;
    }
    assert_eq!(served, status);
    assert!(status["documents"]["written"].as_u64() >= Some(1), "{status}");

    let metrics = ask(address, "GET", "/metrics")?;
    assert_eq!(metrics.status, 200);
    assert!(metrics.head.contains("content-type: text/plain; version=0.0.4"), "{}", metrics.head);
    let written = format!("mongoferry_documents_written_total {}\n", status["documents"]["written"]);
    assert!(metrics.body.contains(&written), "{written} is not in {}", metrics.body);
    assert_eq!(ask(address, "GET", "/healthz")?.body, "ok\n", "waiting for another worker is well");

    // Both are told to stop; the server is gone with its run, though a client hangs on it.
    let mut stuck = TcpStream::connect(address)?;
    stuck.write_all(b"GET /progress HTTP/1.1\r\nHost: localhost\r\n")?;
    first.signal(Signal::CONT)?;
    for worker in [&first, &second] {
        worker.signal(Signal::TERM)?;
    }
    second.ended_within(AT_MOST).await?;
    first.ended_within(AT_MOST).await?;
    assert!(TcpStream::connect(address).is_err(), "somebody still listens");
    Ok(())
}

#[tokio::test]
async fn progress_never_goes_back_while_a_job_runs_and_ends_as_status_says() -> Result<(), Failure> {
    let (ferry, _directory) = job("runs").await?;
    let mut worker = Running::start(&ferry, &["step", "all", "--http", "127.0.0.1:0"])?;
    let address = worker.served_at().await?;
    let (mut seen, mut last) = (0, 0);
    while !worker.has_ended()? {
        // A run that is just ending may have let go of the socket.
        if let Ok(answer) = ask(address, "GET", "/progress")
            && answer.status == 200
        {
            let now: Value = serde_json::from_str(&answer.body)?;
            let written = now["documents"]["written"].as_u64().ok_or("no number")?;
            assert!(written >= last, "{written} after {last}");
            (seen, last) = (seen + 1, written);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    worker.ended_within(AT_MOST).await?.expect(0);
    let status = ferry.status().await.ok_or("no status")?;
    let written = status["documents"]["written"].as_u64().ok_or("no number")?;
    assert_eq!(written, SHARED_LARGE + 500);
    assert!(seen > 0 && last <= written, "{seen} looks, {last} of {written}");
    assert_eq!((&status["percent"], &status["eta_seconds"]), (&Value::from(100.0), &Value::Null));
    Ok(())
}

#[tokio::test]
async fn what_is_not_there_is_refused_and_clients_do_not_disturb_each_other() -> Result<(), Failure> {
    let (ferry, _workers, address, directory) = frozen("refuses").await?;
    // One that never finishes its request, and one that never reads its answer.
    let mut slow = TcpStream::connect(address)?;
    slow.write_all(b"GET / HT")?;
    let mut deaf = TcpStream::connect(address)?;
    deaf.write_all("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(200).as_bytes())?;

    progress(address).await?;
    let page = ask(address, "GET", "/")?;
    assert_eq!(page.status, 200);
    for part in ["cache-control: no-store", "content-security-policy: default-src 'none'; script-src 'sha256-"] {
        assert!(page.head.contains(part), "{part} is not in {}", page.head);
    }
    for path in ["/", "/progress", "/metrics", "/healthz"] {
        let (head, get) = (ask(address, "HEAD", path)?, ask(address, "GET", path)?);
        assert_eq!((head.status, head.body.as_str(), get.status), (200, "", 200), "{path}");
        assert!(head.head.contains("content-length: "), "{path}: {}", head.head);
        let posted = ask(address, "POST", path)?;
        assert_eq!(posted.status, 405, "{path}");
        assert!(posted.head.contains("allow: get, head"), "{path}: {}", posted.head);
    }
    for path in ["/nothing", "/progress/", "/page.html", "/../etc/passwd"] {
        assert_eq!(ask(address, "GET", path)?.status, 404, "{path}");
    }
    assert_eq!(ask_with(address, "GET", "/progress", "example.org")?.status, 403, "DNS rebinding");
    assert_eq!(ask_with(address, "GET", "/progress", "[::1]:80")?.status, 200);
    let huge = format!("/{}", "x".repeat(100_000));
    // A server that does not read on may have closed before the whole request was sent.
    if let Ok(answer) = ask(address, "GET", &huge) {
        assert!(answer.status == 414 || answer.status == 431, "{}", answer.status);
    }

    // The slow client is cut off.
    slow.set_read_timeout(Some(AT_MOST))?;
    let mut rest = Vec::new();
    match slow.read_to_end(&mut rest) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    assert_eq!(ask(address, "GET", "/healthz")?.status, 200);

    // An address in use is bad input, before anything was changed.
    let before = files(directory.path());
    let ran = ferry.run(&["step", "copy", "--http", &address.to_string()]).await.expect(2);
    assert!(ran.stderr.contains(&format!("--http {address} is in use")), "{}", ran.stderr);
    assert_eq!(files(directory.path()).len(), before.len());
    Ok(())
}

#[tokio::test]
async fn an_address_in_use_is_refused_before_a_job_begins() -> Result<(), Failure> {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let directory = tempfile::tempdir()?;
    // Neither server is there: nobody gets as far as asking one.
    let ferry = Ferry::new(directory.path(), "mongodb://127.0.0.1:1/", "mongodb://127.0.0.1:1/", "early");
    let ran = ferry.run(&["step", "all", "--http", &taken.local_addr()?.to_string()]).await.expect(2);
    assert!(ran.stdout.is_empty() && ran.stderr.contains("choose another port"), "{}{}", ran.stdout, ran.stderr);
    assert!(files(directory.path()).is_empty());
    Ok(())
}
