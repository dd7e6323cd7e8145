//! What tests on real servers share: the servers, and the comparison of what is on them.

pub mod aws;
pub mod aws_job;
pub mod bson_order_oracle;
pub mod bson_values;
pub mod certificates;
pub mod cluster;
pub mod compare;
pub mod conformance;
pub mod data;
pub mod ferry;
pub mod golden;
pub mod guarded;
pub mod http_client;
pub mod http_server;
pub mod kinds;
pub mod lambda;
pub mod replica_set;
pub mod router;
pub mod running;
pub mod s3_proxy;
pub mod servers;
pub mod state_machine;
pub mod writing;

#[cfg(test)]
mod tests {
    use mongodb::Client;
    use mongodb::bson::doc;

    use super::compare::{Scope, compare};
    use super::servers::{Failure, shared_source, shared_target};

    #[tokio::test]
    async fn the_comparison_sees_what_differs() -> Result<(), Failure> {
        let (source, target) = tokio::try_join!(shared_source(), shared_target())?;
        let source = Client::with_uri_str(source.uri()).await?;
        let target = Client::with_uri_str(target.uri()).await?;
        let (one, other) = (source.database("compare_here"), target.database("compare_there"));
        let mut scope = Scope { only_databases: vec!["compare_here".to_owned()], ..Default::default() };
        scope.rename("compare_here:compare_there")?;

        for database in [&one, &other] {
            database.collection("c").insert_many([doc! {"_id": 1, "x": 1}, doc! {"_id": 2, "x": 1}]).await?;
        }
        let outcome = compare(&source, &target, &scope).await?;
        assert_eq!(outcome.to_string(), "equal: 1 collections, 2 documents, 42 bytes");

        // The same number of another type, a missing document, one too many, an index, an option, a collection.
        other.collection::<mongodb::bson::Document>("c").delete_one(doc! {"_id": 1}).await?;
        other.collection("c").insert_one(doc! {"_id": 1_i64, "x": 1}).await?;
        one.collection("c").insert_one(doc! {"_id": 0}).await?;
        other.collection("c").insert_one(doc! {"_id": 3}).await?;
        one.run_command(doc! {"createIndexes": "c", "indexes": [{"name": "x", "key": {"x": 1}}]}).await?;
        other.run_command(doc! {"createIndexes": "c", "indexes": [{"name": "x", "key": {"x": -1}}]}).await?;
        one.run_command(doc! {"collMod": "c", "validationLevel": "moderate", "validator": {"x": 1}}).await?;
        other.create_collection("more").await?;
        let outcome = compare(&source, &target, &scope).await?;
        let expected = [
            "option validationLevel: source {\"validationLevel\":\"moderate\"}, target nothing",
            "option validator: source",
            "index x key: source",
            "not in the target: {\"_id\":{\"$numberInt\":\"0\"}}",
            "source {\"_id\":{\"$numberInt\":\"1\"}",
            "only in the target: {\"_id\":{\"$numberInt\":\"3\"}}",
            "compare_there.more: only in the target",
        ];
        for text in expected {
            assert!(outcome.differences.iter().any(|line| line.contains(text)), "{text} is not in {outcome}");
        }
        Ok(())
    }
}
