//! What goes wrong between a guard and its store.

use std::time::Duration;

use object_store::path::Path;

use crate::object_store_blob_store::failure::out_of_space;

/// What the guard itself has to say; everything else comes from the store.
#[derive(Debug, thiserror::Error)]
pub(in super::super) enum Trouble {
    /// Nobody is to ask it now. Come back when it has been asked again.
    #[error(
        "{store} has done nothing but fail for {} ms and is left alone; it is asked again in {} ms. Its last failure: {reason}",
        failing.as_millis(),
        again_in.as_millis()
    )]
    Away {
        /// What people call the store.
        store: String,
        /// Since when nothing but failures came of it.
        failing: Duration,
        /// How long it is left alone yet.
        again_in: Duration,
        /// What it failed with last.
        reason: String,
    },
    /// No answer came in time. Ask again.
    #[error("{store} did not answer within {} ms", limit.as_millis())]
    Late {
        /// What people call the store.
        store: String,
        /// How long was waited.
        limit: Duration,
    },
    /// The rest of a body did not come in time. Ask for it.
    #[error("{store} sent nothing of {path} after byte {offset} for {} ms", limit.as_millis())]
    Stalled {
        /// What people call the store.
        store: String,
        /// The object.
        path: Path,
        /// What had come of it, in bytes from its beginning.
        offset: u64,
        /// How long was waited.
        limit: Duration,
    },
    /// A body was shorter than announced. Ask for the rest.
    #[error("{store} ended {path} at byte {offset}, before byte {end}")]
    EndedEarly {
        /// What people call the store.
        store: String,
        /// The object.
        path: Path,
        /// What had come of it, in bytes from its beginning.
        offset: u64,
        /// Where it should have ended.
        end: u64,
    },
    /// An upload is to be completed before all of its parts arrived: a defect of this program.
    #[error("part {index} of an upload to {path} has not arrived")]
    PartMissing {
        /// The object.
        path: Path,
        /// The part; the first is number 0.
        index: usize,
    },
}

impl Trouble {
    /// The trouble that an error of object_store stands for, if it came from a guard.
    pub(in super::super) fn of(error: &object_store::Error) -> Option<&Self> {
        match error {
            object_store::Error::Generic { source, .. } => source.downcast_ref(),
            _ => None,
        }
    }

    /// Whether an error says that nobody is to ask now.
    pub(super) fn is_away(error: &object_store::Error) -> bool {
        matches!(Self::of(error), Some(Self::Away { .. }))
    }
}

impl From<Trouble> for object_store::Error {
    fn from(trouble: Trouble) -> Self {
        Self::Generic {
            store: "guarded",
            source: Box::new(trouble),
        }
    }
}

/// Whether asking again may help. What a store refuses it will refuse again, as one without room does for a while, and
/// what is absent is absent; all else object_store gives one name.
pub(super) fn may_pass(error: &object_store::Error) -> bool {
    match Trouble::of(error) {
        Some(Trouble::Away { .. } | Trouble::PartMissing { .. }) => false,
        Some(Trouble::Late { .. } | Trouble::Stalled { .. } | Trouble::EndedEarly { .. }) => true,
        None => matches!(error, object_store::Error::Generic { .. }) && !out_of_space(error),
    }
}
