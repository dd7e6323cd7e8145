//! What of a deployment's own collections is copied on request (`--include-system`): the functions of `system.js`, roles
//! and users. Which of them, what they become under other names, and whether two of them are the same.
//!
//! Users have credentials. What holds them shows nothing of its content (`Debug`), and is kept nowhere but in memory.

use super::catalog::CatalogEntry;
use super::cursor::Key;
use super::filter::Filter;
use super::namespace::Namespace;
use super::renames::Renames;
use bson::error::Error as BsonError;
use bson::{Document, RawArray, RawArrayBuf, RawBson, RawBsonRef, RawDocument, RawDocumentBuf};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

/// Databases whose users and roles are those of the whole deployment: they come along when all of it is copied.
/// `$external` has those whom another system authenticates (LDAP, Kerberos, X.509).
const OF_THE_DEPLOYMENT: [&str; 2] = ["admin", "$external"];

/// The user that servers know one another by.
const INTERNAL_USER: &str = "__system";

/// A kind of what is copied on request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SystemKind {
    /// A function that a server keeps, in its database's `system.js`.
    Function,
    /// A role that somebody has made.
    Role,
    /// A user.
    User,
}

impl SystemKind {
    /// All of them, in the order in which they are copied: what a user may do is there before he is.
    pub const ALL: [SystemKind; 3] = [SystemKind::Function, SystemKind::Role, SystemKind::User];

    /// The word for it in `--include-system`.
    pub const fn word(self) -> &'static str {
        match self {
            SystemKind::Function => "js",
            SystemKind::Role => "roles",
            SystemKind::User => "users",
        }
    }

    /// What one, or several, are called.
    pub fn noun(self, count: usize) -> &'static str {
        match (self, count) {
            (SystemKind::Function, 1) => "function",
            (SystemKind::Function, _) => "functions",
            (SystemKind::Role, 1) => "role",
            (SystemKind::Role, _) => "roles",
            (SystemKind::User, 1) => "user",
            (SystemKind::User, _) => "users",
        }
    }

    /// Where those of a database are.
    pub fn collection(self, db: &str) -> Namespace {
        match self {
            SystemKind::Function => Namespace::new(db, "system.js"),
            SystemKind::Role => Namespace::new("admin", "system.roles"),
            SystemKind::User => Namespace::new("admin", "system.users"),
        }
    }

    /// The field with its name.
    fn name_field(self) -> &'static str {
        match self {
            SystemKind::Function => "_id",
            SystemKind::Role => "role",
            SystemKind::User => "user",
        }
    }
}

/// What is to be copied beside collections (`--include-system`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IncludeSystem(BTreeSet<SystemKind>);

impl IncludeSystem {
    /// From the words for it.
    ///
    /// # Errors
    /// What is none of them, and which there are.
    pub fn parse<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let kind = |word: &str| {
            let meant = SystemKind::ALL.into_iter().find(|kind| kind.word() == word);
            let words = SystemKind::ALL.map(SystemKind::word).join(", ");
            meant.ok_or_else(|| format!("`{word}` is none of {words}"))
        };
        words.into_iter().map(kind).collect::<Result<_, _>>().map(Self)
    }

    /// Whether it is to be copied.
    pub fn contains(&self, kind: SystemKind) -> bool {
        self.0.contains(&kind)
    }

    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is, in the order in which it is copied.
    pub fn kinds(&self) -> impl Iterator<Item = SystemKind> {
        self.0.iter().copied()
    }
}

impl fmt::Display for IncludeSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kinds().map(SystemKind::word).collect::<Vec<_>>().join(","))
    }
}

/// Whose functions, roles and users are copied, and what names become.
#[derive(Debug)]
pub struct Scope<'a> {
    /// The source's databases of which something is copied.
    pub databases: BTreeSet<String>,
    /// Whether those of the whole deployment come along: nothing is said to be all there is to copy (`--include`).
    is_whole: bool,
    renames: &'a Renames,
}

impl<'a> Scope<'a> {
    /// Of a job that copies these.
    pub fn new(entries: &[CatalogEntry], filter: &Filter, renames: &'a Renames) -> Self {
        let copied = entries.iter().filter(|entry| entry.kind.is_copied());
        let databases = copied.map(|entry| entry.namespace.db().to_owned()).collect();
        Self { databases, is_whole: filter.include().is_empty(), renames }
    }

    fn takes(&self, db: &str) -> bool {
        self.databases.contains(db) || (self.is_whole && OF_THE_DEPLOYMENT.contains(&db))
    }

    /// A function of a database, as it is to be on the target.
    ///
    /// # Errors
    /// A document that cannot be read.
    pub fn function(&self, db: &str, document: &RawDocument) -> Result<Item, String> {
        Item::new(SystemKind::Function, self.renames.database(db), document.to_owned())
    }

    /// A role or a user, as it is to be on the target; `None` where it is none of those that are copied.
    ///
    /// # Errors
    /// A document that cannot be read.
    pub fn role_or_user(&self, kind: SystemKind, document: &RawDocument) -> Result<Option<Item>, String> {
        let db = document.get_str("db").map_err(|_| format!("{} holds one without a db", kind.collection("")))?;
        if !self.takes(db) {
            return Ok(None);
        }
        let renamed = self
            .renamed(db, document)
            .map_err(|error| format!("{} holds one of {db} that cannot be read: {error}", kind.collection("")))?;
        Item::new(kind, self.renames.database(db), renamed).map(Some)
    }

    /// The document with all names that are others on the target. What else is in it stays the bytes that it is.
    fn renamed(&self, db: &str, document: &RawDocument) -> Result<RawDocumentBuf, BsonError> {
        let mut copy = RawDocumentBuf::new();
        for element in document {
            let (name, value) = element?;
            match (name.as_str(), value) {
                // `db.name`.
                ("_id", RawBsonRef::String(id)) => {
                    let rest = id.strip_prefix(db).and_then(|rest| rest.strip_prefix('.'));
                    let id = rest.map_or(id.to_owned(), |rest| format!("{}.{rest}", self.renames.database(db)));
                    copy.append(name, id);
                }
                ("db", RawBsonRef::String(db)) => copy.append(name, self.renames.database(db)),
                ("roles", RawBsonRef::Array(roles)) => {
                    copy.append(name, mapped(roles, |role| self.role_reference(role))?);
                }
                ("privileges", RawBsonRef::Array(privileges)) => {
                    copy.append(name, mapped(privileges, |privilege| self.privilege(privilege))?);
                }
                (_, value) => copy.append(name, value),
            }
        }
        Ok(copy)
    }

    /// `{role, db}`.
    fn role_reference(&self, role: &RawDocument) -> Result<RawDocumentBuf, BsonError> {
        let mut copy = RawDocumentBuf::new();
        for element in role {
            match element? {
                (name, RawBsonRef::String(db)) if name.as_str() == "db" => copy.append(name, self.renames.database(db)),
                (name, value) => copy.append(name, value),
            }
        }
        Ok(copy)
    }

    /// `{resource, actions}`.
    fn privilege(&self, privilege: &RawDocument) -> Result<RawDocumentBuf, BsonError> {
        let mut copy = RawDocumentBuf::new();
        for element in privilege {
            match element? {
                (name, RawBsonRef::Document(resource)) if name.as_str() == "resource" => {
                    copy.append(name, self.resource(resource)?);
                }
                (name, value) => copy.append(name, value),
            }
        }
        Ok(copy)
    }

    /// `{db, collection}`, or `{db, system_buckets}`. Where the collection is empty it is all of the database; where the
    /// database is, all of the deployment, which has no other name.
    fn resource(&self, resource: &RawDocument) -> Result<RawDocumentBuf, BsonError> {
        let text = |field| resource.get_str(field).unwrap_or_default();
        let db = text("db");
        let field = if resource.get("system_buckets")?.is_some() { "system_buckets" } else { "collection" };
        let (new_db, new_collection) = match (db, text(field)) {
            ("", collection) => (String::new(), collection.to_owned()),
            (db, "") => (self.renames.database(db).to_owned(), String::new()),
            (db, collection) => {
                let named = Namespace::new(db, collection);
                let applied = match named.time_series() {
                    Some(series) => self.renames.apply(&series).buckets(),
                    None => self.renames.apply(&named),
                };
                (applied.db().to_owned(), applied.collection().to_owned())
            }
        };
        let mut copy = RawDocumentBuf::new();
        for element in resource {
            let (name, value) = element?;
            match name.as_str() {
                "db" => copy.append(name, new_db.as_str()),
                other if other == field => copy.append(name, new_collection.as_str()),
                _ => copy.append(name, value),
            }
        }
        Ok(copy)
    }
}

/// An array of documents, each as another one.
fn mapped(
    array: &RawArray,
    map: impl Fn(&RawDocument) -> Result<RawDocumentBuf, BsonError>,
) -> Result<RawArrayBuf, BsonError> {
    let mut copy = RawArrayBuf::new();
    for value in array {
        match value? {
            RawBsonRef::Document(document) => copy.push(map(document)?),
            value => copy.push(RawBson::from(value)),
        }
    }
    Ok(copy)
}

/// A function, a role or a user, by its names on the target.
#[derive(Clone)]
pub struct Item {
    /// What it is.
    pub kind: SystemKind,
    /// Its database.
    pub db: String,
    /// Its `_id`.
    pub key: Key,
    /// All of it.
    pub document: RawDocumentBuf,
}

impl Item {
    /// From the document.
    ///
    /// # Errors
    /// One without `_id`.
    pub fn new(kind: SystemKind, db: &str, document: RawDocumentBuf) -> Result<Self, String> {
        let key = Key::of(&document);
        let key = key.ok_or_else(|| format!("{} has a document without _id", kind.collection(db)))?;
        Ok(Self { kind, db: db.to_owned(), key, document })
    }

    /// Its name within its database.
    pub fn name(&self) -> String {
        let name = self.document.get_str(self.kind.name_field());
        name.map_or_else(|_| format!("{:?}", self.key), str::to_owned)
    }

    /// The roles that it has, as name and database.
    pub fn roles(&self) -> Vec<(String, String)> {
        let Ok(roles) = self.document.get_array("roles") else { return Vec::new() };
        let role = |role: RawBsonRef<'_>| {
            let role = role.as_document()?;
            Some((role.get_str("role").ok()?.to_owned(), role.get_str("db").ok()?.to_owned()))
        };
        roles.into_iter().filter_map(|value| role(value.ok()?)).collect()
    }

    /// The collection that it is in.
    pub fn collection(&self) -> Namespace {
        self.kind.collection(&self.db)
    }

    /// Whether a document of the target is the same. A role is what it grants, whatever the order in which it says so.
    pub fn is(&self, there: &RawDocument) -> bool {
        match self.kind {
            SystemKind::Role => {
                let grants = grants(&self.document);
                grants.is_some() && grants == self::grants(there)
            }
            SystemKind::Function | SystemKind::User => self.document.as_bytes() == there.as_bytes(),
        }
    }
}

/// `user app of shop`.
impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} of {}", self.kind.noun(1), self.name(), self.db)
    }
}

/// Nothing of what is in it.
impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a role says, without the order: a server puts privileges and actions into an order of its own. `None` for what
/// cannot be read.
fn grants(role: &RawDocument) -> Option<BTreeMap<String, BTreeSet<String>>> {
    let role = Document::try_from(role).ok()?;
    let mut grants: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, value) in &role {
        let Some(values) = value.as_array() else {
            grants.entry(name.clone()).or_default().insert(value.to_string());
            continue;
        };
        for value in values {
            let (what, granted) = match value.as_document() {
                Some(privilege) if name == "privileges" => {
                    let actions = privilege.get_array("actions").ok()?;
                    let resource = sorted(privilege.get_document("resource").ok()?);
                    (format!("{name} on {resource}"), actions.iter().map(ToString::to_string).collect())
                }
                Some(document) => (name.clone(), BTreeSet::from([sorted(document)])),
                None => (name.clone(), BTreeSet::from([value.to_string()])),
            };
            grants.entry(what).or_default().extend(granted);
        }
    }
    Some(grants)
}

fn sorted(document: &Document) -> String {
    format!("{:?}", document.iter().collect::<BTreeMap<_, _>>())
}

/// What is to be on the target, held against what is there.
#[derive(Debug, Default)]
pub struct Compared {
    /// The target has nothing of that name.
    pub missing: Vec<Item>,
    /// The target has another one of that name.
    pub other: Vec<Item>,
    /// The target has it as it is to be.
    pub same: Vec<Item>,
}

impl Compared {
    /// Adds one, of whose name the target has this.
    pub fn add(&mut self, item: Item, there: Option<&RawDocument>) {
        match there {
            None => self.missing.push(item),
            Some(there) if item.is(there) => self.same.push(item),
            Some(_) => self.other.push(item),
        }
    }
}

/// Two that would be one on the target.
pub fn collision(items: &[Item]) -> Option<&Item> {
    let mut seen: HashMap<(Namespace, &Key), ()> = HashMap::new();
    items.iter().find(|item| seen.insert((item.collection(), &item.key), ()).is_some())
}

/// As whom somebody is logged in.
#[derive(Debug, Clone, Default)]
pub struct Login {
    /// Users, as name and database. None where nobody has to log in.
    pub users: BTreeSet<(String, String)>,
    /// Their roles, as name and database, those that come with others included.
    pub roles: BTreeSet<(String, String)>,
}

impl Login {
    /// Whether it is the very user, or one of his roles; or the user of the servers themselves. To change what one is
    /// working as may end the work.
    pub fn is_of(&self, item: &Item) -> bool {
        let name = (item.name(), item.db.clone());
        match item.kind {
            SystemKind::Function => false,
            SystemKind::Role => self.roles.contains(&name),
            SystemKind::User => name.0 == INTERNAL_USER || self.users.contains(&name),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use crate::model::catalog::CollectionKind;
    use bson::{Bson, doc, rawdoc};

    fn renames(texts: &[&str]) -> Renames {
        Renames::parse(texts.iter().copied()).unwrap()
    }

    fn scope<'a>(databases: &[&str], is_whole: bool, renames: &'a Renames) -> Scope<'a> {
        Scope { databases: databases.iter().map(|db| (*db).to_owned()).collect(), is_whole, renames }
    }

    fn user() -> RawDocumentBuf {
        rawdoc! {
            "_id": "shop.app",
            "userId": bson::Binary { subtype: bson::spec::BinarySubtype::Uuid, bytes: vec![7; 16] },
            "user": "app",
            "db": "shop",
            "credentials": { "SCRAM-SHA-256": { "storedKey": "k" } },
            "customData": { "db": "shop", "roles": [1] },
            "roles": [{ "role": "readWrite", "db": "shop" }, { "role": "read", "db": "other" }],
        }
    }

    #[test]
    fn words() {
        let parsed = IncludeSystem::parse(["users", "js", "users"]).unwrap();
        assert_eq!(parsed.to_string(), "js,users");
        assert!(parsed.contains(SystemKind::User) && !parsed.contains(SystemKind::Role) && !parsed.is_empty());
        assert_eq!(IncludeSystem::parse(["user"]).unwrap_err(), "`user` is none of js, roles, users");
    }

    #[test]
    fn without_renames_a_user_is_the_bytes_that_he_is() {
        let none = Renames::default();
        let item = scope(&["shop"], false, &none).role_or_user(SystemKind::User, &user()).unwrap().unwrap();
        assert_eq!(item.document, user());
        assert_eq!((item.to_string().as_str(), item.db.as_str()), ("user app of shop", "shop"));
        assert_eq!(format!("{item:?}"), "user app of shop", "credentials are never shown");
    }

    #[test]
    fn a_users_names_follow_the_rename_of_a_database_and_his_custom_data_stays() {
        let renames = renames(&["shop:store"]);
        let item = scope(&["shop"], false, &renames).role_or_user(SystemKind::User, &user()).unwrap().unwrap();
        assert_eq!(item.document.get_str("_id").unwrap(), "store.app");
        assert_eq!((item.document.get_str("db").unwrap(), item.db.as_str()), ("store", "store"));
        let decoded = Document::try_from(item.document.as_ref()).unwrap();
        let roles = vec![doc! { "role": "readWrite", "db": "store" }, doc! { "role": "read", "db": "other" }];
        assert_eq!(decoded.get_array("roles").unwrap(), &roles.into_iter().map(Bson::from).collect::<Vec<_>>());
        assert_eq!(decoded.get_document("customData").unwrap(), &doc! { "db": "shop", "roles": [1] });
        assert_eq!(decoded.get_document("credentials").unwrap(), &doc! { "SCRAM-SHA-256": { "storedKey": "k" } });
    }

    #[test]
    fn what_a_role_grants_follows_renames() {
        let renames = renames(&["shop:store", "shop.orders:archive.old"]);
        let scope = scope(&["shop"], false, &renames);
        for (resource, becomes) in [
            (doc! { "db": "shop", "collection": "" }, doc! { "db": "store", "collection": "" }),
            (doc! { "db": "shop", "collection": "orders" }, doc! { "db": "archive", "collection": "old" }),
            (doc! { "db": "shop", "collection": "lines" }, doc! { "db": "store", "collection": "lines" }),
            (
                doc! { "db": "shop", "collection": "system.buckets.orders" },
                doc! { "db": "archive", "collection": "system.buckets.old" },
            ),
            (doc! { "db": "shop", "system_buckets": "orders" }, doc! { "db": "archive", "system_buckets": "old" }),
            (doc! { "db": "other", "collection": "orders" }, doc! { "db": "other", "collection": "orders" }),
            (doc! { "db": "", "collection": "orders" }, doc! { "db": "", "collection": "orders" }),
            (doc! { "cluster": true }, doc! { "cluster": true }),
            (doc! { "anyResource": true }, doc! { "anyResource": true }),
        ] {
            let role = |resource: &Document| {
                let role = doc! {
                    "_id": "shop.r", "role": "r", "db": "shop",
                    "privileges": [{ "resource": resource.clone(), "actions": ["find"] }], "roles": [],
                };
                RawDocumentBuf::try_from(&role).unwrap()
            };
            let item = scope.role_or_user(SystemKind::Role, &role(&resource)).unwrap().unwrap();
            let decoded = Document::try_from(item.document.as_ref()).unwrap();
            let privilege = decoded.get_array("privileges").unwrap()[0].as_document().unwrap();
            assert_eq!(privilege.get_document("resource").unwrap(), &becomes);
            assert_eq!(decoded.get_str("_id").unwrap(), "store.r");
        }
    }

    #[test]
    fn those_of_databases_that_are_copied_and_of_the_deployment_where_all_of_it_is() {
        let none = Renames::default();
        let of = |db: &str| {
            let mut user = rawdoc! { "_id": format!("{db}.u"), "user": "u" };
            user.append(bson::cstr!("db"), db);
            user
        };
        let taken = |is_whole, db: &str| {
            scope(&["shop"], is_whole, &none).role_or_user(SystemKind::User, &of(db)).unwrap().is_some()
        };
        for (db, in_part, in_whole) in
            [("shop", true, true), ("admin", false, true), ("$external", false, true), ("other", false, false)]
        {
            assert_eq!((taken(false, db), taken(true, db)), (in_part, in_whole), "{db}");
        }
        let entry = crate::model::catalog::tests::entry(CollectionKind::Collection);
        let filter = Filter::new(vec![], vec![]).unwrap();
        let scope = Scope::new(std::slice::from_ref(&entry), &filter, &none);
        assert!(scope.is_whole && scope.databases.contains(entry.namespace.db()));
    }

    #[test]
    fn two_databases_that_become_one_may_not_have_users_of_one_name() {
        let renames = renames(&["a:c", "b:c"]);
        let scope = scope(&["a", "b"], false, &renames);
        let of = |db: &str, name: &str| {
            let user = rawdoc! { "_id": format!("{db}.{name}"), "user": name, "db": db };
            scope.role_or_user(SystemKind::User, &user).unwrap().unwrap()
        };
        assert!(collision(&[of("a", "x"), of("b", "y")]).is_none());
        assert_eq!(collision(&[of("a", "x"), of("b", "x")]).unwrap().to_string(), "user x of c");
    }

    #[test]
    fn a_role_is_what_it_grants_and_a_user_all_of_its_bytes() {
        let role = |actions: &[&str], roles: Vec<Document>| {
            let role = doc! {
                "_id": "a.r", "role": "r", "db": "a", "roles": roles,
                "privileges": [{ "resource": { "db": "a", "collection": "c" }, "actions": actions.to_vec() }],
            };
            RawDocumentBuf::try_from(&role).unwrap()
        };
        let item = Item::new(SystemKind::Role, "a", role(&["find", "insert"], vec![])).unwrap();
        assert!(item.is(&role(&["insert", "find"], vec![])));
        assert!(!item.is(&role(&["insert"], vec![])));
        assert!(!item.is(&role(&["insert", "find"], vec![doc! { "role": "read", "db": "a" }])));
        let user = Item::new(SystemKind::User, "shop", user()).unwrap();
        let mut changed = Document::try_from(user.document.as_ref()).unwrap();
        assert!(user.is(&user.document));
        changed.insert("customData", 1);
        assert!(!user.is(&RawDocumentBuf::try_from(&changed).unwrap()));
    }

    #[test]
    fn nobody_changes_whom_he_is_logged_in_as() {
        let pair = |name: &str, db: &str| (name.to_owned(), db.to_owned());
        let login = Login { users: [pair("app", "shop")].into(), roles: [pair("r", "admin")].into() };
        let item = |kind, document| Item::new(kind, "shop", document).unwrap();
        assert!(login.is_of(&item(SystemKind::User, user())));
        let internal = rawdoc! { "_id": "shop.__system", "user": "__system", "db": "shop" };
        assert!(login.is_of(&item(SystemKind::User, internal)));
        let other = rawdoc! { "_id": "shop.b", "user": "b", "db": "shop" };
        assert!(!login.is_of(&item(SystemKind::User, other)));
        let role = rawdoc! { "_id": "admin.r", "role": "r", "db": "admin" };
        assert!(login.is_of(&Item::new(SystemKind::Role, "admin", role).unwrap()));
    }
}
