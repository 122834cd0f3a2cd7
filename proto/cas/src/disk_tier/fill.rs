//! Bringing a file into the tier.

use std::fs::{File, FileTimes, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use futures::TryStreamExt as _;
use tempfile::NamedTempFile;

use super::local_file::LocalFile;
use super::pinned_file::Pin;
use super::shared::{Shared, modified_at, unavailable};
use crate::{BlobRange, BlobStore, BlobStream, StoreError, checked_body};

/// Makes a file that is not there: from its twin if that is there, else from the store below.
pub(super) async fn fill(
    store: Arc<dyn BlobStore>,
    shared: Arc<Shared>,
    file: LocalFile,
) -> Result<Arc<Pin>, StoreError> {
    // Somebody else may have been faster between the caller's look and this one.
    if let Some(pin) = Pin::of_intact(&shared, file) {
        return Ok(pin);
    }
    let twin = Pin::of_intact(&shared, file.twin());
    // Asked before any room is made: an absent blob must not drive others out.
    let body = match &twin {
        Some(_) => None,
        None if file.digest.is_empty_blob() => None,
        None => Some(store.get(&file.digest, BlobRange::ALL).await?),
    };
    let reserving = Arc::clone(&shared);
    let (reservation, temporary) = blocking(move || {
        let reservation = reserving.reserve(file)?;
        let temporary = NamedTempFile::new_in(reserving.temporary_directory());
        let temporary = temporary.map_err(|error| unavailable("making a file", &error))?;
        Ok((reservation, temporary))
    })
    .await?;
    let (target, path) = temporary.into_parts();
    let target = match body {
        Some(body) => write(target, checked_body(file.digest, body)).await?,
        None => target,
    };
    blocking(move || {
        if let Some(twin) = twin {
            copy(&twin.path(), &target).map_err(|error| unavailable("copying a file", &error))?;
        }
        finish(file, &target).map_err(|error| unavailable("finishing a file", &error))?;
        shared.commit(file, path, reservation)?;
        Ok(Pin::of_pinned(&shared, file))
    })
    .await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| unavailable("working on a file", &io::Error::other(error)))?
}

/// Writes a stream to a file. The next piece is awaited while one is written.
async fn write(mut target: File, mut body: BlobStream) -> Result<File, StoreError> {
    let mut next = body.try_next().await?;
    while let Some(piece) = next {
        let writing = blocking(move || {
            let written = target.write_all(&piece);
            written.map_err(|error| unavailable("writing a file", &error))?;
            Ok(target)
        });
        let read = body.try_next();
        (target, next) = futures::try_join!(writing, read)?;
    }
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
