//! What outlives a coordinator's process: its ledger, its bucket, and the files of its machine.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use regatta_ledger::MemoryLedger;
use regatta_model::Digest;
use regatta_wire::reapi;

use crate::bucket::Shelf;
use crate::model::packed_in;

/// What outlives a coordinator.
#[derive(Clone, Debug)]
pub(crate) struct Durable {
    pub(crate) ledger: Arc<MemoryLedger>,
    pub(crate) stock: Stock,
    /// The files of each machine that a coordinator may be on.
    pub(crate) states: Arc<StateDirectories>,
    /// How often somebody has had the ledger.
    pub(crate) terms: Arc<AtomicU64>,
    /// Where the last one was that has opened the storage; [`PLACES`] if there was none.
    pub(crate) last_place: Arc<AtomicUsize>,
}

impl Durable {
    /// Nothing yet.
    ///
    /// # Errors
    /// This machine gives no directory.
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self {
            ledger: Arc::default(),
            stock: Stock::default(),
            states: Arc::new(StateDirectories::new()?),
            terms: Arc::default(),
            last_place: Arc::new(AtomicUsize::new(PLACES)),
        })
    }
}

/// How many machines coordinators may be on.
pub(crate) const PLACES: usize = 2;

/// The directories of coordinators' own files, which go with this.
#[derive(Debug)]
pub(crate) struct StateDirectories(PathBuf);

impl StateDirectories {
    fn new() -> std::io::Result<Self> {
        // Each seed has a process of its own, and no random numbers but its own.
        let name = format!("regatta-simulation-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let states = Self(path);
        for place in 0..PLACES {
            std::fs::create_dir_all(states.of(place))?;
        }
        Ok(states)
    }

    /// That of one machine.
    pub(crate) fn of(&self, place: usize) -> PathBuf {
        self.0.join(place.to_string())
    }
}

impl Drop for StateDirectories {
    fn drop(&mut self) {
        // Whatever is left is in the way of nobody.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// The places of blobs and results, and of what they are packed in.
const BLOBS: &str = "cas";
const PACKS_OF_BLOBS: &str = "cas-packs";
/// The place of lists of the chunks that blobs are made of.
pub(crate) const LISTS: &str = "chunks";
const RESULTS: &str = "ac";
const PACKS_OF_RESULTS: &str = "ac-packs";
/// What comes before an action result where it is stored.
const CHECKSUM_BYTES: usize = 32;

/// A bucket: a shelf for each place in it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stock {
    shelves: Arc<Mutex<BTreeMap<&'static str, Shelf>>>,
    packed: Arc<Mutex<Packed>>,
}

/// What packs have in them, as of some change of theirs.
#[derive(Debug, Default)]
struct Packed {
    changes: u64,
    blobs: BTreeMap<Digest, Bytes>,
}

impl Stock {
    /// What is in a place.
    pub(crate) fn shelf(&self, place: &'static str) -> Shelf {
        let mut shelves = self.shelves.lock().unwrap_or_else(PoisonError::into_inner);
        shelves.entry(place).or_default().clone()
    }

    pub(crate) fn set_clock(&self, now: Duration) {
        let shelves = self.shelves.lock().unwrap_or_else(PoisonError::into_inner);
        shelves.values().for_each(|shelf| shelf.set_clock(now));
    }

    /// Forgets blobs that were not used for so long, and not what names them; how many those were.
    pub(crate) fn sweep(&self, unused: Duration) -> usize {
        self.shelf(BLOBS).sweep(unused)
    }

    /// A blob, wherever it is.
    pub(crate) fn blob(&self, digest: &Digest) -> Option<Bytes> {
        if *digest == Digest::EMPTY {
            return Some(Bytes::new());
        }
        self.whole(digest).or_else(|| {
            let chunks = self.chunks_of(digest)?.into_iter();
            let pieces = chunks.map(|chunk| self.whole(&chunk));
            Some(pieces.collect::<Option<Vec<Bytes>>>()?.concat().into())
        })
    }

    /// A blob that is not made of others.
    fn whole(&self, digest: &Digest) -> Option<Bytes> {
        let whole = self.shelf(BLOBS).bytes(digest);
        whole.or_else(|| self.packed(digest))
    }

    pub(crate) fn has(&self, digest: &Digest) -> bool {
        let is_whole = |digest: &Digest| self.whole(digest).is_some();
        let are_there = |chunks: Vec<Digest>| chunks.iter().all(is_whole);
        *digest == Digest::EMPTY
            || is_whole(digest)
            || self.chunks_of(digest).is_some_and(are_there)
    }

    /// What a blob is made of, if that is stored.
    fn chunks_of(&self, digest: &Digest) -> Option<Vec<Digest>> {
        chunks_in(self.shelf(LISTS).bytes(digest)?)
    }

    /// Every blob of which it is stored what it is made of, with that.
    pub(crate) fn lists(&self) -> Vec<(Digest, Vec<Digest>)> {
        let lists = self.shelf(LISTS).all().into_iter();
        let lists = lists.filter_map(|(blob, list)| Some((blob, chunks_in(list)?)));
        lists.collect()
    }

    /// Every action result that is stored.
    pub(crate) fn results(&self) -> Vec<reapi::ActionResult> {
        let whole = self.shelf(RESULTS).all().into_iter();
        let packed = packed_in(self.shelf(PACKS_OF_RESULTS).all());
        let sealed = whole.chain(packed).map(|(_, sealed)| sealed);
        let results = sealed.filter_map(|sealed| {
            let (_, result) = sealed.split_at_checked(CHECKSUM_BYTES)?;
            reapi::ActionResult::decode(result).ok()
        });
        results.collect()
    }

    /// The blobs that are packed in an object.
    pub(crate) fn packed_with(&self, pack: &Digest) -> Vec<Digest> {
        let bytes = self.shelf(PACKS_OF_BLOBS).bytes(pack);
        let packed = bytes.map(|bytes| packed_in(vec![(*pack, bytes)]));
        packed.unwrap_or_default().into_keys().collect()
    }

    fn packed(&self, digest: &Digest) -> Option<Bytes> {
        let packs = self.shelf(PACKS_OF_BLOBS);
        let mut packed = self.packed.lock().unwrap_or_else(PoisonError::into_inner);
        let changes = packs.changes();
        if packed.changes != changes {
            packed.blobs = packed_in(packs.all());
            packed.changes = changes;
        }
        packed.blobs.get(digest).cloned()
    }
}

/// The digests in a list of chunks.
fn chunks_in(list: Bytes) -> Option<Vec<Digest>> {
    let list = reapi::SplitBlobResponse::decode(list).ok()?;
    let chunks = list.chunk_digests.iter().map(Digest::try_from);
    chunks.collect::<Result<_, _>>().ok()
}
