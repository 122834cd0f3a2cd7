//! Which requests an object store is sent.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};

use super::ObjectStoreBlobStore;

/// How many objects a request for a list names at most, in every kind of bucket.
const LISTED_AT_ONCE: u64 = 1000;

/// What an object store can be asked for. Buckets charge for each, and by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ObjectStoreRequest {
    /// An object, or a part of it.
    Get,
    /// Whether an object is there, and how large it is.
    Head,
    /// A whole object is written.
    Put,
    /// The names of some objects.
    List,
    /// An object is deleted.
    Delete,
    /// A part of an upload; and what begins, completes or gives up one.
    Upload,
    /// An object is copied.
    Copy,
}

impl ObjectStoreRequest {
    /// What it is called in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Head => "head",
            Self::Put => "put",
            Self::List => "list",
            Self::Delete => "delete",
            Self::Upload => "upload",
            Self::Copy => "copy",
        }
    }
}

/// Is told of each request.
pub type ObserveRequest = Arc<dyn Fn(ObjectStoreRequest) + Send + Sync>;

/// Goes with a request for an upload: what is to be told of the requests that an upload makes besides.
#[derive(Clone)]
pub(super) struct Observed(pub(super) ObserveRequest);

/// The same objects; `observe` is told of each request.
pub(super) fn observed(
    objects: Arc<dyn ObjectStore>,
    observe: ObserveRequest,
) -> Arc<dyn ObjectStore> {
    Arc::new(ObservingObjectStore { objects, observe })
}

impl ObjectStoreBlobStore {
    /// Tells `observe` of each request, when it is sent. One that object_store's client sends again counts
    /// once; a list counts once for each thousand objects.
    #[must_use]
    pub fn with_requests_observed(self, observe: ObserveRequest) -> Self {
        Self {
            objects: observed(self.objects, observe),
            ..self
        }
    }
}

struct ObservingObjectStore {
    objects: Arc<dyn ObjectStore>,
    observe: ObserveRequest,
}

impl fmt::Debug for ObservingObjectStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.objects.fmt(formatter)
    }
}

impl fmt::Display for ObservingObjectStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.objects.fmt(formatter)
    }
}

/// Observes the requests of a listing as their answers are read.
fn observed_listing(
    listing: BoxStream<'static, Result<ObjectMeta>>,
    observe: &ObserveRequest,
) -> BoxStream<'static, Result<ObjectMeta>> {
    observe(ObjectStoreRequest::List);
    let (observe, mut listed) = (Arc::clone(observe), 0);
    let listing = listing.inspect_ok(move |_| {
        listed += 1;
        if listed > LISTED_AT_ONCE {
            observe(ObjectStoreRequest::List);
            listed = 1;
        }
    });
    listing.boxed()
}

#[async_trait]
impl ObjectStore for ObservingObjectStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        (self.observe)(ObjectStoreRequest::Put);
        self.objects.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        mut options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        (self.observe)(ObjectStoreRequest::Upload);
        let observed = Observed(Arc::clone(&self.observe));
        options.extensions.insert(observed);
        let upload = self.objects.put_multipart_opts(location, options).await?;
        Ok(Box::new(ObservingUpload {
            upload,
            observe: Arc::clone(&self.observe),
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        (self.observe)(match options.head {
            true => ObjectStoreRequest::Head,
            false => ObjectStoreRequest::Get,
        });
        self.objects.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let observe = Arc::clone(&self.observe);
        let locations = locations.inspect_ok(move |_| observe(ObjectStoreRequest::Delete));
        self.objects.delete_stream(locations.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        observed_listing(self.objects.list(prefix), &self.observe)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let listing = self.objects.list_with_offset(prefix, offset);
        observed_listing(listing, &self.observe)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        (self.observe)(ObjectStoreRequest::List);
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        (self.observe)(ObjectStoreRequest::Copy);
        self.objects.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        (self.observe)(ObjectStoreRequest::Copy);
        self.objects.rename_opts(from, to, options).await
    }
}

struct ObservingUpload {
    upload: Box<dyn MultipartUpload>,
    observe: ObserveRequest,
}

impl fmt::Debug for ObservingUpload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.upload.fmt(formatter)
    }
}

#[async_trait]
impl MultipartUpload for ObservingUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        (self.observe)(ObjectStoreRequest::Upload);
        self.upload.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        (self.observe)(ObjectStoreRequest::Upload);
        self.upload.complete().await
    }

    async fn abort(&mut self) -> Result<()> {
        (self.observe)(ObjectStoreRequest::Upload);
        self.upload.abort().await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use bytes::Bytes;

    use super::*;
    use crate::{BlobRange, BlobStore as _, conformance, put_bytes, read_all};

    fn observed() -> (
        ObjectStoreBlobStore,
        impl FnMut() -> Vec<ObjectStoreRequest>,
    ) {
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        let observe: ObserveRequest = Arc::new(move |request| seen.lock().unwrap().push(request));
        let store = ObjectStoreBlobStore::open("memory://").unwrap();
        let take = move || std::mem::take(&mut *requests.lock().unwrap());
        (store.with_requests_observed(observe), take)
    }

    #[tokio::test]
    async fn each_request_is_told_by_its_kind() {
        use ObjectStoreRequest::{Delete, Get, Head, List, Put, Upload};
        let (store, mut take) = observed();
        let digest = put_bytes(&store, Bytes::from_static(b"x")).await.unwrap();
        assert_eq!(take(), [Put]);
        read_all(&store, &digest, 10).await.unwrap();
        store.find_missing(&[digest]).await.unwrap();
        assert_eq!(take(), [Get, Head]);
        let listed: Vec<_> = store.list().try_collect().await.unwrap();
        store.delete(&listed[0]).await.unwrap();
        assert_eq!(take(), [List, Delete]);
        let large = Bytes::from(vec![1; 6 << 20]);
        put_bytes(&store, large).await.unwrap();
        assert_eq!(take(), [Upload; 4], "begun, two parts, completed");
    }

    #[tokio::test]
    async fn what_lies_beyond_the_end_is_not_asked_for() {
        let (store, mut take) = observed();
        let digest = put_bytes(&store, Bytes::from_static(b"abc")).await.unwrap();
        for (offset, is_read) in [(2, true), (3, true), (4, false)] {
            take();
            let length = None;
            let read = store.get(&digest, BlobRange { offset, length }).await;
            assert_eq!(read.is_ok(), is_read, "{offset}");
            let asked = if offset < 3 {
                ObjectStoreRequest::Get
            } else {
                ObjectStoreRequest::Head
            };
            assert_eq!(take(), [asked], "{offset}");
        }
    }

    #[tokio::test]
    async fn a_long_list_is_several_requests() {
        let (store, mut take) = observed();
        for at in 0..2001u32 {
            let bytes = Bytes::copy_from_slice(&at.to_le_bytes());
            put_bytes(&store, bytes).await.unwrap();
        }
        take();
        let listed: Vec<_> = store.list().try_collect().await.unwrap();
        assert_eq!((listed.len(), take().len()), (2001, 3));
    }

    #[tokio::test]
    async fn it_conforms() {
        conformance::check_keyed(Arc::new(observed().0)).await;
    }
}
