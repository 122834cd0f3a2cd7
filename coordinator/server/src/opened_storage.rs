//! A coordinator's storage, with what counts its uses and what lets go of what is unused.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::config::CoordinatorConfig;
use crate::ledger::{OpenedLedger, deletions_in};
use crate::retention::{Evictor, Retention, UseLogFrom, VerdictPins, note_coverage, note_storage};
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
        if let Err(error) = note_storage(state.path(), &url) {
            // Whoever asks what is used is told less; a full disk is no reason to answer nobody.
            tracing::warn!(%error, "which storage the log of uses is about could not be noted");
        }
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
            pins: Some(VerdictPins::new(
                Arc::clone(&ledger.ledger),
                storage.for_earlier_verdicts.clone(),
                config.cache.keep_verdicts,
            )),
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
    use std::time::Duration;

    use bytes::Bytes;
    use prost::Message as _;
    use regatta_cas::put_bytes;
    use regatta_ledger::{GivenVerdict, Ledger, NamedArtefact, SqliteLedger};
    use regatta_model::{Digest, TenantId, Verdict};
    use regatta_wire::reapi;
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::AbortOnDropHandle;

    use super::*;
    use crate::retention::Kind;
    use crate::runs::now;

    /// How much there may be; verdicts may keep half of it.
    const LIMIT_BYTES: u64 = 1 << 20;
    /// How large each blob is that is stored until there is too much.
    const FILLER_BYTES: u64 = 32 << 10;
    /// How long everything is kept.
    const KEEP: Duration = Duration::from_secs(60);
    /// How long a test waits for what must happen.
    const PATIENCE: Duration = Duration::from_secs(30);

    /// A coordinator's storage: what it shares with others is in `shared`, its log of uses in `state`.
    fn opened(
        shared: &Path,
        state: &Path,
        (ledger, term): (&Arc<dyn Ledger>, i64),
    ) -> OpenedStorage {
        let mut config = CoordinatorConfig::new(state);
        config.storage = Some(url_of(&shared.join("storage")));
        config.pack_small_blobs = false;
        config.cache.max_bytes = Some(LIMIT_BYTES);
        config.cache.keep = KEEP;
        config.cache.min_free_bytes = Some(0);
        let ledger = OpenedLedger {
            ledger: Arc::clone(ledger),
            tenure: None,
            term: Some(term),
        };
        let state = StateDirectory::take(state).expect("is free");
        OpenedStorage::open(&config, &state, &ledger).expect("opens")
    }

    fn ledger(shared: &Path) -> Arc<dyn Ledger> {
        let opened = SqliteLedger::open(&shared.join("ledger.sqlite"));
        Arc::new(opened.expect("opens"))
    }

    /// A file, a directory with a file, and a bundle that names them, kept as those of a verdict are: no log of uses
    /// says so.
    async fn given(ledger: &dyn Ledger, storage: &Storage, tenant: &TenantId) -> Vec<Digest> {
        let blobs = storage.blobs.of(tenant);
        let store = async |text: &[u8]| {
            let stored = put_bytes(blobs.as_ref(), Bytes::copy_from_slice(text)).await;
            stored.expect("is stored")
        };
        let file = store(b"a file").await;
        let in_directory = store(b"a file of a directory").await;
        let node = reapi::FileNode {
            name: "a".to_owned(),
            digest: Some(in_directory.into()),
            ..Default::default()
        };
        let root = reapi::Directory {
            files: vec![node],
            ..Default::default()
        };
        let tree = reapi::Tree {
            root: Some(root),
            children: Vec::new(),
        };
        let tree = store(&tree.encode_to_vec()).await;
        let bundle = store(b"a bundle").await;
        let named = |digest: Digest, is_tree: bool| NamedArtefact {
            name: "make/out".to_owned(),
            digest,
            is_tree,
        };
        let verdict = GivenVerdict {
            tenant: tenant.clone(),
            bundle,
            commit: "c".to_owned(),
            run: "r".parse().expect("is an id"),
            verdict: Verdict::Releasable,
            policy: None,
            public_key: String::new(),
            first_given_at: now(),
            last_given_at: now(),
        };
        let artefacts = vec![named(file, false), named(tree, true)];
        let kept = ledger.keep_verdict(verdict, artefacts, Vec::new()).await;
        kept.expect("is kept");
        vec![file, in_directory, tree, bundle]
    }

    /// Stores twice what there may be, so slowly that what was stored before may go, and waits until there is no
    /// more than that.
    async fn fill(storage: &Storage, tenant: &TenantId) -> Vec<Digest> {
        let blobs = storage.blobs.of(tenant);
        let objects = &storage.places.of_kind[&Kind::Blob].objects;
        let mut fillers = Vec::new();
        for number in 0..2 * LIMIT_BYTES / FILLER_BYTES {
            let size = usize::try_from(FILLER_BYTES).expect("is small");
            let filler = Bytes::from(format!("{number:size$}"));
            fillers.push(put_bytes(blobs.as_ref(), filler).await.expect("is stored"));
            let begun = std::time::Instant::now();
            loop {
                tokio::time::advance(KEEP / 10).await;
                let missing = objects.find_missing(&fillers).await.expect("is asked");
                let left = fillers.len() - missing.len();
                if left as u64 * FILLER_BYTES <= LIMIT_BYTES {
                    break;
                }
                assert!(begun.elapsed() < PATIENCE, "nothing is let go");
            }
        }
        fillers
    }

    /// Waits until some blobs are known to be stored.
    async fn until_known(retention: &Retention, blobs: &[Digest]) {
        let begun = std::time::Instant::now();
        let is_known = |known: Vec<Digest>| blobs.iter().all(|blob| known.contains(blob));
        while !is_known(retention.digests(Kind::Blob)) {
            assert!(begun.elapsed() < PATIENCE, "they are not found");
            tokio::time::advance(Duration::from_millis(1)).await;
        }
    }

    /// What the ledger says is kept is, by whoever has it next: with the state of the one that is gone, which told its
    /// log of nothing, or with another.
    async fn check(has_other_state: bool) {
        let shared = tempfile::tempdir().expect("a directory");
        let states = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
        std::fs::create_dir(shared.path().join("storage")).expect("made");
        let tenant: TenantId = "one".parse().expect("is a name");
        let of_first = ledger(shared.path());
        let first = opened(shared.path(), states[0].path(), (&of_first, 1));
        let kept = given(of_first.as_ref(), &first.storage, &tenant).await;
        // As one that is killed.
        drop((first, of_first));
        let state = &states[usize::from(has_other_state)];
        let next = opened(shared.path(), state.path(), (&ledger(shared.path()), 2));
        let (storage, stop) = (next.storage, CancellationToken::new());
        let evicting = AbortOnDropHandle::new(tokio::spawn(next.evictor.run(stop.clone())));
        until_known(&next.retention, &kept).await;
        tokio::time::advance(KEEP * 2).await;
        let fillers = fill(&storage, &tenant).await;
        let objects = &storage.places.of_kind[&Kind::Blob].objects;
        let missing = objects.find_missing(&kept).await.expect("is asked");
        assert_eq!(
            missing,
            [],
            "what a verdict names is there, with its bundle"
        );
        let gone = objects.find_missing(&fillers).await.expect("is asked");
        assert!(!gone.is_empty(), "something went");
        stop.cancel();
        evicting.await.expect("it ends");
    }

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

    #[tokio::test(start_paused = true)]
    async fn what_a_verdict_keeps_outlives_its_coordinator() {
        check(false).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_verdict_keeps_is_known_to_whoever_takes_over() {
        check(true).await;
    }
}
