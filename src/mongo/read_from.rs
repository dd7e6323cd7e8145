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
    /// The mode with which every member answers that is asked.
    pub const ANY_MEMBER: &'static str = "primaryPreferred";

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

    /// The mode that a command says to a server, which else refuses to read on a member that is not the primary.
    pub fn mode(&self) -> Option<&'static str> {
        Some(match self {
            ReadFrom::Primary | ReadFrom::Preferred(ReadPreference::Primary) => return None,
            ReadFrom::Preferred(ReadPreference::Secondary { .. }) => "secondary",
            ReadFrom::Preferred(ReadPreference::SecondaryPreferred { .. }) => "secondaryPreferred",
            ReadFrom::Preferred(ReadPreference::Nearest { .. }) => "nearest",
            ReadFrom::Preferred(_) | ReadFrom::Node(_) => Self::ANY_MEMBER,
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
