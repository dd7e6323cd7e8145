//! Views: what they are based on, the order in which they can be made, and what becomes of them where collections get other
//! names. All of a view is in its options: `viewOn` and `pipeline`, which name collections of its own database.

use super::catalog::CatalogEntry;
use super::namespace::Namespace;
use super::renames::Renames;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// The collections and views that a view names, in its `viewOn` first.
pub fn named_by(view: &Namespace, options: &Value) -> Vec<Namespace> {
    let mut named = Vec::new();
    // Nothing is renamed: every name is given back as it is.
    let visited = visit(view, options, &mut |name| {
        named.push(name.clone());
        Ok(name.clone())
    });
    debug_assert!(visited.is_ok(), "no name is refused");
    named
}

/// A view's options where it and what it names are called otherwise.
///
/// # Errors
/// Which collection would be in another database than the view: a view cannot name it then.
pub fn renamed(view: &Namespace, options: &Value, renames: &Renames) -> Result<Value, String> {
    let home = renames.apply(view);
    visit(view, options, &mut |name| {
        let to = match name.time_series() {
            Some(series) => renames.apply(&series).buckets(),
            None => renames.apply(name),
        };
        if to.db() != home.db() {
            return Err(format!(
                "it is based on {name}, which would be {to}, and a view's base is in its own database: {}",
                home.db()
            ));
        }
        Ok(to)
    })
}

/// The views in an order in which each comes after those that it names. A server takes a view whose base is missing, and
/// looks at the base's collation where it is there.
pub fn in_order<'a>(views: impl IntoIterator<Item = &'a CatalogEntry>) -> Vec<&'a CatalogEntry> {
    let views: BTreeMap<&Namespace, &CatalogEntry> = views.into_iter().map(|view| (&view.namespace, view)).collect();
    let mut ordered = Vec::new();
    let mut visited = BTreeSet::new();
    // By hand and not recursively, since nothing bounds how many views are based on one another.
    for first in views.values() {
        let mut path = vec![(*first, false)];
        while let Some((view, are_named_done)) = path.pop() {
            if are_named_done {
                ordered.push(view);
            } else if visited.insert(&view.namespace) {
                path.push((view, true));
                let named = named_by(&view.namespace, &view.options);
                path.extend(named.iter().filter_map(|name| views.get(name)).map(|named| (*named, false)));
            }
        }
    }
    ordered
}

/// Gives every name in a view's options to `rename`, and puts what comes of it in its place.
fn visit(
    view: &Namespace,
    options: &Value,
    rename: &mut impl FnMut(&Namespace) -> Result<Namespace, String>,
) -> Result<Value, String> {
    let mut options = options.clone();
    let mut visitor = Visitor { db: view.db(), rename };
    if let Some(base) = options.get_mut("viewOn") {
        visitor.name(base)?;
    }
    if let Some(pipeline) = options.get_mut("pipeline") {
        visitor.pipeline(pipeline)?;
    }
    Ok(options)
}

struct Visitor<'a, R> {
    db: &'a str,
    rename: &'a mut R,
}

impl<R: FnMut(&Namespace) -> Result<Namespace, String>> Visitor<'_, R> {
    /// A collection by its name, or as `{db, coll}`, which some stages take.
    fn name(&mut self, name: &mut Value) -> Result<(), String> {
        match name {
            Value::String(collection) => {
                let to = (self.rename)(&Namespace::new(self.db, collection.clone()))?;
                *collection = to.collection().to_owned();
            }
            Value::Object(fields) => self.full_name(fields)?,
            _ => {}
        }
        Ok(())
    }

    fn full_name(&mut self, fields: &mut Map<String, Value>) -> Result<(), String> {
        let text = |field| fields.get(field).and_then(Value::as_str).map(str::to_owned);
        // A name in another database is not the view's to follow.
        if let (Some(db), Some(collection)) = (text("db"), text("coll"))
            && db == self.db
        {
            let to = (self.rename)(&Namespace::new(db, collection))?;
            fields.insert("db".into(), to.db().into());
            fields.insert("coll".into(), to.collection().into());
        }
        Ok(())
    }

    fn pipeline(&mut self, pipeline: &mut Value) -> Result<(), String> {
        let stages = pipeline.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut);
        for (stage, content) in stages.flat_map(|stage| stage.iter_mut()) {
            self.stage(stage, content)?;
        }
        Ok(())
    }

    fn stage(&mut self, stage: &str, content: &mut Value) -> Result<(), String> {
        let (name, is_name_alone) = match stage {
            "$lookup" | "$graphLookup" => ("from", false),
            "$unionWith" => ("coll", true),
            "$merge" => ("into", true),
            "$out" => ("coll", true),
            "$facet" => {
                return content.as_object_mut().into_iter().flatten().try_for_each(|(_, part)| self.pipeline(part));
            }
            _ => return Ok(()),
        };
        match content {
            Value::String(_) if is_name_alone => self.name(content),
            Value::Object(fields) => {
                if stage == "$out" {
                    self.full_name(fields)?;
                } else if let Some(collection) = fields.get_mut(name) {
                    self.name(collection)?;
                }
                fields.get_mut("pipeline").map_or(Ok(()), |pipeline| self.pipeline(pipeline))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may fail")]
    use super::*;
    use crate::model::catalog::CollectionKind;
    use crate::model::catalog::tests::entry;
    use serde_json::json;

    fn options() -> Value {
        json!({
            "viewOn": "orders",
            "pipeline": [
                { "$lookup": { "from": "items", "as": "i", "let": {}, "pipeline": [
                    { "$graphLookup": { "from": "parts", "startWith": "$a", "connectFromField": "a", "connectToField": "b", "as": "p" } },
                ] } },
                { "$unionWith": "older" },
                { "$unionWith": { "coll": "oldest", "pipeline": [{ "$lookup": { "from": "items", "as": "x" } }] } },
                { "$facet": { "one": [{ "$lookup": { "from": { "db": "shop", "coll": "far" }, "as": "f" } }] } },
                { "$match": { "from": "items" } },
            ],
            "collation": { "locale": "fr" },
        })
    }

    #[test]
    fn every_collection_that_a_view_names_is_found() {
        let named = named_by(&Namespace::new("shop", "v"), &options());
        let named: Vec<&str> = named.iter().map(Namespace::collection).collect();
        assert_eq!(named, ["orders", "items", "parts", "older", "oldest", "items", "far"]);
    }

    #[test]
    fn names_follow_renames_and_nothing_else_changes() {
        let renames = Renames::parse(["shop:shop2", "shop.items:shop2.things", "shop.orders:shop2.items"]).unwrap();
        let renamed = renamed(&Namespace::new("shop", "v"), &options(), &renames).unwrap();
        let text = options().to_string();
        // The longest names first: `items` is what `orders` becomes.
        let expected = text
            .replace(r#""from":"items","as""#, r#""from":"things","as""#)
            .replace(r#""viewOn":"orders""#, r#""viewOn":"items""#)
            .replace(r#""db":"shop""#, r#""db":"shop2""#);
        assert_eq!(renamed.to_string(), expected);
    }

    #[test]
    fn a_base_in_another_database_is_refused() {
        let renames = Renames::parse(["shop.items:other.items"]).unwrap();
        let refused = renamed(&Namespace::new("shop", "v"), &options(), &renames).unwrap_err();
        assert!(refused.contains("shop.items, which would be other.items"), "{refused}");
    }

    #[test]
    fn the_buckets_of_a_time_series_follow_it() {
        let renames = Renames::parse(["m.a:m.b"]).unwrap();
        let options = json!({ "viewOn": "system.buckets.a", "pipeline": [] });
        let renamed = renamed(&Namespace::new("m", "v"), &options, &renames).unwrap();
        assert_eq!(renamed["viewOn"], "system.buckets.b");
    }

    #[test]
    fn a_view_comes_after_those_that_it_names_however_deep() {
        let view = |name: &str, on: &str| CatalogEntry {
            namespace: Namespace::new("d", name),
            options: json!({ "viewOn": on, "pipeline": [] }),
            ..entry(CollectionKind::View)
        };
        let depth = 2_000;
        let mut views: Vec<CatalogEntry> =
            (0..depth).map(|n| view(&format!("v{n:05}"), &format!("v{:05}", n + 1))).collect();
        views.push(view("x", "nowhere"));
        let ordered = in_order(&views);
        assert_eq!(ordered.len(), views.len());
        let place = |name: &str| ordered.iter().position(|view| view.namespace.collection() == name).unwrap();
        assert!((1..depth).all(|n| place(&format!("v{n:05}")) < place(&format!("v{:05}", n - 1))));
    }
}
