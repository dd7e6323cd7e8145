//! Keeps secrets out of everything that is written: results, logs, errors, journals, panics.
//!
//! Two nets, since either alone has holes. The first is by value: whoever meets a secret registers it here before
//! anything can be printed, and [`redact`] replaces it wherever it turns up later, also inside of a library's message.
//! The second is by form: what stands between `://` and `@` is replaced even if nobody registered it.
//!
//! Secrets of fewer than [`SHORTEST`] characters are caught by form only. Replacing every `a` would make all output
//! unreadable and, by the holes it leaves, tell the secret.

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use std::borrow::Cow;
use std::sync::{PoisonError, RwLock};

/// What stands in a secret's place.
pub const MASK: &str = "***";

/// The shortest secret that is replaced wherever it turns up, in characters.
pub const SHORTEST: usize = 3;

/// Longest first, so that a secret which contains another one goes as a whole.
static SECRETS: RwLock<Vec<String>> = RwLock::new(Vec::new());

/// The `authMechanismProperties` that are not secret.
const PLAIN_PROPERTIES: [&str; 8] = [
    "SERVICE_NAME",
    "SERVICE_REALM",
    "SERVICE_HOST",
    "CANONICALIZE_HOST_NAME",
    "ENVIRONMENT",
    "TOKEN_RESOURCE",
    "ALLOWED_HOSTS",
    "AWS_ACCESS_KEY_ID",
];

/// Registers a secret, in every form in which a message may quote it: as it is, percent-decoded and -encoded, and
/// escaped for JSON and for Rust's debug output.
pub fn register(secret: &str) {
    let decoded = percent_decode_str(secret).decode_utf8_lossy().into_owned();
    let mut forms = Vec::new();
    for plain in [secret, decoded.as_str()] {
        let json = serde_json::Value::from(plain).to_string();
        let debug = format!("{plain:?}");
        forms.extend([plain.to_owned(), unquoted(&json).to_owned(), unquoted(&debug).to_owned()]);
        forms.push(utf8_percent_encode(plain, NON_ALPHANUMERIC).to_string());
    }
    let mut secrets = SECRETS.write().unwrap_or_else(PoisonError::into_inner);
    for form in forms {
        if form.chars().count() >= SHORTEST && form != MASK && !secrets.contains(&form) {
            secrets.push(form);
        }
    }
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
}

fn unquoted(text: &str) -> &str {
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text)
}

/// Whether a character may be in the name of a secret or parameter that a setting refers to.
pub fn is_reference_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '/' | '_' | '+' | '=' | '.' | '@' | '-')
}

/// Where the reference ends that text after `://` begins with: `secretsmanager://a@b` and `ssm://arn:…:parameter/x` hold no
/// secret, they name one. None where it is none, such as a connection string behind the wrong scheme.
fn end_of_reference(before: &str, after: &str) -> Option<usize> {
    let is_parameter = before.ends_with("ssm://");
    if !is_parameter && !before.ends_with("secretsmanager://") {
        return None;
    }
    let end = after.find(|c: char| c != ':' && c != '#' && !is_reference_character(c)).unwrap_or(after.len());
    // Messages go on behind a colon; within a parameter's name it is before a version.
    let named = after[..end].trim_end_matches(':');
    let is_one = named.starts_with("arn:") || !named.contains(':') || (is_parameter && !named.contains('@'));
    is_one.then_some(named.len())
}

/// Registers every secret that a connection string may hold. It need not be well-formed: what cannot be parsed is the
/// very thing that ends up in error messages. Text without `://` holds none.
pub fn register_uri(text: &str) {
    let Some(at) = text.find("://") else { return };
    let (before, rest) = text.split_at(at + "://".len());
    if let Some(end) = end_of_reference(before, rest) {
        return register_uri(&rest[end..]);
    }
    // A well-formed URI's user info ends at the last `@` before the path; a malformed one's (`/`, `?` or `@` not encoded
    // in the password) perhaps much later. Taking too much is no harm.
    let authority = rest.find(['/', '?']).map_or(rest, |end| &rest[..end]);
    for part in [authority, rest] {
        let Some((user_info, _)) = part.rsplit_once('@') else { continue };
        match user_info.split_once(':') {
            Some((_, password)) => register(password),
            // A user name alone may be shown; with a character that a user name cannot hold it is something else.
            None if user_info.contains(['/', '?', '@']) => register(user_info),
            None => {}
        }
    }
    // `user:password` without the `@`, or after it: a port that is no number.
    for host in authority.rsplit('@').next().unwrap_or(authority).split(',') {
        if let Some((_, port)) = host.rsplit_once(':')
            && port.parse::<u16>().is_err()
            && !host.starts_with('[')
        {
            register(port);
        }
    }
    for option in rest.split(['?', '&', ';']) {
        let Some((name, value)) = option.split_once('=') else { continue };
        register_option(&name.to_ascii_lowercase(), value);
    }
}

fn register_option(name: &str, value: &str) {
    if name == "authmechanismproperties" {
        let decoded = percent_decode_str(value).decode_utf8_lossy().into_owned();
        let pairs = value.split(',').chain(decoded.split(',')).filter_map(|pair| pair.split_once(':'));
        for (property, value) in pairs {
            if !PLAIN_PROPERTIES.contains(&property.to_ascii_uppercase().as_str()) {
                register(value);
            }
        }
        return;
    }
    if ["password", "passwd", "pwd", "secret", "token"].iter().any(|word| name.contains(word)) {
        register(value);
    }
}

/// The text without secrets.
pub fn redact(text: &str) -> Cow<'_, str> {
    let mut result = redact_user_info(text);
    for secret in SECRETS.read().unwrap_or_else(PoisonError::into_inner).iter() {
        if result.contains(secret.as_str()) {
            result = Cow::Owned(result.replace(secret.as_str(), MASK));
        }
    }
    result
}

/// Replaces what stands between `://` and `@`. In a MongoDB URI that is up to the last `@`, since an `@` or a `/` in the
/// password should have been encoded but may not have been; elsewhere only what stands before the path.
fn redact_user_info(text: &str) -> Cow<'_, str> {
    if !text.contains("://") {
        return Cow::Borrowed(text);
    }
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + "://".len());
        result.push_str(before);
        if let Some(end) = end_of_reference(before, after) {
            result.push_str(&after[..end]);
            rest = &after[end..];
            continue;
        }
        let url_end =
            after.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '<' | '>')).unwrap_or(after.len());
        let url = &after[..url_end];
        let mongodb = before.ends_with("mongodb://") || before.ends_with("mongodb+srv://");
        let searched = match url.find('/') {
            Some(path) if !mongodb => &url[..path],
            _ => url,
        };
        rest = match searched.rfind('@') {
            Some(at) => {
                result.push_str(MASK);
                &after[at..]
            }
            None => after,
        };
    }
    result.push_str(rest);
    Cow::Owned(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_info_is_found_by_its_form() {
        for (text, shown) in [
            ("nothing here", "nothing here"),
            ("mongodb://h/", "mongodb://h/"),
            ("mongodb://u:p@h/", "mongodb://***@h/"),
            (
                "cannot reach mongodb+srv://u:p@h/db, mongodb://a:b@c",
                "cannot reach mongodb+srv://***@h/db, mongodb://***@c",
            ),
            ("`mongodb://u:p/w@h`", "`mongodb://***@h`"),
            ("mongodb://u:p@w@h", "mongodb://***@h"),
            ("s3://bucket/a@b", "s3://bucket/a@b"),
            ("http://k:s@minio:9000/a@b", "http://***@minio:9000/a@b"),
            ("http://minio/ me@example.org", "http://minio/ me@example.org"),
            ("secretsmanager://shop@prod#uri: no", "secretsmanager://shop@prod#uri: no"),
            ("'ssm:///a', 'mongodb://u:p@h'", "'ssm:///a', 'mongodb://***@h'"),
            ("secretsmanager://u:p@h", "secretsmanager://***@h"),
        ] {
            assert_eq!(redact(text), shown);
        }
    }

    /// Every place where people put passwords. Each row's secret is of its own, since the registry is shared.
    #[test]
    fn secrets_are_found_by_their_value() {
        for (uri, secret) in [
            ("mongodb://u:plain-1x@h/", "plain-1x"),
            ("mongodb://u:en%40coded-2x@h/", "en%40coded-2x"),
            ("mongodb://u:en%40coded-3x@h/", "en@coded-3x"),
            ("mongodb://u:with@sign-4x@h/", "with@sign-4x"),
            ("mongodb://u:with:colon-5x@h/", "with:colon-5x"),
            ("mongodb://u:with/slash-6x@h/", "with/slash-6x"),
            ("mongodb://u:with?mark-7x@h/", "with?mark-7x"),
            ("mongodb://u:forgot-8x", "forgot-8x"),
            ("mongodb://h:27017,u:forgot-9x/db", "forgot-9x"),
            ("mongodb://h/?tls=true&tlsCertificateKeyFilePassword=key-10x", "key-10x"),
            ("mongodb://h/?tlscertificatekeyfilepassword=key%20-11x", "key -11x"),
            ("mongodb://h?proxyPassword=proxy-12x", "proxy-12x"),
            ("mongodb://h/?authMechanismProperties=AWS_SESSION_TOKEN:tok/13x==", "tok/13x=="),
            ("mongodb://h/?authMechanismProperties=A:1,AWS_SESSION_TOKEN%3Atok%2F14x", "tok/14x"),
            ("mongo://u:other-scheme-15x@h/", "other-scheme-15x"),
            ("mongodb://u:quo\"te\\-16x@h/", "quo\"te\\-16x"),
            ("mongodb://u:naïve-17x@h/", "naïve-17x"),
            ("mongodb://h/?password=query-18x", "query-18x"),
            ("mongodb://h/?appName=a@b&proxyPassword=proxy-19x", "proxy-19x"),
            ("['secretsmanager://shop@prod', 'mongodb://u:after-22x@h/']", "after-22x"),
            ("secretsmanager://u:instead-23x@h/", "instead-23x"),
        ] {
            register_uri(uri);
            for text in [
                format!("failed: {secret}"),
                format!("failed: {secret:?}"),
                serde_json::json!({ "error": format!("a {secret} b") }).to_string(),
                utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string(),
            ] {
                let shown = redact(&text);
                assert!(shown.contains(MASK) && !shown.contains(secret.trim_end_matches('=')), "{uri}: {shown}");
            }
        }
    }

    #[test]
    fn what_is_not_secret_stays() {
        register_uri(
            "mongodb://sven:pw-20x@host-20/?authMechanismProperties=SERVICE_NAME:service-20,AWS_ACCESS_KEY_ID:AKIA20",
        );
        register_uri("mongodb://CN=client-21@[fe80::21]:27017/");
        register_uri("secretsmanager://arn:aws:secretsmanager:eu-west-1:123456789012:secret:name-24");
        register_uri("ssm://arn:aws:ssm:eu-west-1:123456789012:parameter-25/x");
        register_uri("secretsmanager://team-26/mongo@prod-26");
        let references = "name-24 parameter-25 team-26/mongo prod-26";
        assert_eq!(redact(references), references);
        assert_eq!(
            redact("sven service-20 AKIA20 host-20 CN=client-21 fe80::21"),
            "sven service-20 AKIA20 host-20 CN=client-21 fe80::21"
        );
    }

    #[test]
    fn short_secrets_do_not_garble_everything() {
        register("e");
        register("or");
        register("");
        assert_eq!(redact("one error"), "one error");
    }

    #[test]
    fn a_secret_within_another_leaves_nothing_behind() {
        register("inner-30x");
        register("outer-inner-30x-outer");
        assert_eq!(redact("<outer-inner-30x-outer> <inner-30x>"), "<***> <***>");
    }
}
