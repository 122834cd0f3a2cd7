//! Uploads in parts, each of which is repeated by itself.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    Error, MultipartId, MultipartUpload, ObjectStore, ObjectStoreExt as _, PutPayload, PutResult,
    Result, UploadPart,
};
use regatta_model::Backoff;
use tokio::time::Instant;

use super::attempts::Attempts;
use super::guard::Guard;
use super::trouble::{Trouble, may_pass};
use super::upload_marker::UploadMarker;
use crate::object_store_blob_store::observing::Observed;

/// How long the first wait is at most before an upload is aborted again.
const FIRST_ABORT_WAIT: Duration = Duration::from_secs(1);
/// How long any of them is at most: a store that comes back is rid of the upload soon after.
const LONGEST_ABORT_WAIT: Duration = Duration::from_secs(30);

/// An upload that has begun.
pub(super) struct GuardedUpload<S> {
    guard: Arc<Guard>,
    store: Arc<S>,
    path: Path,
    id: MultipartId,
    /// Tells others of it, if the store keeps what nobody aborts.
    marker: Option<Arc<UploadMarker<S>>>,
    parts: Arc<Mutex<Parts>>,
    size_bytes: u64,
}

/// What has become of the parts.
#[derive(Default)]
struct Parts {
    /// `None` as long as a part has not arrived.
    arrived: Vec<Option<PartId>>,
    /// What the store said when it did not know the upload any more.
    gone: Option<Error>,
}

impl<S> std::fmt::Debug for GuardedUpload<S> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = formatter.debug_struct("GuardedUpload");
        shown.field("path", &self.path).field("id", &self.id);
        shown.finish_non_exhaustive()
    }
}

impl<S: ObjectStore + MultipartStore> GuardedUpload<S> {
    pub(super) fn new(guard: Arc<Guard>, store: Arc<S>, path: Path, id: MultipartId) -> Self {
        Self {
            guard,
            store,
            path,
            id,
            marker: None,
            parts: Arc::default(),
            size_bytes: 0,
        }
    }

    /// Has it named by a marker in `folder`.
    pub(super) fn marked_in(self, folder: &Path, observed: Option<Observed>) -> Self {
        let place = (Arc::clone(&self.guard), Arc::clone(&self.store));
        let upload = (self.path.clone(), self.id.clone());
        let marker = UploadMarker::new(place, folder, upload, observed);
        Self {
            marker: Some(Arc::new(marker)),
            ..self
        }
    }

    /// Has its marker removed, for which nobody waits: all that was uploaded is an object now.
    fn remove_marker(&mut self) {
        if let Some(marker) = self.marker.take() {
            tokio::spawn(async move { marker.remove().await });
        }
    }

    /// Whether a part may be under way that the store takes after the upload was aborted, and then keeps (S3,
    /// `AbortMultipartUpload`).
    fn may_leave_parts(&self) -> bool {
        locked(&self.parts).arrived.iter().any(Option::is_none)
    }

    fn arrived(&self) -> Result<Vec<PartId>> {
        let parts = locked(&self.parts);
        let arrived = parts.arrived.iter().enumerate().map(|(index, part)| {
            let path = self.path.clone();
            part.clone().ok_or(Trouble::PartMissing { path, index })
        });
        Ok(arrived.collect::<Result<_, _>>()?)
    }

    /// Whether the object is there though the store will not complete the upload: by a request whose answer was
    /// lost, or by another writer, whose completion makes some stores (Garage) forget uploads that began before.
    /// Stores say so in different ways.
    async fn was_completed(&self, refusal: Error) -> Result<PutResult> {
        let limit = self.guard.limits().answer;
        let head = || self.store.head(&self.path);
        match self.guard.repeated(limit, head).await {
            Ok(found) if found.size == self.size_bytes => Ok(PutResult {
                e_tag: found.e_tag,
                version: found.version,
                extensions: object_store::Extensions::default(),
            }),
            Ok(_) | Err(Error::NotFound { .. }) => Err(refusal),
            Err(error) => Err(error),
        }
    }
}

fn locked(parts: &Mutex<Parts>) -> MutexGuard<'_, Parts> {
    parts.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl<S: ObjectStore + MultipartStore> MultipartUpload for GuardedUpload<S> {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.size_bytes += data.content_length() as u64;
        let index = {
            let mut parts = locked(&self.parts);
            parts.arrived.push(None);
            parts.arrived.len() - 1
        };
        let (guard, store) = (Arc::clone(&self.guard), Arc::clone(&self.store));
        let (path, id) = (self.path.clone(), self.id.clone());
        let (parts, marker) = (Arc::clone(&self.parts), self.marker.clone());
        Box::pin(async move {
            if let Some(marker) = marker {
                marker.ensure_written().await?;
            }
            let limit = guard.limits().of_sending(data.content_length());
            let put = || store.put_part(&path, &id, index, data.clone());
            let put = guard.repeated(limit, put).await;
            let mut parts = locked(&parts);
            match put {
                Ok(part) => parts.arrived[index] = Some(part),
                // What that means is seen when it is to be completed.
                Err(gone @ Error::NotFound { .. }) => parts.gone = Some(gone),
                Err(error) => return Err(error),
            }
            Ok(())
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let gone = locked(&self.parts).gone.take();
        if let Some(gone) = gone {
            return self.was_completed(gone).await;
        }
        let parts = self.arrived()?;
        let limit = self.guard.limits().complete;
        let mut attempts = Attempts::begin();
        loop {
            let complete = self
                .store
                .complete_multipart(&self.path, &self.id, parts.clone());
            match self.guard.once(limit, complete).await {
                Err(error) if may_pass(&error) => attempts.again(&self.guard, error).await?,
                Err(refusal)
                    if attempts.has_failed() || matches!(refusal, Error::NotFound { .. }) =>
                {
                    return self.was_completed(refusal).await;
                }
                answer => {
                    if answer.is_ok() {
                        self.remove_marker();
                    }
                    return answer;
                }
            }
        }
    }

    /// Goes on for as long as [`Limits::abort`](super::Limits) says, also while the store is away. What is left then,
    /// or by a part that arrives later, its marker still tells of.
    async fn abort(&mut self) -> Result<()> {
        let (limits, may_leave_parts) = (*self.guard.limits(), self.may_leave_parts());
        let until = Instant::now() + limits.abort;
        let mut waits = Backoff::new(FIRST_ABORT_WAIT, LONGEST_ABORT_WAIT);
        loop {
            let abort = self.store.abort_multipart(&self.path, &self.id);
            match self.guard.once(limits.answer, abort).await {
                Ok(()) | Err(Error::NotFound { .. }) => break,
                Err(error) if may_pass(&error) || Trouble::is_away(&error) => {
                    let wait = waits.delay(self.guard.randomness());
                    if Instant::now() + wait > until {
                        return Err(error);
                    }
                    tokio::time::sleep(wait).await;
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(marker) = self.marker.take_if(|_| !may_leave_parts) {
            marker.remove().await;
        }
        Ok(())
    }
}
