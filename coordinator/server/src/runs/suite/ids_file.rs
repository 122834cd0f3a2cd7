//! The ids of a batch's tests, in a file of its input root.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use regatta_cas::{BlobStore, put_bytes};
use regatta_model::{Digest, LeaseId, UnitIndex};
use regatta_wire::convert::{duration_from_wire, duration_to_wire, required_digest};
use regatta_wire::v1;

use crate::dispatch::{BatchPreparer, PrepareError};
use crate::runs::overlay::{Layer, OverlayError, lay, remove, resolve};

/// Where the ids are, from the working directory.
const IDS_PATH: &str = ".regatta/tests";

/// Lays a batch's ids into its input root.
#[derive(Debug)]
pub(super) struct IdsFile {
    pub(super) blobs: Arc<dyn BlobStore>,
    /// Where the runner writes its report, from the working directory.
    pub(super) junit_path: String,
    /// By unit.
    pub(super) ids: Vec<String>,
    /// What is laid over the working directory beside them.
    pub(super) byproducts: Option<Digest>,
    /// What may run the batch in place of a process of its own.
    pub(super) worker: Option<v1::PersistentWorker>,
    /// Whether no other batch has run or runs in the same one.
    pub(super) has_new_worker: bool,
}

#[async_trait]
impl BatchPreparer for IdsFile {
    async fn prepare(
        &self,
        lease: LeaseId,
        units: &[UnitIndex],
        mut spec: v1::LeaseSpec,
    ) -> Result<v1::LeaseSpec, PrepareError> {
        let fail = |error: &dyn std::error::Error| PrepareError::Failed {
            detail: error.to_string(),
        };
        let mut text = String::new();
        for unit in units {
            let id = usize::try_from(unit.0)
                .ok()
                .and_then(|unit| self.ids.get(unit));
            text.push_str(id.map_or("", String::as_str));
            text.push('\n');
        }
        let blobs = self.blobs.as_ref();
        let digest = put_bytes(blobs, text.into())
            .await
            .map_err(|error| PrepareError::from(&error))?;
        let command = spec.command.get_or_insert_default();
        let directory = &command.working_directory;
        let path = resolve(directory, IDS_PATH).map_err(|error| fail(&error))?;
        let report = resolve(directory, &self.junit_path).map_err(|error| fail(&error))?;
        let bare = required_digest(spec.input_root.as_ref(), "input_root")
            .map_err(|error| fail(&error))?;
        let more = self.with_byproducts(bare, directory).await;
        let root = match with_ids(blobs, more, (&path, digest), &report).await {
            // What discovery left is in the way, such as a link.
            Err(_) if more != bare => with_ids(blobs, bare, (&path, digest), &report).await,
            laid => laid,
        };
        let root = root.map_err(|error| match &error {
            OverlayError::Store(error) => error.into(),
            OverlayError::NoDirectory { .. }
            | OverlayError::Outside { .. }
            | OverlayError::Symlink { .. } => fail(&error),
        })?;
        command.arguments.push(format!("@{IDS_PATH}"));
        spec.input_root = Some(root.into());
        let worker = self.worker_of(lease);
        spec.worker = worker.map(|worker| with_file(worker, digest));
        let each = spec.timeout.as_ref().map(duration_from_wire).transpose();
        let each = each.map_err(|error| fail(&error))?;
        // A worker may have to start and to find its tests, as it does in the time of one when they are listed.
        let shares = units.len() + usize::from(spec.worker.is_some());
        spec.timeout = each.map(|each| duration_to_wire(of_all(each, shares)));
        Ok(spec)
    }
}

/// A worker that finds the file of ids in whatever root it was started in.
fn with_file(worker: v1::PersistentWorker, digest: Digest) -> v1::PersistentWorker {
    let file = v1::persistent_worker::RequestFile {
        path: IDS_PATH.to_owned(),
        digest: Some(digest.into()),
    };
    v1::PersistentWorker {
        files: vec![file],
        ..worker
    }
}

/// The root with the file of ids, and without a report: one that it holds already would pass for this runner's.
async fn with_ids(
    blobs: &dyn BlobStore,
    root: Digest,
    (path, digest): (&[String], Digest),
    report: &[String],
) -> Result<Digest, OverlayError> {
    let root = remove(blobs, root, report).await?;
    let layer = Layer::File {
        digest,
        is_executable: false,
    };
    lay(blobs, root, path, layer).await
}

impl IdsFile {
    fn worker_of(&self, lease: LeaseId) -> Option<v1::PersistentWorker> {
        let mut worker = self.worker.clone()?;
        if self.has_new_worker {
            worker.key = format!("{} for lease {}", worker.key, lease.0);
        }
        Some(worker)
    }

    /// The root with what discovery left; without it if it cannot be laid: the batch takes longer then.
    async fn with_byproducts(&self, root: Digest, directory: &str) -> Digest {
        let Some(byproducts) = self.byproducts else {
            return root;
        };
        let laid = async {
            let place = resolve("", directory)?;
            let layer = Layer::Directory(byproducts);
            lay(self.blobs.as_ref(), root, &place, layer).await
        };
        laid.await.unwrap_or_else(|error| {
            tracing::warn!(%error, "what discovery left is not used");
            root
        })
    }
}

/// How long a batch may take whose tests may each take this long.
fn of_all(each: Duration, tests: usize) -> Duration {
    each.saturating_mul(u32::try_from(tests).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use regatta_cas::MemoryBlobStore;
    use regatta_wire::reapi;

    use super::*;

    async fn prepared(blobs: &Arc<dyn BlobStore>, root: Digest, units: usize) -> v1::LeaseSpec {
        prepared_by(None, blobs, root, units).await
    }

    async fn prepared_by(
        worker: Option<v1::PersistentWorker>,
        blobs: &Arc<dyn BlobStore>,
        root: Digest,
        units: usize,
    ) -> v1::LeaseSpec {
        let ids = IdsFile {
            blobs: Arc::clone(blobs),
            junit_path: "out/junit.xml".to_owned(),
            ids: (0..units).map(|unit| unit.to_string()).collect(),
            byproducts: None,
            worker,
            has_new_worker: false,
        };
        let spec = v1::LeaseSpec {
            command: Some(reapi::Command {
                working_directory: "work".to_owned(),
                ..Default::default()
            }),
            input_root: Some(root.into()),
            timeout: Some(duration_to_wire(Duration::from_secs(7))),
            ..Default::default()
        };
        let count = u32::try_from(units).expect("few");
        let units: Vec<_> = (0..count).map(UnitIndex).collect();
        let spec = ids.prepare(LeaseId(1), &units, spec).await;
        spec.expect("is prepared")
    }

    #[tokio::test]
    async fn every_test_of_a_batch_has_its_own_time() {
        let blobs: Arc<dyn BlobStore> = Arc::new(MemoryBlobStore::new());
        let spec = prepared(&blobs, Digest::EMPTY, 3).await;
        assert_eq!(
            spec.timeout,
            Some(duration_to_wire(Duration::from_secs(21)))
        );
        assert_eq!(of_all(Duration::MAX, 2), Duration::MAX);
        let worker = Some(v1::PersistentWorker::default());
        let spec = prepared_by(worker, &blobs, Digest::EMPTY, 3).await;
        let with_a_start = Some(duration_to_wire(Duration::from_secs(28)));
        assert_eq!(spec.timeout, with_a_start);
    }

    #[tokio::test]
    async fn what_discovery_left_is_there_if_it_can_be() {
        let blobs: Arc<dyn BlobStore> = Arc::new(MemoryBlobStore::new());
        let file = put_bytes(blobs.as_ref(), "compiled".into()).await;
        let layer = Layer::File {
            digest: file.expect("stores"),
            is_executable: false,
        };
        let laid = |root, at: &'static str| {
            let (blobs, layer) = (Arc::clone(&blobs), layer.clone());
            async move {
                let place = resolve("", at).expect("is inside");
                lay(blobs.as_ref(), root, &place, layer)
                    .await
                    .expect("lays")
            }
        };
        let root = laid(Digest::EMPTY, "work/source").await;
        let left = laid(Digest::EMPTY, "cache/source").await;
        let with = |byproducts| {
            let ids = IdsFile {
                blobs: Arc::clone(&blobs),
                junit_path: String::new(),
                ids: Vec::new(),
                byproducts: Some(byproducts),
                worker: None,
                has_new_worker: false,
            };
            async move { ids.with_byproducts(root, "work").await }
        };
        assert_eq!(with(left).await, laid(root, "work/cache/source").await);
        assert_eq!(with(Digest::of(b"gone")).await, root);

        // What it left may be in the way of what a batch needs.
        let link = Layer::Symlink {
            target: "cache".to_owned(),
        };
        let place = resolve("", ".regatta").expect("is inside");
        let link = lay(blobs.as_ref(), Digest::EMPTY, &place, link).await;
        let prepared = |byproducts| {
            let ids = IdsFile {
                blobs: Arc::clone(&blobs),
                junit_path: ".regatta/report.xml".to_owned(),
                ids: Vec::new(),
                byproducts,
                worker: None,
                has_new_worker: false,
            };
            async move {
                let spec = v1::LeaseSpec {
                    input_root: Some(root.into()),
                    ..Default::default()
                };
                let spec = ids.prepare(LeaseId(1), &[], spec).await;
                spec.expect("is prepared").input_root
            }
        };
        let with_link = prepared(Some(link.expect("lays"))).await;
        assert_eq!(with_link, prepared(None).await);
    }

    #[tokio::test]
    async fn a_report_of_another_run_is_not_there() {
        let blobs: Arc<dyn BlobStore> = Arc::new(MemoryBlobStore::new());
        let file = |text: &'static str| put_bytes(blobs.as_ref(), text.into());
        let digest = file("<testsuite/>").await.expect("stores");
        let place = |name: &str| resolve("work/out", name).expect("is inside");
        let layer = Layer::File {
            digest,
            is_executable: false,
        };
        let (kept, stale) = (place("kept"), place("junit.xml"));
        let clean = lay(blobs.as_ref(), Digest::EMPTY, &kept, layer.clone()).await;
        let clean = clean.expect("lays");
        let dirty = lay(blobs.as_ref(), clean, &stale, layer).await;
        let dirty = dirty.expect("lays");
        assert_ne!(clean, dirty);
        let spec = prepared(&blobs, dirty, 1).await;
        assert_eq!(
            spec.input_root,
            prepared(&blobs, clean, 1).await.input_root,
            "only the old report has gone"
        );
    }
}
