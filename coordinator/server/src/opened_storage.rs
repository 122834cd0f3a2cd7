//! A coordinator's storage, with what counts its uses and what lets go of what is unused.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::config::CoordinatorConfig;
use crate::ledger::{OpenedLedger, deletions_in};
use crate::retention::{Evictor, Retention, UseLogFrom, note_coverage};
use crate::start_error::StartError;
use crate::state_directory::StateDirectory;
use crate::storage::{Storage, Writers, directory_of, url_of};
use crate::stored_objects::SmallBlobs;

/// What everything is stored in.
#[derive(Debug)]
pub(crate) struct OpenedStorage {
    pub(crate) url: String,
    pub(crate) storage: Storage,
    pub(crate) retention: Arc<Retention>,
    pub(crate) evictor: Evictor,
}

impl OpenedStorage {
    /// Opens what the configuration names.
    pub(crate) fn open(
        config: &CoordinatorConfig,
        state: &StateDirectory,
        ledger: &OpenedLedger,
    ) -> Result<Self, StartError> {
        // Nobody else writes to the state directory, which is taken; any other store may have many writers.
        let (url, writers) = match &config.storage {
            // Limits are for whoever has the store alone.
            Some(url) if config.cache.has_limits() => (url.clone(), Writers::This),
            Some(url) => (url.clone(), Writers::Many),
            None => (url_of(state.path()), Writers::This),
        };
        // Another one may have used the storage since the log was written.
        let log = match (&config.storage, ledger.term) {
            (Some(_), Some(term)) => log_before(state.path(), term).map_err(StartError::UseLog)?,
            _ => UseLogFrom::TheLastTerm,
        };
        note_coverage(state.path(), writers == Writers::This).map_err(StartError::UseLog)?;
        let opened = Retention::open(state.path(), directory_of(&url), config.cache.clone(), log);
        let (retention, was_complete) = opened.map_err(StartError::UseLog)?;
        if let Some(term) = ledger.term {
            // Only now that the log says what holds in this term: whoever is killed before asks again.
            remember_term(state.path(), term).map_err(StartError::UseLog)?;
        }
        let small_blobs = match config.pack_small_blobs {
            true => SmallBlobs::below(&url),
            false => SmallBlobs::Apart,
        };
        let place = (url.as_str(), small_blobs);
        let storage = Storage::open(
            place,
            writers,
            Arc::clone(&retention),
            was_complete,
            deletions_in(ledger.tenure.as_ref()),
        )?;
        retention.announce();
        let evictor = Evictor {
            retention: Arc::clone(&retention),
            places: storage.places.clone(),
            may_evict: writers == Writers::This,
            was_complete,
        };
        Ok(Self {
            url,
            storage,
            retention,
            evictor,
        })
    }
}

/// The file in the state directory that says which of the ledger's terms was this coordinator's last.
const LAST_TERM: &str = "ledger-term";

/// Whether another coordinator has had the ledger since the log of uses was written, now that a term has begun.
fn log_before(state: &Path, term: i64) -> io::Result<UseLogFrom> {
    // One that is cut off is no number, or not the one before: then nothing is believed.
    let last = match std::fs::read_to_string(state.join(LAST_TERM)) {
        Ok(text) => text.trim().parse::<i64>().ok(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    Ok(match last {
        Some(last) if last.checked_add(1) == Some(term) => UseLogFrom::TheLastTerm,
        _ => UseLogFrom::AnEarlierTerm,
    })
}

/// Whether a coordinator with this state directory has ever had a ledger that others can have.
pub(crate) fn has_had_terms(state: &Path) -> bool {
    state.join(LAST_TERM).exists()
}

/// Notes that a term has begun in which nobody uses the storage but who keeps the log of uses: that is believed after
/// it if it would have been before.
pub(crate) fn follow_term(state: &Path, term: i64) -> io::Result<()> {
    match log_before(state, term)? {
        UseLogFrom::TheLastTerm => remember_term(state, term),
        UseLogFrom::AnEarlierTerm => Ok(()),
    }
}

fn remember_term(state: &Path, term: i64) -> io::Result<()> {
    std::fs::write(state.join(LAST_TERM), format!("{term}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_believed_if_the_last_term_was_this_coordinators() {
        let state = tempfile::tempdir().expect("a directory");
        for (term, expected) in [
            (1, UseLogFrom::AnEarlierTerm),
            (2, UseLogFrom::TheLastTerm),
            (3, UseLogFrom::TheLastTerm),
            (5, UseLogFrom::AnEarlierTerm),
            (6, UseLogFrom::TheLastTerm),
        ] {
            let found = log_before(state.path(), term).expect("can be read");
            assert_eq!(found, expected, "{term}");
            remember_term(state.path(), term).expect("is written");
        }
        // A term of whoever repairs the storage is as none.
        for (term, followed) in [(7, true), (9, false)] {
            follow_term(state.path(), term).expect("is written");
            let found = log_before(state.path(), term + 1).expect("can be read");
            assert_eq!(found == UseLogFrom::TheLastTerm, followed);
        }
        std::fs::write(state.path().join(LAST_TERM), "").expect("is written");
        let found = log_before(state.path(), 7).expect("can be read");
        assert_eq!(found, UseLogFrom::AnEarlierTerm);
    }
}
