//! The way of results into the store.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use regatta_cas::{BlobStore, BlobStream, StoreError, file_body, stream_of};
use regatta_model::Digest;

use super::collect::{BlobSource, Collected};
use super::output_spool::{Captured, CapturedBody};
use super::view::{Found, View, find};
use crate::outcome::is_caused_by_files;
use crate::retry::{Patience, STORE_RETRY_LIMIT, patiently};

/// How many blobs of an execution are stored at once.
const CONCURRENT_UPLOADS: usize = 8;
/// How many digests are asked for at once.
const PRESENCE_BATCH: usize = 1000;
/// Outputs of at most so many bytes together, which are sent at once, are sent unasked: that costs less
/// than asking.
const UNASKED_BYTES: u64 = 16 << 10;

/// Why outputs are not stored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishError {
    /// A process of the job was still at it: the job's own fault.
    #[error("output `{path}` changed while it was read")]
    Changed { path: PathBuf },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Stores the blobs of outputs, as far as the store does not have them.
pub(crate) async fn publish_outputs(
    store: &Arc<dyn BlobStore>,
    view: &View,
    collected: &Collected,
) -> Result<(), PublishError> {
    let digests: Vec<Digest> = collected.blobs.keys().copied().collect();
    let patience = Patience::of(STORE_RETRY_LIMIT);
    for batch in digests.chunks(PRESENCE_BATCH) {
        let bytes = batch.iter().map(Digest::size_bytes);
        let missing = match bytes.fold(0, u64::saturating_add) {
            ..=UNASKED_BYTES if batch.len() <= CONCURRENT_UPLOADS => batch.to_vec(),
            _ => patiently(&patience, || store.find_missing(batch)).await?,
        };
        stream::iter(missing)
            .map(|digest| publish_blob(store, view, collected, (digest, &patience)).boxed())
            .buffer_unordered(CONCURRENT_UPLOADS)
            .try_collect::<()>()
            .await?;
    }
    Ok(())
}

async fn publish_blob(
    store: &Arc<dyn BlobStore>,
    view: &View,
    collected: &Collected,
    (digest, patience): (Digest, &Patience),
) -> Result<(), PublishError> {
    let Some(source) = collected.blobs.get(&digest) else {
        return Ok(());
    };
    let published = patiently(patience, || async {
        store
            .put(&digest, body_of(source, view, digest).await?)
            .await
    });
    match (published.await, source) {
        (Err(StoreError::Corrupt { .. }), BlobSource::View { path }) => {
            Err(PublishError::Changed { path: path.clone() })
        }
        (published, BlobSource::View { .. } | BlobSource::Memory(_)) => Ok(published?),
    }
}

/// What is to be stored. What is not there any more is told as the bytes of nothing.
async fn body_of(
    source: &BlobSource,
    view: &View,
    digest: Digest,
) -> Result<BlobStream, StoreError> {
    let path = match source {
        BlobSource::Memory(bytes) => return Ok(stream_of(bytes.clone())),
        BlobSource::View { path } => path.clone(),
    };
    let view = view.clone();
    let opened = tokio::task::spawn_blocking(move || find(&view, &path));
    match opened.await.map_err(io::Error::other).flatten() {
        Ok(Found::File { file, .. }) => Ok(file_body(file, 0, digest.size_bytes())),
        Err(error) if !is_caused_by_files(&error) => Err(unreadable(error)),
        Ok(Found::Nothing | Found::Directory(_) | Found::Symlink { .. } | Found::Special)
        | Err(_) => Err(StoreError::Corrupt {
            expected: digest,
            actual: Digest::of(b""),
        }),
    }
}

/// Stores an output stream.
pub(crate) async fn publish_captured(
    store: &Arc<dyn BlobStore>,
    captured: &Captured,
) -> Result<(), StoreError> {
    if captured.digest.is_empty_blob() {
        return Ok(());
    }
    patiently(&Patience::of(STORE_RETRY_LIMIT), || async {
        let body = match &captured.body {
            CapturedBody::Memory(bytes) => stream_of(Bytes::clone(bytes)),
            CapturedBody::File(file) => {
                let file = file.try_clone().map_err(unreadable)?;
                file_body(file, 0, captured.digest.size_bytes())
            }
        };
        store.put(&captured.digest, body).await
    })
    .await
}

/// A file of this machine that cannot be read will not get better by waiting.
fn unreadable(error: io::Error) -> StoreError {
    StoreError::Full {
        detail: format!("a result on this machine cannot be read: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::fd::OwnedFd;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use regatta_cas::{MemoryBlobStore, VerifyingBlobStore};
    use regatta_model::RootDirectory;
    use regatta_wire::reapi::command::OutputDirectoryFormat;
    use rustix::fs::{CWD, Mode, mkfifoat};
    use tokio_util::sync::CancellationToken;

    use super::super::collect::{CollectLimits, collect};
    use super::*;
    use crate::lease_spec::DeclaredOutput;
    use crate::view_path::ViewPath;

    /// Collects a file that is too large to be kept in memory, has something happen to it, and stores it.
    async fn published(happens: impl FnOnce(&Path)) -> Result<(), PublishError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out");
        fs::write(&path, vec![7; 100_000]).unwrap();
        let root = Arc::new(OwnedFd::from(File::open(directory.path()).unwrap()));
        let view = View::new(root, RootDirectory::Image);
        let declared = DeclaredOutput {
            declared: "out".to_owned(),
            path: ViewPath::parse("out").unwrap(),
            made_ahead: false,
        };
        let limits = CollectLimits {
            max_bytes: u64::MAX,
            cancel: CancellationToken::new(),
        };
        let format = OutputDirectoryFormat::TreeAndDirectory;
        let collected = collect(&view, &[declared], format, limits).unwrap();
        happens(&path);
        let store = VerifyingBlobStore::new(Arc::new(MemoryBlobStore::new()));
        publish_outputs(&(Arc::new(store) as _), &view, &collected).await
    }

    #[tokio::test]
    async fn what_is_changed_after_it_was_collected_is_the_jobs_own_fault() {
        published(|_| {}).await.unwrap();
        let changes: [fn(&Path); 6] = [
            |path| fs::remove_file(path).unwrap(),
            |path| fs::write(path, vec![8; 100_000]).unwrap(),
            |path| fs::write(path, "short").unwrap(),
            |path| {
                fs::remove_file(path).unwrap();
                fs::create_dir(path).unwrap();
            },
            |path| {
                fs::remove_file(path).unwrap();
                symlink("/etc/passwd", path).unwrap();
            },
            |path| {
                fs::remove_file(path).unwrap();
                mkfifoat(CWD, path, Mode::RUSR).unwrap();
            },
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let error = published(change).await.unwrap_err();
            assert!(
                matches!(error, PublishError::Changed { .. }),
                "{number}: {error}"
            );
        }
    }
}
