//! Which members of a set documents are read from.

use crate::model::choice;
use mongodb::options::{ReadPreference, SelectionCriteria, ServerAddress};
use std::sync::Arc;

/// Which members cursors are opened on.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum ReadFrom {
    /// The primary.
    #[default]
    Primary,
    /// Those that a read preference allows.
    Preferred(ReadPreference),
    /// This member alone, whatever its role.
    Node(ServerAddress),
}

impl ReadFrom {
    /// Whichever the preference allows.
    pub fn preferring(preference: choice::ReadPreference) -> Self {
        let options = None;
        ReadFrom::Preferred(match preference {
            choice::ReadPreference::Primary => return ReadFrom::Primary,
            choice::ReadPreference::PrimaryPreferred => ReadPreference::PrimaryPreferred { options },
            choice::ReadPreference::Secondary => ReadPreference::Secondary { options },
            choice::ReadPreference::SecondaryPreferred => ReadPreference::SecondaryPreferred { options },
            choice::ReadPreference::Nearest => ReadPreference::Nearest { options },
        })
    }

    /// As the driver takes it.
    pub fn criteria(&self) -> SelectionCriteria {
        match self {
            ReadFrom::Primary => SelectionCriteria::ReadPreference(ReadPreference::Primary),
            ReadFrom::Preferred(preference) => SelectionCriteria::ReadPreference(preference.clone()),
            ReadFrom::Node(address) => {
                let address = address.clone();
                SelectionCriteria::Predicate(Arc::new(move |server| *server.address() == address))
            }
        }
    }
}
