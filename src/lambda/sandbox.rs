//! What a sandbox keeps from one invocation to the next: the store, secrets, and connections to the servers
//! ([`crate::mongo::clients`]).

use super::event::Call;
use super::{configuration, no_settings};
use crate::config::{Configuration, Settings, StateUrl};
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::mongo::clients;
use crate::secrets::Secrets;
use crate::state::document::Documents;
use crate::state::keys;
use crate::state::open::{S3Options, open_store};
use crate::state::store::StateStore;
use std::sync::Arc;
use tokio::sync::OnceCell;

/// A sandbox.
pub struct Sandbox {
    environment: Environment,
    store: OnceCell<Arc<dyn StateStore>>,
    /// What settings refer to.
    pub secrets: Secrets,
}

impl Sandbox {
    /// With the environment of the function, which says where the state is.
    pub fn new(environment: Environment) -> Self {
        clients::keep();
        Self { environment, store: OnceCell::new(), secrets: Secrets::default() }
    }

    /// The store that the function's environment names.
    ///
    /// # Errors
    /// Bad input when it names none.
    pub async fn store(&self) -> Result<Arc<dyn StateStore>> {
        let get = |name: &str| self.environment.get(name);
        let open = async || {
            let url = get("MONGOFERRY_STATE").ok_or_else(|| {
                Error::bad_input("the function's environment has no MONGOFERRY_STATE; set it to s3://bucket/prefix")
            })?;
            let s3 =
                S3Options { endpoint: get("MONGOFERRY_S3_ENDPOINT"), owner: get("MONGOFERRY_EXPECTED_BUCKET_OWNER") };
            open_store(url, s3).await
        };
        self.store.get_or_try_init(open).await.cloned()
    }

    /// What is stored for the call's job.
    ///
    /// # Errors
    /// Bad input when there is nothing, or nothing that can be read.
    pub async fn configuration(&self, call: &Call, memory: u64) -> Result<Configuration> {
        let documents = Documents::new(self.store().await?, call.job.as_str());
        let body =
            documents.read_bytes(keys::SETTINGS).await?.ok_or_else(|| no_settings(&documents, keys::SETTINGS))?;
        let place = documents.name(keys::SETTINGS);
        let text = std::str::from_utf8(&body)
            .map_err(|_| Error::bad_input(format!("{place} is no text; put it there with `mongoferry start`")))?;
        configuration(text, &place, call, &self.environment, memory)
    }

    /// What the call is to be done with.
    ///
    /// # Errors
    /// As [`Secrets::settings`]; bad input when the state is no bucket.
    pub async fn settings(&self, configuration: &Configuration) -> Result<Settings> {
        let settings = self.secrets.settings(configuration).await?;
        match &settings.state {
            StateUrl::S3 { .. } => Ok(settings),
            StateUrl::Folder(folder) => Err(Error::bad_input(format!(
                "the function's MONGOFERRY_STATE is `{}`, a folder, which is lost with the sandbox; set it to s3://bucket/prefix",
                folder.display()
            ))),
        }
    }
}
