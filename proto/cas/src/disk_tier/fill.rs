//! Bringing a file into the tier.

use std::fs::{File, FileTimes, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use regatta_model::Digest;
use tempfile::{NamedTempFile, TempPath};

use super::known_chunks::{Assembly, KnownChunks};
use super::local_file::LocalFile;
use super::pinned_file::Pin;
use super::shared::{Reservation, Shared, modified_at, unavailable};
use crate::whole_blob::{Collected, collect_up_to};
use crate::{BlobRange, BlobStore, BlobStream, StoreError, checked_body};

/// Blobs of at most so many bytes are read before their file is made, so that one visit to another thread
/// makes it: most files of most builds are small, and the visits cost more than they do.
const MAX_BYTES_AT_ONCE: u64 = 128 * 1024;

/// Blobs of so many bytes are made of chunks, some of which other files may have.
const CHUNKED_FROM_BYTES: u64 = 8 << 20;

/// Where files come from.
pub(super) struct Origin {
    pub(super) store: Arc<dyn BlobStore>,
    /// What large blobs are made of, if that can be asked.
    pub(super) chunks: Option<Arc<KnownChunks>>,
}

impl Origin {
    /// A large blob from what other files have of it, and below; `None` if it is better got as a whole.
    async fn assembled(
        &self,
        shared: &Arc<Shared>,
        file: LocalFile,
    ) -> Option<(&KnownChunks, Assembly)> {
        if file.digest.size_bytes() < CHUNKED_FROM_BYTES {
            return None;
        }
        let known = self.chunks.as_deref()?;
        let assembly = known.assemble(&self.store, shared, file.part, &file.digest);
        Some((known, assembly.await?))
    }
}

/// Makes a file that is not there: from its twin if that is there, else from what other files have of it and
/// the store below.
pub(super) async fn fill(
    origin: Origin,
    shared: Arc<Shared>,
    file: LocalFile,
) -> Result<Arc<Pin>, StoreError> {
    // Somebody else may have been faster between the caller's look and this one.
    if let Some(pin) = Pin::of_intact(&shared, file) {
        return Ok(pin);
    }
    if let Some(twin) = Pin::of_intact(&shared, file.twin()) {
        return fill_from(Source::Twin(twin), shared, file).await;
    }
    if let Some((known, assembly)) = origin.assembled(&shared, file).await {
        let source = Source::Stream(assembly.body);
        match fill_from(source, Arc::clone(&shared), file).await {
            // Some file does not have what it had, cannot be read, or leaves no room for this one as long as
            // it is held.
            Err(
                StoreError::Corrupt { .. }
                | StoreError::Full { .. }
                | StoreError::Exhausted { .. }
                | StoreError::Away { .. }
                | StoreError::Unavailable { .. },
            ) if assembly.has_local_parts => known.forget(&assembly.chunks),
            filled => {
                if filled.is_ok() {
                    known.note(&file.digest, &assembly.chunks);
                }
                return filled;
            }
        }
    }
    // Asked before any room is made: an absent blob must not drive others out.
    let source = Source::below(origin.store.as_ref(), &file.digest).await?;
    fill_from(source, shared, file).await
}

async fn fill_from(
    source: Source,
    shared: Arc<Shared>,
    file: LocalFile,
) -> Result<Arc<Pin>, StoreError> {
    let begin = move || Filling::begin(shared, file);
    let body = match source {
        Source::Stream(body) => body,
        // What is at hand is written without coming back in between.
        Source::Twin(twin) => {
            let copy = move || {
                let (filling, target) = begin()?;
                let copied = copy(&twin.path(), &target);
                copied.map_err(|error| unavailable("copying a file", &error))?;
                filling.finish(&target)
            };
            return blocking(copy).await;
        }
        Source::Bytes(bytes) => {
            let write = move || {
                let (filling, target) = begin()?;
                filling.finish(&write(target, &bytes)?)
            };
            return blocking(write).await;
        }
    };
    let (filling, target) = blocking(begin).await?;
    let target = write_all(target, body).await?;
    blocking(move || filling.finish(&target)).await
}

/// Where the content of a file comes from.
enum Source {
    /// The file of the same blob with the other mode.
    Twin(Arc<Pin>),
    /// All of it, verified.
    Bytes(Bytes),
    /// What will be verified when it has been read.
    Stream(BlobStream),
}

impl Source {
    async fn below(store: &dyn BlobStore, digest: &Digest) -> Result<Self, StoreError> {
        if digest.is_empty_blob() {
            return Ok(Self::Bytes(Bytes::new()));
        }
        let body = store.get(digest, BlobRange::ALL).await?;
        let body = checked_body(*digest, body);
        if digest.size_bytes() > MAX_BYTES_AT_ONCE {
            return Ok(Self::Stream(body));
        }
        Ok(match collect_up_to(body, MAX_BYTES_AT_ONCE).await? {
            Collected::Whole(bytes) => Self::Bytes(bytes),
            Collected::TooLarge { read, rest } => {
                Self::Stream(stream::iter(read.into_iter().map(Ok)).chain(rest).boxed())
            }
        })
    }
}

/// A file that is being made, in room that is reserved for it. All that it does blocks.
struct Filling {
    shared: Arc<Shared>,
    file: LocalFile,
    reservation: Reservation,
    path: TempPath,
}

impl Filling {
    fn begin(shared: Arc<Shared>, file: LocalFile) -> Result<(Self, File), StoreError> {
        let reservation = shared.reserve(file)?;
        let temporary = NamedTempFile::new_in(shared.temporary_directory());
        let temporary = temporary.map_err(|error| unavailable("making a file", &error))?;
        let (target, path) = temporary.into_parts();
        let filling = Self {
            shared,
            file,
            reservation,
            path,
        };
        Ok((filling, target))
    }

    fn finish(self, target: &File) -> Result<Arc<Pin>, StoreError> {
        let finished = finish(self.file, target);
        finished.map_err(|error| unavailable("finishing a file", &error))?;
        self.shared.commit(self.file, self.path, self.reservation)?;
        Ok(Pin::of_pinned(&self.shared, self.file))
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| unavailable("working on a file", &io::Error::other(error)))?
}

/// Writes a stream. The next piece is awaited while one is written.
async fn write_all(mut target: File, mut body: BlobStream) -> Result<File, StoreError> {
    let mut next = body.try_next().await?;
    while let Some(piece) = next {
        let writing = blocking(move || write(target, &piece));
        (target, next) = futures::try_join!(writing, body.try_next())?;
    }
    Ok(target)
}

fn write(mut target: File, piece: &[u8]) -> Result<File, StoreError> {
    let written = target.write_all(piece);
    written.map_err(|error| unavailable("writing a file", &error))?;
    Ok(target)
}

fn copy(source: &Path, mut target: &File) -> io::Result<()> {
    io::copy(&mut File::open(source)?, &mut target).map(drop)
}

fn finish(file: LocalFile, target: &File) -> io::Result<()> {
    target.set_permissions(Permissions::from_mode(file.mode()))?;
    let times = FileTimes::new()
        .set_accessed(SystemTime::now())
        .set_modified(modified_at());
    target.set_times(times)
}
