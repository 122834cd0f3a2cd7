//! Which input roots are laid out, and which of them may go.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt as _;
use regatta_model::{Digest, TenantId};
use tokio::sync::OnceCell;

use super::error::TreeError;
use super::layout::lay_out;
use crate::blobs::TenantStore;

/// A tenant's input root. Nothing is shared between tenants, equal trees neither.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct TreeKey {
    pub(crate) tenant: TenantId,
    pub(crate) root: Digest,
}

/// The input roots laid out on this machine.
///
/// Trees are built in a temporary directory and renamed into place, so that what is in place is whole.
/// Those in use are pinned; of the others, the least recently used go when the quota is exceeded.
#[derive(Debug)]
pub(crate) struct InputTreeCache {
    directory: PathBuf,
    quota_bytes: u64,
    trees: Mutex<Trees>,
}

#[derive(Debug, Default)]
struct Trees {
    entries: BTreeMap<TreeKey, Tree>,
    /// Counts uses; the clock of what was used when.
    uses: u64,
    /// Makes the names of directories unique.
    built: u64,
}

#[derive(Debug, Default)]
struct Tree {
    laid_out: Arc<OnceCell<LaidOut>>,
    pins: usize,
    last_use: u64,
}

#[derive(Clone, Debug)]
struct LaidOut {
    path: PathBuf,
    bytes: u64,
}

/// A tree that stays until this value is dropped.
#[derive(Debug)]
pub(crate) struct PinnedTree {
    cache: Arc<InputTreeCache>,
    key: TreeKey,
    path: PathBuf,
}

impl InputTreeCache {
    /// A cache in `directory`, which it owns. Trees of an earlier process are removed: their files are
    /// links into the blob cache, so building them again fetches nothing but their directories.
    pub(crate) fn open(directory: PathBuf, quota_bytes: u64) -> io::Result<Self> {
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        fs::create_dir_all(&directory)?;
        Ok(Self {
            directory,
            quota_bytes,
            trees: Mutex::default(),
        })
    }

    /// The tree, laid out now unless it is already. Concurrent callers share the work.
    pub(crate) async fn acquire(
        self: &Arc<Self>,
        key: TreeKey,
        store: &TenantStore,
    ) -> Result<PinnedTree, TreeError> {
        let (cell, number) = self.pin(&key);
        let root = key.root;
        let mut pinned = PinnedTree {
            cache: Arc::clone(self),
            key,
            path: PathBuf::new(),
        };
        let laid_out = cell
            .get_or_try_init(|| self.build(store, root, number).boxed())
            .await?;
        pinned.path.clone_from(&laid_out.path);
        self.shrink_to(self.quota_bytes).await;
        Ok(pinned)
    }

    /// The trees that are laid out, the most recently used first.
    pub(crate) fn roots(&self, limit: usize) -> Vec<Digest> {
        let trees = self.trees();
        let laid_out = trees
            .entries
            .iter()
            .filter(|(_, tree)| tree.laid_out.initialized());
        let mut roots: Vec<_> = laid_out
            .map(|(key, tree)| (tree.last_use, key.root))
            .collect();
        roots.sort_unstable_by(|left, right| right.cmp(left));
        roots
            .into_iter()
            .map(|(_, root)| root)
            .take(limit)
            .collect()
    }

    /// How large the trees are together, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.trees().bytes()
    }

    /// Removes trees that are not in use, the least recently used first, until the others are no larger
    /// than `bytes` together.
    pub(crate) async fn shrink_to(&self, bytes: u64) {
        while let Some(path) = self.take_oldest(bytes) {
            let removed = tokio::task::spawn_blocking(move || fs::remove_dir_all(&path)).await;
            if let Err(error) = removed.map_err(io::Error::other).flatten() {
                tracing::warn!(%error, "an input tree could not be removed");
            }
        }
    }

    async fn build(
        &self,
        store: &TenantStore,
        root: Digest,
        number: u64,
    ) -> Result<LaidOut, TreeError> {
        let name = format!("{number}-{}", root.hash_hex());
        let building = tempfile::Builder::new()
            .prefix("building-")
            .tempdir_in(&self.directory)
            .map_err(TreeError::at(&self.directory))?;
        let bytes = lay_out(store, &root, building.path()).boxed().await?;
        let path = self.directory.join(name);
        fs::rename(building.path(), &path).map_err(TreeError::at(&path))?;
        // The directory has moved; there is nothing left to remove under its old name.
        drop(building.keep());
        Ok(LaidOut { path, bytes })
    }

    fn pin(&self, key: &TreeKey) -> (Arc<OnceCell<LaidOut>>, u64) {
        let mut trees = self.trees();
        trees.uses += 1;
        trees.built += 1;
        let (last_use, number) = (trees.uses, trees.built);
        let tree = trees.entries.entry(key.clone()).or_default();
        tree.pins += 1;
        tree.last_use = last_use;
        (Arc::clone(&tree.laid_out), number)
    }

    fn unpin(&self, key: &TreeKey) {
        let mut trees = self.trees();
        let Some(tree) = trees.entries.get_mut(key) else {
            return;
        };
        tree.pins -= 1;
        if tree.pins == 0 && !tree.laid_out.initialized() {
            trees.entries.remove(key);
        }
    }

    fn take_oldest(&self, bytes: u64) -> Option<PathBuf> {
        let mut trees = self.trees();
        if trees.bytes() <= bytes {
            return None;
        }
        let idle = trees.entries.iter().filter(|(_, tree)| tree.pins == 0);
        let oldest = idle
            .min_by_key(|(_, tree)| tree.last_use)
            .map(|(key, _)| key.clone())?;
        let tree = trees.entries.remove(&oldest)?;
        tree.laid_out.get().map(|laid_out| laid_out.path.clone())
    }

    fn trees(&self) -> MutexGuard<'_, Trees> {
        self.trees.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Trees {
    fn bytes(&self) -> u64 {
        self.entries
            .values()
            .filter_map(|tree| tree.laid_out.get())
            .map(|tree| tree.bytes)
            .sum()
    }
}

impl PinnedTree {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PinnedTree {
    fn drop(&mut self) {
        self.cache.unpin(&self.key);
    }
}
