//! A file that stays.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use regatta_model::Digest;

use super::local_file::LocalFile;
use super::shared::Shared;

/// A local, read-only file with the content of a blob, which stays where it is until this is dropped.
#[derive(Debug, Clone)]
pub struct PinnedFile {
    pin: Arc<Pin>,
    path: PathBuf,
}

impl PinnedFile {
    pub(super) fn new(pin: Arc<Pin>) -> Self {
        let path = pin.shared.path_of(pin.file);
        Self { pin, path }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is in it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.pin.file.digest
    }

    /// Whether it may be executed.
    #[must_use]
    pub fn is_executable(&self) -> bool {
        self.pin.file.executable
    }

    pub(super) fn discard(&self) {
        self.pin.shared.discard(self.pin.file);
    }
}

/// One use of a file, which may have several owners.
#[derive(Debug)]
pub(super) struct Pin {
    shared: Arc<Shared>,
    file: LocalFile,
}

impl Pin {
    /// Pins a file if it is there and intact.
    pub(super) fn of_intact(shared: &Arc<Shared>, file: LocalFile) -> Option<Arc<Self>> {
        shared
            .pin_intact(file)
            .then(|| Self::of_pinned(shared, file))
    }

    /// Takes over the use of a file that is pinned already.
    pub(super) fn of_pinned(shared: &Arc<Shared>, file: LocalFile) -> Arc<Self> {
        Arc::new(Self {
            shared: Arc::clone(shared),
            file,
        })
    }

    pub(super) fn path(&self) -> PathBuf {
        self.shared.path_of(self.file)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.shared.unpin(self.file);
    }
}
