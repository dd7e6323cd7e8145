//! `mongoferry control`: says, in the state store, what limits a job while it runs. Workers look there now and then
//! ([`crate::limits`]), so it works from any machine, and speaks to no server.

use crate::abandon;
use crate::clock;
use crate::context::Context;
use crate::driver;
use crate::error::{Error, Result};
use crate::model::limit::{Change, Control, Quantity, Said};
use crate::model::step::Step;
use crate::state::document::{Created, Documents, Replaced};
use crate::state::keys;
use serde::{Serialize, Serializer};

/// How often a change is made again when somebody else was faster. Each time a person has changed something.
const ATTEMPTS: u32 = 10;

/// What has been said about a job: a part of what `control --json` and `status --json` print.
#[derive(Debug, Clone, Serialize)]
pub struct ControlStatus {
    /// Nothing is to be sent.
    pub paused: bool,
    /// Documents a second; `none`, or `default`: what the flags of each run say.
    #[serde(serialize_with = "for_machines")]
    pub max_documents_per_second: Said,
    /// The same in bytes.
    #[serde(serialize_with = "for_machines")]
    pub max_bytes_per_second: Said,
    /// When it was last changed; none when never.
    pub changed: Option<String>,
}

/// A word, or a number.
fn for_machines<S: Serializer>(said: &Said, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    match said {
        Said::AtMost(limit) => serializer.serialize_u64(*limit),
        // A word is the same for all quantities.
        Said::Default | Said::None => serializer.serialize_str(&said.show(Quantity::Documents)),
    }
}

impl From<Option<&Control>> for ControlStatus {
    fn from(control: Option<&Control>) -> Self {
        let said = |quantity| control.map(|control| control.said(quantity)).unwrap_or_default();
        Self {
            paused: control.is_some_and(|control| control.paused),
            max_documents_per_second: said(Quantity::Documents),
            max_bytes_per_second: said(Quantity::Bytes),
            changed: control.map(|control| control.changed.clone()),
        }
    }
}

impl ControlStatus {
    /// For people.
    pub fn text(&self) -> String {
        let paused = if self.paused { "paused" } else { "not paused" };
        let said = [self.max_documents_per_second, self.max_bytes_per_second];
        let said = Quantity::ALL.into_iter().zip(said);
        let limits: Vec<String> =
            said.map(|(quantity, said)| format!("{} {}", quantity.name(), said.show(quantity))).collect();
        format!("{paused}, {}", limits.join(", "))
    }
}

/// Makes a change, if it is one, and says what holds then.
///
/// # Errors
/// Bad input for a job that is unknown, abandoned or committed; else those of the state store.
pub async fn run(context: &Context, change: Change) -> Result<ControlStatus> {
    let name = &context.settings.job;
    let is_known = context.job().await?.is_some() || !context.documents.list("steps/").await?.is_empty();
    if !is_known {
        return Err(abandon::unknown(context));
    }
    if driver::is_done(context, Step::Commit).await? {
        return Err(Error::bad_input(format!("job `{name}` is committed; there is nothing left to limit or to pause")));
    }
    let control =
        if change.is_nothing() { read(&context.documents).await? } else { Some(make(context, change).await?) };
    Ok(control.as_ref().into())
}

/// What was said so far.
///
/// # Errors
/// Those of the state store.
pub async fn read(documents: &Documents) -> Result<Option<Control>> {
    Ok(documents.read(keys::CONTROL).await?.map(|stored| stored.value))
}

/// Changes what was said, however often somebody else changes it at the same time. A change sets values and adds
/// nothing, so making it twice, after an answer that was lost, does no harm.
async fn make(context: &Context, change: Change) -> Result<Control> {
    for _ in 0..ATTEMPTS {
        let found = context.documents.read::<Control>(keys::CONTROL).await?;
        let before = found.as_ref().map(|stored| stored.value.clone()).unwrap_or_default();
        let control = Control { changed: clock::wall(), ..change.apply(&before) };
        let is_written = match &found {
            None => matches!(context.documents.create(keys::CONTROL, &control).await?, Created::Mine(_)),
            Some(found) => {
                matches!(context.documents.replace(keys::CONTROL, &control, found).await?, Replaced::Mine(_))
            }
        };
        if is_written {
            return Ok(control);
        }
    }
    Err(Error::busy("somebody else changes the limits all the time; try again"))
}
