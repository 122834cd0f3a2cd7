//! An object store in memory that does as it is told, except for what else it is told.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt as _, future, stream};
use object_store::memory::InMemory;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartId,
    MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMultipartOptions, PutOptions,
    PutPayload, PutResult, Result,
};

/// In how large pieces the bodies of small objects come.
const PIECE_BYTES: usize = 50;
/// In how many pieces those of large ones come at most.
const MAX_PIECES: usize = 200;

/// What a request comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lie {
    Fail,
    /// No answer ever comes.
    Hang,
    Refuse,
    Absent,
    /// It is done, and the answer is a failure.
    DoAndFail,
    /// It is done, and no answer comes.
    DoAndHang,
    /// After so many bytes (in whole pieces), or objects of a list, an error.
    Break(usize),
    /// After so many, nothing.
    Stall(usize),
    /// After so many, the end.
    End(usize),
    /// So long before each piece.
    Crawl(Duration),
}

#[derive(Clone, Default)]
pub(super) struct LyingStore {
    truth: Arc<InMemory>,
    lies: Arc<Mutex<Lies>>,
}

#[derive(Default)]
struct Lies {
    next: VecDeque<Lie>,
    regular: Vec<(u32, Lie)>,
    asked: u32,
    uploads: Vec<MultipartId>,
}

fn failure() -> Error {
    Error::Generic {
        store: "lying",
        source: "told to fail".into(),
    }
}

fn gone(path: &Path) -> Error {
    Error::NotFound {
        path: path.to_string(),
        source: "gone".into(),
    }
}

impl LyingStore {
    /// The next requests come to these, and those after them to what they should.
    pub(super) fn tell(&self, lies: impl IntoIterator<Item = Lie>) {
        self.lies.lock().unwrap().next = lies.into_iter().collect();
    }

    /// Each so-many-th request comes to this.
    pub(super) fn lie_every(&self, requests: u32, lie: Lie) {
        self.lies.lock().unwrap().regular.push((requests, lie));
    }

    /// How many requests there were.
    pub(super) fn asked(&self) -> u32 {
        self.lies.lock().unwrap().asked
    }

    pub(super) fn uploads(&self) -> usize {
        self.lies.lock().unwrap().uploads.len()
    }

    pub(super) fn forget_uploads(&self) {
        self.lies.lock().unwrap().uploads.clear();
    }

    pub(super) async fn put_truly(&self, path: &Path, object: Bytes) {
        self.truth.put(path, object.into()).await.unwrap();
    }

    fn lie(&self) -> Option<Lie> {
        let mut lies = self.lies.lock().unwrap();
        lies.asked += 1;
        let asked = lies.asked;
        let mut regular = lies.regular.iter();
        let regular = regular.find(|(every, _)| asked.is_multiple_of(*every));
        let regular = regular.map(|(_, lie)| *lie);
        lies.next.pop_front().or(regular)
    }

    /// What a request comes to that is answered at once.
    async fn answer<T>(
        &self,
        lie: Option<Lie>,
        path: &Path,
        truth: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        match lie {
            Some(Lie::Fail) => Err(failure()),
            Some(Lie::Hang) => future::pending().await,
            Some(Lie::Absent) => Err(gone(path)),
            Some(Lie::Refuse) => Err(Error::PermissionDenied {
                path: path.to_string(),
                source: "refused".into(),
            }),
            Some(Lie::DoAndFail) => truth.await.and(Err(failure())),
            Some(Lie::DoAndHang) => {
                truth.await?;
                future::pending().await
            }
            Some(Lie::Break(_) | Lie::Stall(_) | Lie::End(_) | Lie::Crawl(_)) | None => truth.await,
        }
    }

    fn check_upload(&self, path: &Path, id: &MultipartId) -> Result<()> {
        match self.lies.lock().unwrap().uploads.contains(id) {
            true => Ok(()),
            false => Err(gone(path)),
        }
    }
}

fn pieces_of(body: &Bytes) -> Vec<Result<Bytes>> {
    let piece_bytes = PIECE_BYTES.max(body.len().div_ceil(MAX_PIECES));
    let starts = (0..body.len()).step_by(piece_bytes);
    let piece = |start: usize| body.slice(start..(start + piece_bytes).min(body.len()));
    starts.map(|start| Ok(piece(start))).collect()
}

/// What comes of a sequence that should be `truth`.
fn told<T: Send + 'static>(
    lie: Option<Lie>,
    truth: BoxStream<'static, Result<T>>,
    count: impl Fn(usize) -> usize,
) -> BoxStream<'static, Result<T>> {
    match lie {
        Some(Lie::Break(after)) => truth
            .take(count(after))
            .chain(stream::iter([Err(failure())]))
            .boxed(),
        Some(Lie::Stall(after)) => truth.take(count(after)).chain(stream::pending()).boxed(),
        Some(Lie::End(after)) => truth.take(count(after)).boxed(),
        Some(Lie::Crawl(wait)) => truth
            .then(move |piece| async move {
                tokio::time::sleep(wait).await;
                piece
            })
            .boxed(),
        _ => truth,
    }
}

impl fmt::Debug for LyingStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("LyingStore")
    }
}

impl fmt::Display for LyingStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("lying")
    }
}

#[async_trait]
impl ObjectStore for LyingStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let put = self.truth.put_opts(location, payload, options);
        self.answer(self.lie(), location, put).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        panic!("uploads to {location} are the guard's own");
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let lie = self.lie();
        let head = options.head;
        let get = self.truth.get_opts(location, options);
        let mut found = self.answer(lie, location, get).await?;
        if head {
            return Ok(found);
        }
        let GetResultPayload::Stream(body) = found.payload else {
            panic!("memory has no files");
        };
        let pieces = body.flat_map(|body| stream::iter(pieces_of(&body.unwrap())));
        let count = |bytes: usize| bytes / PIECE_BYTES;
        found.payload = GetResultPayload::Stream(told(lie, pieces.boxed(), count));
        Ok(found)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        locations
            .then(move |location| {
                let store = store.clone();
                async move {
                    let location = location?;
                    let delete = store.truth.delete(&location);
                    store.answer(store.lie(), &location, delete).await?;
                    Ok(location)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listed(self.truth.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listed(self.truth.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let list = self.truth.list_with_delimiter(prefix);
        self.answer(self.lie(), &Path::default(), list).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let copy = self.truth.copy_opts(from, to, options);
        self.answer(self.lie(), from, copy).await
    }
}

impl LyingStore {
    fn listed(
        &self,
        truth: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, lie) = (self.clone(), self.lie());
        let begin = async move { store.answer(lie, &Path::default(), future::ok(())).await };
        let begun = stream::once(begin).filter_map(|begun| future::ready(begun.err().map(Err)));
        begun.chain(told(lie, truth, |objects| objects)).boxed()
    }
}

#[async_trait]
impl MultipartStore for LyingStore {
    async fn create_multipart(&self, path: &Path) -> Result<MultipartId> {
        let create = async {
            let id = self.truth.create_multipart(path).await?;
            self.lies.lock().unwrap().uploads.push(id.clone());
            Ok(id)
        };
        self.answer(self.lie(), path, create).await
    }

    async fn put_part(
        &self,
        path: &Path,
        id: &MultipartId,
        part_idx: usize,
        data: PutPayload,
    ) -> Result<PartId> {
        self.check_upload(path, id)?;
        let put = self.truth.put_part(path, id, part_idx, data);
        self.answer(self.lie(), path, put).await
    }

    async fn complete_multipart(
        &self,
        path: &Path,
        id: &MultipartId,
        parts: Vec<PartId>,
    ) -> Result<PutResult> {
        let complete = async {
            self.check_upload(path, id)?;
            let put = self.truth.complete_multipart(path, id, parts).await?;
            self.lies.lock().unwrap().uploads.retain(|it| it != id);
            Ok(put)
        };
        self.answer(self.lie(), path, complete).await
    }

    async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> Result<()> {
        let abort = async {
            self.check_upload(path, id)?;
            self.lies.lock().unwrap().uploads.retain(|it| it != id);
            self.truth.abort_multipart(path, id).await
        };
        self.answer(self.lie(), path, abort).await
    }
}
