//! Writing with a lane's writers, beside a run of the program.

use mongodb::bson::{RawDocumentBuf, doc};
use mongodb::error::Error as DriverError;
use mongoferry::connection_string::ConnectionString;
use mongoferry::model::namespace::Namespace;
use mongoferry::mongo::answer::Answer;
use mongoferry::mongo::deployment::Deployment;
use mongoferry::mongo::documents::Documents;
use mongoferry::mongo::failure::Side;
use mongoferry::mongo::write;
use mongoferry::mongo::writers::Writers;
use mongoferry::mongo::{Comment, catalog};
use std::path::Path;

use super::servers::Failure;

/// The target that this connection string leads to.
pub async fn target(uri: &str, ca: Option<&Path>) -> Result<Deployment, Failure> {
    let uri = ConnectionString::parse(uri)?;
    Ok(Deployment::connect(Side::Target, &uri, ca, "a test", Comment("a test".to_owned())).await?)
}

/// These documents as a batch.
pub fn batch(all: impl IntoIterator<Item = RawDocumentBuf>) -> Documents {
    all.into_iter().collect()
}

/// A collection that is written to.
pub struct Collection {
    /// Its name.
    pub namespace: Namespace,
    /// Its UUID.
    pub uuid: String,
}

impl Collection {
    /// Makes an empty one.
    pub async fn make(target: &Deployment, database: &str, name: &str) -> Result<Self, Failure> {
        let namespace = Namespace::parse(&format!("{database}.{name}"))?;
        target.run(database, doc! {"drop": name}).await.ok();
        target.run(database, doc! {"create": name}).await?;
        let listed = catalog::collection(target, &namespace).await?.ok_or("it was made just now")?;
        Ok(Self { namespace, uuid: listed.uuid.ok_or("a collection has a UUID")? })
    }

    /// Inserts these documents.
    pub async fn insert(
        &self,
        writers: &Writers,
        all: impl IntoIterator<Item = RawDocumentBuf>,
    ) -> Result<Answer, DriverError> {
        write::insert(writers, &self.namespace, &self.uuid, &batch(all), false).await
    }
}

/// What the target says when it has taken all.
pub fn everything() -> Answer {
    Answer::Acknowledged(Vec::new())
}
