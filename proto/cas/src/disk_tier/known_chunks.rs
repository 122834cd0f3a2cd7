//! Large blobs from what other files have of them.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use regatta_model::Digest;

use super::local_file::{LocalFile, Part};
use super::pinned_file::Pin;
use super::shared::{Shared, unavailable};
use crate::lru_map::LruMap;
use crate::{BlobRange, BlobStore, BlobStream, StoreError, checked_body, file_body};

/// How many chunks are remembered, at some 250 bytes each: they cover 8 GiB.
const CAPACITY: usize = 1 << 14;
/// How many parts of a blob are opened ahead of the one that is read.
const OPENED_AHEAD: usize = 2;

/// Says what large blobs are made of.
#[async_trait]
pub trait BlobChunks: fmt::Debug + Send + Sync + 'static {
    /// The chunks of a blob in their order; `None` if it is better got as a whole.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], or [`StoreError::Unavailable`]: it is not known.
    async fn chunks_of(&self, digest: &Digest) -> Result<Option<Vec<Digest>>, StoreError>;
}

/// Remembers where chunks are among the files of a tier, for as long as the process lives. A file that is
/// gone, or damaged, costs no more than getting what it had.
#[derive(Debug)]
pub(super) struct KnownChunks {
    chunks: Arc<dyn BlobChunks>,
    places: Mutex<LruMap<Digest, Place>>,
}

/// Where the bytes of a chunk are.
#[derive(Debug, Clone, Copy)]
struct Place {
    blob: Digest,
    offset: u64,
}

/// A blob on its way.
pub(super) struct Assembly {
    /// Its bytes, verified.
    pub(super) body: BlobStream,
    pub(super) chunks: Vec<Digest>,
    /// Whether any of it comes from files.
    pub(super) has_local_parts: bool,
}

/// Neighbouring bytes of a blob that come from one place.
#[derive(Debug)]
struct Stretch {
    source: Source,
    offset: u64,
    length: u64,
}

#[derive(Debug, Clone)]
enum Source {
    /// A file of another blob.
    File(Arc<Pin>),
    /// The blob itself, in the store below.
    Below,
}

impl KnownChunks {
    pub(super) fn new(chunks: Arc<dyn BlobChunks>) -> Self {
        Self {
            chunks,
            places: Mutex::new(LruMap::new()),
        }
    }

    /// The blob as far as it can be had from the files of `part`, and the rest from `store`; `None` if it is
    /// better got as a whole.
    pub(super) async fn assemble(
        &self,
        store: &Arc<dyn BlobStore>,
        shared: &Arc<Shared>,
        part: Part,
        digest: &Digest,
    ) -> Option<Assembly> {
        let chunks = match self.chunks.chunks_of(digest).await {
            Ok(chunks) => chunks?,
            Err(error) => {
                tracing::debug!(%digest, %error, "a blob's chunks are not known; getting it as a whole");
                return None;
            }
        };
        let mut files = Files {
            shared,
            part,
            pins: HashMap::new(),
        };
        let stretches = self.stretches(&chunks, &mut files);
        let has_local_parts = stretches.iter().any(Stretch::is_local);
        let body = body_of(Arc::clone(store), *digest, stretches);
        Some(Assembly {
            body: checked_body(*digest, body),
            chunks,
            has_local_parts,
        })
    }

    /// Remembers that a file of `digest` is made of `chunks`.
    pub(super) fn note(&self, digest: &Digest, chunks: &[Digest]) {
        let mut places = self.places();
        let mut offset = 0;
        for chunk in chunks {
            let place = Place {
                blob: *digest,
                offset,
            };
            places.insert(*chunk, place, 1);
            if places.len() > CAPACITY {
                places.pop_oldest();
            }
            offset += chunk.size_bytes();
        }
    }

    /// Forgets where chunks are: one of them was not there.
    pub(super) fn forget(&self, chunks: &[Digest]) {
        let mut places = self.places();
        for chunk in chunks {
            places.remove(chunk);
        }
    }

    fn places(&self) -> MutexGuard<'_, LruMap<Digest, Place>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stretches(&self, chunks: &[Digest], files: &mut Files<'_>) -> Vec<Stretch> {
        let mut stretches: Vec<Stretch> = Vec::new();
        let mut position = 0;
        for chunk in chunks {
            let place = self.places().touch(chunk).copied();
            let local = place.and_then(|place| Some((files.pin(&place.blob)?, place.offset)));
            let (source, offset) = match local {
                Some((pin, offset)) => (Source::File(pin), offset),
                None => (Source::Below, position),
            };
            let length = chunk.size_bytes();
            match stretches.last_mut() {
                Some(last) if last.is_followed_by(&source, offset) => last.length += length,
                _ => stretches.push(Stretch {
                    source,
                    offset,
                    length,
                }),
            }
            position += length;
        }
        stretches
    }
}

/// The files of one part of a cache that a blob is assembled from, each pinned once.
struct Files<'a> {
    shared: &'a Arc<Shared>,
    part: Part,
    pins: HashMap<Digest, Option<Arc<Pin>>>,
}

impl Files<'_> {
    fn pin(&mut self, digest: &Digest) -> Option<Arc<Pin>> {
        let (shared, part) = (self.shared, self.part);
        let pin = self.pins.entry(*digest).or_insert_with(|| {
            [false, true].into_iter().find_map(|executable| {
                let file = LocalFile {
                    part,
                    digest: *digest,
                    executable,
                };
                Pin::of_intact(shared, file)
            })
        });
        pin.clone()
    }
}

impl Stretch {
    fn is_local(&self) -> bool {
        matches!(self.source, Source::File(_))
    }

    /// Whether what is at `offset` of `source` goes on where this ends.
    fn is_followed_by(&self, source: &Source, offset: u64) -> bool {
        let is_same = match (&self.source, source) {
            (Source::File(mine), Source::File(other)) => Arc::ptr_eq(mine, other),
            (Source::Below, Source::Below) => true,
            (Source::File(_), Source::Below) | (Source::Below, Source::File(_)) => false,
        };
        is_same && self.offset + self.length == offset
    }

    async fn open(
        self,
        store: Arc<dyn BlobStore>,
        digest: Digest,
    ) -> Result<BlobStream, StoreError> {
        let range = BlobRange {
            offset: self.offset,
            length: Some(self.length),
        };
        match self.source {
            Source::Below => store.get(&digest, range).await,
            Source::File(pin) => open_file(pin, self.offset, self.length).await,
        }
    }
}

async fn open_file(pin: Arc<Pin>, offset: u64, length: u64) -> Result<BlobStream, StoreError> {
    let path = pin.path();
    let opened = tokio::task::spawn_blocking(move || File::open(path)).await;
    let opened = opened.map_err(std::io::Error::other).flatten();
    let file = opened.map_err(|error| unavailable("opening a file", &error))?;
    // Once it is open, it may go.
    drop(pin);
    Ok(file_body(file, offset, length))
}

fn body_of(store: Arc<dyn BlobStore>, digest: Digest, stretches: Vec<Stretch>) -> BlobStream {
    stream::iter(stretches)
        .map(move |stretch| stretch.open(Arc::clone(&store), digest))
        .buffered(OPENED_AHEAD)
        .try_flatten()
        .boxed()
}
