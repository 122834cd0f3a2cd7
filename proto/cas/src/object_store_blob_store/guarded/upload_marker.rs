//! What tells others of an upload that is under way.

use std::sync::Arc;

use bytes::Bytes;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{MultipartId, ObjectStore, ObjectStoreExt as _, PutOptions, Result};
use tokio::sync::OnceCell;
use tokio::task::AbortHandle;

use super::guard::Guard;
use crate::object_store_blob_store::abandoned_uploads::MarkedUpload;
use crate::object_store_blob_store::observing::{ObjectStoreRequest, Observed};

/// A marker is written anew so many times in the time after which its upload counts as abandoned: a bucket that is away
/// for a while, or a process that is stopped, must not make it seem so.
const RENEWALS: u32 = 24;

/// An object in the bucket that names an upload from before its first part until after its end. It is written anew
/// for as long as somebody has this value: by its age others see whether anybody does.
pub(super) struct UploadMarker<S> {
    object: Arc<MarkerObject<S>>,
    /// Once it is written: what writes it anew.
    renewing: OnceCell<AbortHandle>,
}

impl<S: ObjectStore + MultipartStore> UploadMarker<S> {
    /// For an upload to `path`, in `folder`. Nothing is written yet.
    pub(super) fn new(
        (guard, store): (Arc<Guard>, Arc<S>),
        folder: &Path,
        (path, id): (Path, MultipartId),
        observed: Option<Observed>,
    ) -> Self {
        let name = uuid::Uuid::new_v4().simple().to_string();
        let object = MarkerObject {
            guard,
            store,
            location: folder.clone().join(name),
            text: MarkedUpload { path, id }.to_text(),
            observed,
        };
        Self {
            object: Arc::new(object),
            renewing: OnceCell::new(),
        }
    }

    /// Writes it, unless it was written before.
    ///
    /// # Errors
    /// It may not be there: no part is to be sent.
    pub(super) async fn ensure_written(&self) -> Result<()> {
        let write = || async {
            self.object.put().await?;
            let renewing = tokio::spawn(renew(Arc::clone(&self.object)));
            Ok(renewing.abort_handle())
        };
        self.renewing.get_or_try_init(write).await.map(drop)
    }

    /// Removes it: the upload has ended. If that fails it stays, and whoever aborts what is abandoned finds nothing to
    /// abort.
    pub(super) async fn remove(&self) {
        self.stop_renewing();
        if let Err(error) = self.object.delete().await {
            tracing::debug!(%error, marker = %self.object.location, "the marker of an upload stays");
        }
    }
}

impl<S> UploadMarker<S> {
    fn stop_renewing(&self) {
        if let Some(renewing) = self.renewing.get() {
            renewing.abort();
        }
    }
}

impl<S> Drop for UploadMarker<S> {
    fn drop(&mut self) {
        self.stop_renewing();
    }
}

struct MarkerObject<S> {
    guard: Arc<Guard>,
    store: Arc<S>,
    location: Path,
    text: Bytes,
    observed: Option<Observed>,
}

impl<S: ObjectStore + MultipartStore> MarkerObject<S> {
    async fn put(&self) -> Result<()> {
        self.observe(ObjectStoreRequest::Put);
        let limit = self.guard.limits().of_sending(self.text.len());
        let put = || {
            let text = self.text.clone().into();
            self.store
                .put_opts(&self.location, text, PutOptions::default())
        };
        self.guard.repeated(limit, put).await.map(drop)
    }

    async fn delete(&self) -> Result<()> {
        self.observe(ObjectStoreRequest::Delete);
        let limit = self.guard.limits().answer;
        let delete = || self.store.delete(&self.location);
        match self.guard.repeated(limit, delete).await {
            Err(object_store::Error::NotFound { .. }) => Ok(()),
            answer => answer,
        }
    }

    fn observe(&self, request: ObjectStoreRequest) {
        if let Some(Observed(observe)) = &self.observed {
            observe(request);
        }
    }
}

/// Writes a marker anew, again and again.
async fn renew<S: ObjectStore + MultipartStore>(object: Arc<MarkerObject<S>>) {
    let pause = object.guard.limits().abandoned_after / RENEWALS;
    loop {
        tokio::time::sleep(pause).await;
        if let Err(error) = object.put().await {
            tracing::warn!(
                %error, marker = %object.location,
                "the marker of an upload could not be written anew; trying again"
            );
        }
    }
}
