//! A MongoDB connection string: checked by its form alone, and never shown with what is secret in it.
//!
//! Checked here and not by connecting, so that a typing error is found at once and without DNS, which a
//! `mongodb+srv://` needs to be resolved. No message quotes what stands before the hosts, nor a port: where the `@` is
//! missing, the port is a password.

use crate::redact;
use percent_encoding::percent_decode_str;
use std::fmt;

/// A connection string of good form. Shown as `mongodb://***@host1,host2/…`; never serialised.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectionString {
    text: String,
    scheme: &'static str,
    has_user_info: bool,
    hosts: String,
    /// Name and decoded value, in their order.
    options: Vec<(String, String)>,
}

const PLAIN: &str = "mongodb://";
const SRV: &str = "mongodb+srv://";

/// What people need to hear who have a password with a `/` in it.
const ENCODE: &str = "in a user name and password, write `%` as %25, `@` as %40, `:` as %3A, `/` as %2F, `?` as %3F";

impl ConnectionString {
    /// Checks it, and registers its secrets (even where the check fails). The error says what is wrong, without quoting
    /// more than a host's or an option's name.
    pub fn parse(text: &str) -> Result<Self, String> {
        redact::register_uri(text);
        let (scheme, rest) = if let Some(rest) = text.strip_prefix(PLAIN) {
            (PLAIN, rest)
        } else if let Some(rest) = text.strip_prefix(SRV) {
            (SRV, rest)
        } else {
            return Err(format!("a connection string starts with {PLAIN} or {SRV}"));
        };

        let (before_options, options) = rest.split_once('?').unwrap_or((rest, ""));
        let (user_info, after_user) = match before_options.rsplit_once('@') {
            Some((user_info, after)) => (Some(user_info), after),
            None => (None, before_options),
        };
        if let Some(user_info) = user_info {
            check_user_info(user_info)?;
        }
        let (hosts, database) = after_user.split_once('/').unwrap_or((after_user, ""));
        check_hosts(scheme, hosts)?;
        let database = decode(database).ok_or("the database's name is not percent-encoded text")?;
        if database.contains(['/', '\\', ' ', '"', '$', '.', '\0']) {
            return Err(
                "the database's name holds a character that none can (`/`, `\\`, `.`, space, `\"`, `$`)".to_owned()
            );
        }
        let parsed = Self {
            text: text.to_owned(),
            scheme,
            has_user_info: user_info.is_some(),
            hosts: hosts.to_owned(),
            options: parse_options(options)?,
        };
        parsed.check_with_driver()?;
        Ok(parsed)
    }

    /// The string itself, for the driver and nobody else.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// An option of the query, decoded; the names' case does not matter.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().find(|(option, _)| option.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The options that ask for less than mongoferry needs, and that it overrides: each with its value.
    pub fn weaker_than_majority(&self) -> Vec<String> {
        let weaker = |(name, value): &&(String, String)| match name.to_ascii_lowercase().as_str() {
            "w" => value != "majority",
            "journal" | "j" => value == "false",
            "readconcernlevel" => !matches!(value.as_str(), "majority" | "linearizable"),
            _ => false,
        };
        self.options.iter().filter(weaker).map(|(name, value)| format!("{name}={value}")).collect()
    }

    /// What the driver knows about option values, without its DNS look-ups.
    fn check_with_driver(&self) -> Result<(), String> {
        match mongodb::options::ConnectionString::parse(&self.text) {
            Ok(_) => Ok(()),
            Err(error) => match error.kind.as_ref() {
                mongodb::error::ErrorKind::InvalidArgument { message, .. } => Err(redact::redact(message).into_owned()),
                _ => Err("the MongoDB driver does not accept it".to_owned()),
            },
        }
    }
}

fn check_user_info(user_info: &str) -> Result<(), String> {
    let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
    if user.is_empty() {
        return Err("the user name before `@` is empty".to_owned());
    }
    let reserved = ['/', '?', '#', '[', ']', '@', ':'];
    if user.contains(reserved) || password.contains(reserved) {
        return Err(format!("the user name or password holds a character that must be percent-encoded; {ENCODE}"));
    }
    if decode(user).is_none() || decode(password).is_none() {
        return Err(format!("the user name or password has a `%` that does not begin an encoded character; {ENCODE}"));
    }
    Ok(())
}

fn check_hosts(scheme: &str, hosts: &str) -> Result<(), String> {
    if hosts.is_empty() {
        return Err("it names no host".to_owned());
    }
    if scheme == SRV && (hosts.contains(',') || hosts.contains(':')) {
        return Err(format!("{SRV} takes exactly one host, without a port"));
    }
    for (index, host) in hosts.split(',').enumerate() {
        let number = index + 1;
        let (name, port) = match host.strip_prefix('[') {
            Some(ipv6) => match ipv6.split_once(']') {
                Some((address, after)) => (address, after.strip_prefix(':').or((!after.is_empty()).then_some("?"))),
                None => return Err(format!("host {number}: the IPv6 address has no closing `]`")),
            },
            None => host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port))),
        };
        if name.is_empty() {
            return Err(format!("host {number} is empty"));
        }
        if decode(name).is_none() || name.contains(char::is_whitespace) {
            return Err(format!("host {number} is not a host's name"));
        }
        if port.is_some_and(|port| !port.parse::<u16>().is_ok_and(|port| port > 0)) {
            return Err(format!(
                "the port of host {number} is not a number from 1 to 65535 (a password needs an `@` behind it; {ENCODE})"
            ));
        }
    }
    Ok(())
}

fn parse_options(options: &str) -> Result<Vec<(String, String)>, String> {
    let mut parsed: Vec<(String, String)> = Vec::new();
    for option in options.split('&').filter(|option| !option.is_empty()) {
        let Some((name, value)) = option.split_once('=') else {
            return Err("an option after `?` is not NAME=VALUE, or `?` in a password is not written %3F".to_owned());
        };
        match (name.is_empty(), decode(value)) {
            (false, Some(value)) => parsed.push((name.to_owned(), value)),
            _ => {
                return Err(
                    "an option after `?` has no name, or a `%` that does not begin an encoded character".to_owned()
                );
            }
        }
    }
    Ok(parsed)
}

/// The percent-decoded text; none where a `%` stands for nothing or the result is not UTF-8.
fn decode(text: &str) -> Option<String> {
    let stray = text.match_indices('%').any(|(at, _)| {
        let digits = text.as_bytes().get(at + 1..at + 3);
        !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    });
    if stray {
        return None;
    }
    percent_decode_str(text).decode_utf8().ok().map(|decoded| decoded.into_owned())
}

impl fmt::Display for ConnectionString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user_info = if self.has_user_info { "***@" } else { "" };
        write!(f, "{}{user_info}{}/…", self.scheme, self.hosts)
    }
}

impl fmt::Debug for ConnectionString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;

    #[test]
    fn good_ones_are_shown_without_their_secrets() {
        for (text, shown) in [
            ("mongodb://h", "mongodb://h/…"),
            ("mongodb://a:27017,b:27018/db?replicaSet=rs", "mongodb://a:27017,b:27018/…"),
            ("mongodb://user-a:secret-50x@h/", "mongodb://***@h/…"),
            ("mongodb+srv://u:p%40w@cluster.example.net/?retryWrites=true", "mongodb+srv://***@cluster.example.net/…"),
            ("mongodb://[::1]:27017,[fe80::1]", "mongodb://[::1]:27017,[fe80::1]/…"),
            ("mongodb://%2Ftmp%2Fmongodb-27017.sock/", "mongodb://%2Ftmp%2Fmongodb-27017.sock/…"),
            ("mongodb://h?w=1", "mongodb://h/…"),
        ] {
            let parsed = ConnectionString::parse(text).unwrap();
            assert_eq!((parsed.to_string().as_str(), format!("{parsed:?}").as_str()), (shown, shown));
            assert_eq!(parsed.expose(), text);
        }
    }

    #[test]
    fn bad_ones_are_explained_and_not_quoted() {
        for (text, reason) in [
            ("", "starts with mongodb://"),
            ("localhost:27017", "starts with mongodb://"),
            ("http://u:secret51@h", "starts with mongodb://"),
            ("MONGODB://u:secret51@h", "starts with mongodb://"),
            ("mongodb://", "names no host"),
            ("mongodb:///db", "names no host"),
            ("mongodb://u:secret51@", "names no host"),
            ("mongodb://u:secret51@/db", "names no host"),
            ("mongodb://a,,b", "host 2 is empty"),
            ("mongodb://a,:27017", "host 2 is empty"),
            ("mongodb://u:secret51", "the port of host 1"),
            ("mongodb://h:0", "the port of host 1"),
            ("mongodb://h:70000", "the port of host 1"),
            ("mongodb://a:1,u:secret51", "the port of host 2"),
            ("mongodb://[::1", "no closing `]`"),
            ("mongodb://[::1]secret51", "the port of host 1"),
            ("mongodb://a b", "is not a host's name"),
            ("mongodb://:secret51@h", "user name before `@` is empty"),
            ("mongodb://u:zq51@ret51@h", "must be percent-encoded"),
            ("mongodb://u:zq51:ret51@h", "must be percent-encoded"),
            ("mongodb://u:zq51/ret51@h", "must be percent-encoded"),
            ("mongodb://u:zq51?ret51@h", "the port of host 1"),
            ("mongodb://u:zq51%ret51@h", "does not begin an encoded character"),
            ("mongodb://u:zq51%ff51@h", "does not begin an encoded character"),
            ("mongodb+srv://h:27017", "exactly one host, without a port"),
            ("mongodb+srv://a,b", "exactly one host, without a port"),
            ("mongodb://h/a.b", "database's name"),
            ("mongodb://h/?w", "not NAME=VALUE"),
            ("mongodb://h/?tls=perhaps", "tls"),
            ("mongodb://h/?authMechanism=GUESS-51", "mechanism"),
            ("mongodb://h/?connectTimeoutMS=soon", "connectTimeoutMS"),
        ] {
            let refused = ConnectionString::parse(text).unwrap_err();
            assert!(refused.to_lowercase().contains(&reason.to_lowercase()), "{text}: {refused}");
            assert!(!refused.contains("ret51") && !refused.contains('\n'), "{text}: {refused}");
        }
    }

    #[test]
    fn weak_guarantees_are_noticed() {
        let parsed = ConnectionString::parse("mongodb://h/?w=1&journal=false&readConcernLevel=local").unwrap();
        assert_eq!(parsed.weaker_than_majority(), ["w=1", "journal=false", "readConcernLevel=local"]);
        let parsed = ConnectionString::parse("mongodb://h/?w=majority&journal=true&appName=a%20b").unwrap();
        assert!(parsed.weaker_than_majority().is_empty());
        assert_eq!(parsed.option("APPNAME"), Some("a b"));
    }
}
