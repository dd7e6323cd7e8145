//! From `--state` to a store.

use super::folder::FolderStore;
use super::s3::{S3Settings, S3Store};
use super::store::{StateStore, valid_key};
use crate::error::{Error, Result};
use std::sync::Arc;

/// Whether this names an object store, and not a folder.
pub fn is_object_store(url: &str) -> bool {
    url.starts_with("s3://")
}

/// The store that `url` names: a folder's path, or `s3://bucket/prefix` (the prefix may be missing). `s3` means
/// nothing to a folder.
///
/// Changes nothing and asks no server for anything about the state (the AWS SDK may ask for a region): what does not
/// answer, or does not allow, shows at the first use.
pub async fn open_store(url: &str, s3: S3Options<'_>) -> Result<Arc<dyn StateStore>> {
    if let Some(rest) = url.strip_prefix("s3://") {
        let (bucket, prefix) = parse_s3(url, rest)?;
        let endpoint = s3.endpoint.map(parse_endpoint).transpose()?;
        let owner = s3.owner.map(str::to_owned);
        let settings = S3Settings { url: s3_url(&bucket, &prefix), bucket, prefix, endpoint, owner };
        return Ok(Arc::new(S3Store::open(settings).await));
    }
    check_folder(url)?;
    Ok(Arc::new(FolderStore::open(url)))
}

/// What the settings of a process say about its store.
#[derive(Debug, Clone, Copy, Default)]
pub struct S3Options<'a> {
    /// Where to find a server other than AWS.
    pub endpoint: Option<&'a str>,
    /// The AWS account that the bucket must belong to.
    pub owner: Option<&'a str>,
}

fn s3_url(bucket: &str, prefix: &str) -> String {
    if prefix.is_empty() { format!("s3://{bucket}") } else { format!("s3://{bucket}/{prefix}") }
}

fn parse_s3(url: &str, rest: &str) -> Result<(String, String)> {
    if rest.contains('@') {
        // Whatever stands before the @ may be a secret.
        return Err(Error::bad_input(
            "the state's s3:// URL holds an `@`; write s3://bucket/prefix and give credentials as the AWS SDK finds them \
             (environment, profile, role)",
        ));
    }
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err(Error::bad_input(format!("state `{url}` names no bucket; write s3://bucket/prefix")));
    }
    if let Err(rule) = check_bucket(bucket) {
        return Err(Error::bad_input(format!("state `{url}`: bucket `{bucket}` {rule}; write s3://bucket/prefix")));
    }
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    if !prefix.is_empty() && !valid_key(prefix) {
        return Err(Error::bad_input(format!(
            "state `{url}`: prefix `{prefix}` may only hold letters, digits, `.`, `_`, `-` between single slashes, no part \
             of it beginning with a dot; choose another prefix"
        )));
    }
    Ok((bucket.to_owned(), prefix.to_owned()))
}

/// AWS's rules for the names of general purpose buckets; MinIO has the same.
fn check_bucket(bucket: &str) -> Result<(), &'static str> {
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = bucket.as_bytes();
    if !(3..=63).contains(&bytes.len()) {
        return Err("must be 3 to 63 characters long");
    }
    if !bytes.iter().all(|byte| alphanumeric(byte) || matches!(byte, b'.' | b'-')) {
        return Err("may only hold lower-case letters, digits, `.` and `-`");
    }
    if !bytes.first().is_some_and(alphanumeric) || !bytes.last().is_some_and(alphanumeric) {
        return Err("must begin and end with a letter or digit");
    }
    if bucket.contains("..") {
        return Err("may not hold two dots in a row");
    }
    if bucket.parse::<std::net::Ipv4Addr>().is_ok() {
        return Err("may not be an IP address");
    }
    Ok(())
}

fn parse_endpoint(endpoint: &str) -> Result<String> {
    let way_out = "write http://host:port or https://host:port";
    let rest = endpoint.strip_prefix("http://").or_else(|| endpoint.strip_prefix("https://"));
    if endpoint.contains('@') {
        return Err(Error::bad_input(format!(
            "the S3 endpoint holds an `@`; {way_out} and give credentials as the AWS SDK finds them (environment, profile, \
             role)"
        )));
    }
    let Some(rest) = rest else {
        return Err(Error::bad_input(format!("S3 endpoint `{endpoint}` is no http:// or https:// URL; {way_out}")));
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match rest.rsplit_once(':') {
        // An IPv6 address in brackets holds colons of its own.
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (rest, None),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).map_or_else(
        || {
            !host.is_empty()
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
        },
        |address| address.parse::<std::net::Ipv6Addr>().is_ok(),
    );
    if !host || port.is_some_and(|port| !port.parse::<u16>().is_ok_and(|port| port > 0)) {
        return Err(Error::bad_input(format!("S3 endpoint `{endpoint}` is malformed; {way_out}, without a path")));
    }
    Ok(endpoint.strip_suffix('/').unwrap_or(endpoint).to_owned())
}

fn check_folder(url: &str) -> Result<()> {
    let way_out = "give a folder, or s3://bucket/prefix";
    if url.is_empty() {
        return Err(Error::bad_input(format!("the state's location is empty; {way_out}")));
    }
    if let Some((scheme, _)) = url.split_once("://") {
        // The rest may hold a secret: somebody may have put a connection string here.
        return Err(Error::bad_input(format!("the state cannot be kept in a `{scheme}://` URL; {way_out}")));
    }
    if url.starts_with("s3:") || url.starts_with("S3:") {
        return Err(Error::bad_input(format!("state `{url}` is malformed; {way_out}")));
    }
    if url.starts_with('~') {
        return Err(Error::bad_input(format!("state `{url}`: only a shell knows what `~` means; give the whole path")));
    }
    if url.contains(|character: char| character.is_control()) {
        return Err(Error::bad_input(format!("state {url:?} holds a control character; {way_out}")));
    }
    if std::fs::metadata(url).is_ok_and(|metadata| !metadata.is_dir()) {
        return Err(Error::bad_input(format!("state `{url}` is not a folder; {way_out}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;
    use crate::error::Kind;

    #[tokio::test]
    async fn malformed_locations_are_bad_input_that_names_them() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let file = file.path().to_str().unwrap().to_owned();
        let long = format!("s3://{}", "b".repeat(64));
        for (url, says) in [
            ("", "empty"),
            ("http://127.0.0.1:9000/bucket", "`http://` URL"),
            ("gs://bucket", "`gs://` URL"),
            ("file:///tmp/x", "`file://` URL"),
            ("S3://bucket", "`S3://` URL"),
            ("s3:bucket", "malformed"),
            ("s3:/bucket/x", "malformed"),
            ("s3://", "names no bucket"),
            ("s3:///prefix", "names no bucket"),
            ("s3://ab", "3 to 63"),
            (&long, "3 to 63"),
            ("s3://Bucket/x", "lower-case"),
            ("s3://my_bucket/x", "lower-case"),
            ("s3://bucket:9000/x", "lower-case"),
            ("s3://-bucket", "begin and end"),
            ("s3://buc..ket", "two dots"),
            ("s3://10.0.0.1/x", "IP address"),
            ("s3://bucket//x", "prefix `/x`"),
            ("s3://bucket/a/../b", "prefix `a/../b`"),
            ("s3://bucket/a b", "prefix `a b`"),
            ("s3://bucket/x?versionId=1", "prefix"),
            ("s3://bucket/.x", "prefix"),
            ("~/state", "whole path"),
            ("a\nb", "control character"),
            (&file, "is not a folder"),
        ] {
            let error = open_store(url, S3Options::default()).await.unwrap_err();
            assert_eq!(error.kind(), Kind::BadInput, "{url}");
            assert!(error.to_string().contains(says), "{url}: {error}");
            assert!(!error.to_string().contains('\n'), "{url}: {error}");
        }
    }

    #[tokio::test]
    async fn a_secret_in_the_wrong_place_is_not_shown() {
        for (url, endpoint) in [
            ("mongodb://user:hunter2@host/db", None),
            ("s3://key:hunter2@bucket/x", None),
            ("s3://bucket", Some("http://key:hunter2@host:9000")),
            ("s3://bucket", Some("key:hunter2@host:9000")),
        ] {
            let error = open_store(url, S3Options { endpoint, owner: None }).await.unwrap_err();
            assert_eq!(error.kind(), Kind::BadInput, "{url}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn endpoints() {
        for good in [
            "http://127.0.0.1:9000",
            "https://minio.example.com",
            "http://[::1]:9000",
            "http://[::1]",
            "http://minio:9000/",
        ] {
            assert_eq!(parse_endpoint(good).unwrap(), good.trim_end_matches('/'));
        }
        for bad in [
            "",
            "127.0.0.1:9000",
            "http://",
            "http://:9000",
            "http://a:b",
            "http://a:0",
            "http://a:70000",
            "ftp://a",
            "http://a/b",
            "http://a b",
        ] {
            let error = parse_endpoint(bad).unwrap_err().to_string();
            assert!(error.contains(&format!("`{bad}`")), "{error}");
        }
    }

    #[tokio::test]
    async fn well_formed_locations_open_and_change_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("not/yet");
        let path = path.to_str().unwrap();
        let store = open_store(path, S3Options::default()).await.unwrap();
        assert_eq!(store.url(), path);
        assert_eq!(store.list("").await.unwrap(), Vec::<String>::new());
        assert!(!std::path::Path::new(path).exists());
        assert!(is_object_store("s3://bucket/a") && !is_object_store(path) && !is_object_store("./s3"));
        for (url, bucket, prefix) in [
            ("s3://bucket", "bucket", ""),
            ("s3://bucket/", "bucket", ""),
            ("s3://my.bucket-1/a/b.c/", "my.bucket-1", "a/b.c"),
        ] {
            let parsed = parse_s3(url, url.strip_prefix("s3://").unwrap()).unwrap();
            assert_eq!(parsed, (bucket.to_owned(), prefix.to_owned()));
        }
    }
}
