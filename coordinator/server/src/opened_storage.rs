//! A coordinator's storage, with what counts its uses and what lets go of what is unused.

use std::sync::Arc;

use regatta_ledger::LedgerTenure;
use tokio::sync::watch;

use crate::config::CoordinatorConfig;
use crate::retention::{Evictor, Retention, UseLogFrom};
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
        tenure: Option<watch::Receiver<LedgerTenure>>,
    ) -> Result<Self, StartError> {
        // Nobody else writes to the state directory, which is taken; any other store may have many writers.
        let (url, writers) = match &config.storage {
            // Limits are for whoever has the store alone.
            Some(url) if config.cache.has_limits() => (url.clone(), Writers::This),
            Some(url) => (url.clone(), Writers::Many),
            None => (url_of(state.path()), Writers::This),
        };
        // Another one may have used the storage since the log was written.
        let log = match config.standby {
            true => UseLogFrom::AnEarlierTerm,
            false => UseLogFrom::TheLastTerm,
        };
        let opened = Retention::open(state.path(), directory_of(&url), config.cache.clone(), log);
        let (retention, was_complete) = opened.map_err(StartError::UseLog)?;
        let small_blobs = match config.pack_small_blobs {
            true => SmallBlobs::below(&url),
            false => SmallBlobs::Apart,
        };
        let place = (url.as_str(), small_blobs);
        let storage = Storage::open(place, writers, Arc::clone(&retention), was_complete)?;
        retention.announce();
        let evictor = Evictor {
            retention: Arc::clone(&retention),
            places: storage.places.clone(),
            may_evict: writers == Writers::This,
            was_complete,
            tenure: tenure.filter(|_| config.standby),
        };
        Ok(Self {
            url,
            storage,
            retention,
            evictor,
        })
    }
}
