//! Object stores that are reached over a network, and so fail.

mod attempts;
mod circuit_breaker;
mod guard;
mod listing;
mod reading;
mod trouble;
mod upload;
mod upload_marker;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartId, MultipartUpload,
    ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode, PutMultipartOptions, PutOptions,
    PutPayload, PutResult, Result,
};

use self::guard::Guard;
pub(super) use self::guard::Limits;
use self::listing::Listing;
use self::reading::Reading;
pub(super) use self::trouble::Trouble;
use self::upload::GuardedUpload;
use super::abandoned_uploads::{AbandonedUploads, AbortUpload, folder_of};
use super::observing::Observed;

/// How many deletions are under way at a time.
const DELETE_CONCURRENCY: usize = 20;

/// Keeps a bucket's failures short and few.
///
/// - Each request, and each wait for more of a body or of a list, has a limit. What makes progress is never cut.
/// - A request that failed in a way that may pass is made again, a bounded number of times, after waits that
///   grow and are spread by chance. All that is asked for here may be done twice: an object that is written
///   again has the same bytes.
/// - A body or a list that breaks goes on where it was; the body, only if the object is still the same.
/// - A store that does nothing but fail is left alone for a while, and whoever wants something of it is told at
///   once.
///
/// It takes the place of object_store's own repetitions, which must be turned off: they know no circuit
/// breaker, and give up on long bodies.
#[derive(Debug)]
pub(super) struct GuardedObjectStore<S> {
    store: Arc<S>,
    guard: Arc<Guard>,
    /// Where the markers of uploads are, if the store keeps what nobody aborts.
    markers: Option<Path>,
}

impl<S: ObjectStore + MultipartStore> GuardedObjectStore<S> {
    /// Guards `store`, which people know as `name`.
    pub(super) fn new(store: S, name: &str) -> Self {
        Self::with_limits(store, name, Limits::DEFAULT)
    }

    pub(super) fn with_limits(store: S, name: &str, limits: Limits) -> Self {
        Self {
            store: Arc::new(store),
            guard: Arc::new(Guard::new(name, limits, at_random)),
            markers: None,
        }
    }

    /// Has uploads to what is below `root` named by markers. What aborts those that nobody will end.
    pub(super) fn with_uploads_marked(mut self, root: Path) -> (Arc<Self>, AbandonedUploads) {
        self.markers = Some(folder_of(&root));
        let after = self.guard.limits().abandoned_after;
        let store = Arc::new(self);
        let abandoned = AbandonedUploads::new(&store, root, after);
        (store, abandoned)
    }

    /// What is read of `found`, with its breaks mended.
    fn mended(&self, location: &Path, options: GetOptions, found: GetResult) -> GetResult {
        let GetResult {
            payload,
            meta,
            range,
            attributes,
            extensions,
        } = found;
        let payload = match payload {
            GetResultPayload::Stream(body) => {
                let reading = Reading::new(
                    (Arc::clone(&self.guard), Arc::clone(&self.store)),
                    (location.clone(), options),
                    meta.e_tag.clone(),
                    range.clone(),
                    body,
                );
                GetResultPayload::Stream(reading.into_stream())
            }
            file @ GetResultPayload::File(..) => file,
        };
        GetResult {
            payload,
            meta,
            range,
            attributes,
            extensions,
        }
    }
}

/// The last bits of a version 4 UUID are random, which saves a dependency.
fn at_random() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().1
}

impl<S: fmt::Display> fmt::Display for GuardedObjectStore<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(formatter)
    }
}

#[async_trait]
impl<S: ObjectStore + MultipartStore> ObjectStore for GuardedObjectStore<S> {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let limit = self.guard.limits().of_sending(payload.content_length());
        let put = || {
            self.store
                .put_opts(location, payload.clone(), options.clone())
        };
        match options.mode {
            PutMode::Overwrite => self.guard.repeated(limit, put).await,
            // Done twice, these fail though they were done.
            PutMode::Create | PutMode::Update(_) => self.guard.once(limit, put()).await,
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let limit = self.guard.limits().answer;
        let begin = || self.store.create_multipart_opts(location, options.clone());
        let id = self.guard.repeated(limit, begin).await?;
        let upload = GuardedUpload::new(
            Arc::clone(&self.guard),
            Arc::clone(&self.store),
            location.clone(),
            id,
        );
        let observed = options.extensions.get::<Observed>().cloned();
        Ok(match &self.markers {
            Some(folder) => Box::new(upload.marked_in(folder, observed)),
            None => Box::new(upload),
        })
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let limit = self.guard.limits().answer;
        let get = || self.store.get_opts(location, options.clone());
        let found = self.guard.repeated(limit, get).await?;
        Ok(match options.head {
            true => found,
            false => self.mended(location, options, found),
        })
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let (guard, store) = (Arc::clone(&self.guard), Arc::clone(&self.store));
        let delete = move |location: Path| {
            let (guard, store) = (Arc::clone(&guard), Arc::clone(&store));
            async move {
                let limit = guard.limits().answer;
                guard.repeated(limit, || store.delete(&location)).await?;
                Ok(location)
            }
        };
        locations
            .map_ok(delete)
            .try_buffered(DELETE_CONCURRENCY)
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (guard, store) = (Arc::clone(&self.guard), Arc::clone(&self.store));
        Listing::new(guard, store, prefix.cloned()).into_stream()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let limit = self.guard.limits().answer;
        let list = || self.store.list_with_delimiter(prefix);
        self.guard.repeated(limit, list).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let limit = self.guard.limits().answer;
        let copy = self.store.copy_opts(from, to, options);
        self.guard.once(limit, copy).await
    }
}

#[async_trait]
impl<S: ObjectStore + MultipartStore> AbortUpload for GuardedObjectStore<S> {
    async fn abort_upload(&self, path: &Path, id: &MultipartId) -> Result<()> {
        let limit = self.guard.limits().answer;
        let abort = || self.store.abort_multipart(path, id);
        self.guard.repeated(limit, abort).await
    }
}

#[cfg(test)]
mod tests;
