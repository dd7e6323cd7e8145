//! The TOML file: the flags' names as keys, texts as values, lists as arrays or with commas.
//!
//! Read as a plain table and held against [`SETTINGS`], not deserialised into a struct: the message about an unknown key
//! can then say which one was meant, and no message quotes the line, as those of a TOML parser do, with the password on
//! it. The tables `[shard-keys]` and `[filters]` are what can be said nowhere else.

use super::layer::{Places, SETTINGS, Texts, find, nearest};
use crate::error::{Error, Result};
use crate::model::document_filter::DocumentFilter;
use crate::model::namespace::Namespace;
use crate::model::target_sharding::AskedKey;
use crate::redact;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The file that is read when none is named, if it is there.
pub const DEFAULT_NAME: &str = "mongoferry.toml";

/// The table of shard keys.
pub(super) const SHARD_KEYS: &str = "shard-keys";

/// The table of filters of documents.
pub const FILTERS: &str = "filters";

/// What a file says.
#[derive(Clone, Default)]
pub struct Content {
    /// Settings by name.
    pub texts: BTreeMap<&'static str, Texts>,
    /// By what collections are to be sharded, by the source's names.
    pub shard_keys: BTreeMap<Namespace, AskedKey>,
    /// Which documents of collections are copied, by the source's names.
    pub filters: BTreeMap<Namespace, DocumentFilter>,
}

/// The file to read: the one that is named, which must be there, or else the default one, which need not.
pub fn read(named: Option<&str>, directory: &Path) -> Result<Option<(PathBuf, Content)>> {
    let path = named.map_or_else(|| PathBuf::from(DEFAULT_NAME), PathBuf::from);
    let text = match std::fs::read_to_string(directory.join(&path)) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => return Ok(None),
        Err(error) => {
            return Err(Error::bad_input(format!(
                "cannot read the settings in {}: {error}; name another file with --config",
                path.display()
            )));
        }
    };
    let content = content(table(&text, &path)?, &path)?;
    Ok(Some((path, content)))
}

/// What this text is as TOML; `path` is where it was read, for messages.
pub(super) fn table(text: &str, path: &Path) -> Result<toml::Table> {
    for line in text.lines() {
        redact::register_uri(line);
    }
    let file = path.display();
    toml::from_str(text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let reason = error.message().replace('\n', ", ");
        Error::bad_input(format!("{file}, line {line}, is not TOML: {reason}"))
    })
}

/// What the table says.
pub(super) fn content(table: toml::Table, path: &Path) -> Result<Content> {
    let file = path.display();
    let mut content = Content::default();
    for (key, value) in table {
        if key == SHARD_KEYS {
            content.shard_keys = shard_keys(value, path)?;
            continue;
        }
        if key == FILTERS {
            content.filters = filters(value, path)?;
            continue;
        }
        let setting = match find(&key) {
            Some(setting) if setting.places == Places::Everywhere => setting,
            Some(_) => {
                return Err(Error::bad_input(format!(
                    "`{key}` cannot be set in {file}; give it on the command line as --{key}"
                )));
            }
            None => return Err(unknown_key(&key, path)),
        };
        let texts = match value {
            toml::Value::String(text) => Some(Texts::Commas(vec![text])),
            toml::Value::Array(values) if setting.list => {
                let texts: Option<Vec<String>> = values.iter().map(|value| value.as_str().map(str::to_owned)).collect();
                texts.map(Texts::Exact)
            }
            _ => None,
        };
        let wanted = if setting.list { "a text or an array of texts" } else { "a text, in quotes" };
        let texts = texts.ok_or_else(|| Error::bad_input(format!("`{key}` in {file} must be {wanted}")))?;
        content.texts.insert(setting.name, texts);
    }
    Ok(content)
}

/// `"db.c" = '{"a": 1}'`, or with more to say `"db.c" = { key = '{"a": 1}', unique = true }`.
fn shard_keys(value: toml::Value, path: &Path) -> Result<BTreeMap<Namespace, AskedKey>> {
    let file = path.display();
    let wanted = "write \"db.collection\" = '{\"field\": 1}', or = { key = '{\"field\": 1}', unique = true }";
    let toml::Value::Table(table) = value else {
        return Err(Error::bad_input(format!("[{SHARD_KEYS}] in {file} must be a table: {wanted}")));
    };
    let mut keys = BTreeMap::new();
    for (name, value) in table {
        let refused = |why: String| Error::bad_input(format!("`{name}` in [{SHARD_KEYS}] of {file}: {why}"));
        let namespace = Namespace::parse_valid(&name).map_err(&refused)?;
        let (text, unique) = match &value {
            toml::Value::String(text) => (Some(text.as_str()), false),
            toml::Value::Table(entry) if entry.keys().all(|key| ["key", "unique"].contains(&key.as_str())) => {
                let unique = entry.get("unique").map_or(Some(false), toml::Value::as_bool);
                let unique = unique.ok_or_else(|| refused("`unique` must be true or false".to_owned()))?;
                (entry.get("key").and_then(toml::Value::as_str), unique)
            }
            _ => (None, false),
        };
        let text = text.ok_or_else(|| refused(wanted.to_owned()))?;
        keys.insert(namespace, AskedKey::parse(text, unique).map_err(refused)?);
    }
    Ok(keys)
}

/// `"db.c" = '{"tenant": 7}'`.
fn filters(value: toml::Value, path: &Path) -> Result<BTreeMap<Namespace, DocumentFilter>> {
    let file = path.display();
    let wanted = "write \"db.collection\" = '{\"field\": value}'";
    let toml::Value::Table(table) = value else {
        return Err(Error::bad_input(format!("[{FILTERS}] in {file} must be a table: {wanted}")));
    };
    let mut filters = BTreeMap::new();
    for (name, value) in table {
        let refused = |why: String| Error::bad_input(format!("`{name}` in [{FILTERS}] of {file}: {why}"));
        let namespace = Namespace::parse_valid(&name).map_err(&refused)?;
        let text = value.as_str().ok_or_else(|| refused(wanted.to_owned()))?;
        filters.insert(namespace, DocumentFilter::parse(text).map_err(refused)?);
    }
    Ok(filters)
}

fn unknown_key(key: &str, path: &Path) -> Error {
    let allowed = SETTINGS.iter().filter(|setting| setting.places == Places::Everywhere).map(|setting| setting.name);
    let hint = match nearest(key, allowed.clone()) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("known are {}", allowed.collect::<Vec<_>>().join(", ")),
    };
    Error::bad_input(format!("unknown key `{}` in {}; {hint}", key.escape_debug(), path.display()))
}
