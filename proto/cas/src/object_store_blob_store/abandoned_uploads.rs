//! Uploads to a bucket that nobody will end.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{Error, MultipartId, ObjectMeta, ObjectStore, ObjectStoreExt as _};

use super::failure::read_error;
use super::observing::{ObjectStoreRequest, ObserveRequest, observed};
use crate::{Deletions, StoreError};

/// The folder of the markers, below the prefix that everything else is below, too.
const FOLDER: &str = "uploads";
/// What a marker begins with. Whatever begins otherwise is left to whoever can read it.
const MAGIC: &str = "regatta upload 1";
/// The object that is written to learn what the bucket's clock says.
const NOW: &str = "0-now";
/// How many markers are looked at at once. What tells the time has the first of all names.
const MAX_LISTED: usize = 10_000;
/// The longest marker that is read, in bytes: a name of an object has at most 1 KiB, that of an upload not much more.
const MAX_MARKER_BYTES: u64 = 16 << 10;

/// Where the markers of uploads to what is below `root` are.
pub(super) fn folder_of(root: &Path) -> Path {
    root.clone().join(FOLDER)
}

/// What a marker says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MarkedUpload {
    /// What was to be the object.
    pub(super) path: Path,
    /// What the bucket calls the upload.
    pub(super) id: MultipartId,
}

impl MarkedUpload {
    pub(super) fn to_text(&self) -> Bytes {
        let Self { path, id } = self;
        format!("{MAGIC}\n{path}\n{id}").into()
    }

    fn of_text(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (path, id) = text
            .strip_prefix(MAGIC)?
            .strip_prefix('\n')?
            .split_once('\n')?;
        Some(Self {
            path: Path::parse(path).ok()?,
            id: id.to_owned(),
        })
    }
}

/// What can abort the uploads of others.
#[async_trait]
pub(super) trait AbortUpload: Send + Sync {
    /// Aborts an upload to `path`.
    ///
    /// # Errors
    /// [`Error::NotFound`]: there is none, or it was completed. Any other: it may still be there.
    async fn abort_upload(&self, path: &Path, id: &MultipartId) -> object_store::Result<()>;
}

/// Aborts uploads in parts whose writers are gone: a bucket keeps the parts, and bills them, until somebody does, and
/// a writer that is killed cannot.
///
/// Writers say of what they upload in markers, which they write before the first part, anew for as long as they have
/// the upload, and remove after it. A marker that nobody has written anew for a day is nobody's. How long that is the
/// bucket's own clock tells. Who aborts does so for all who write to the bucket, and several may at once. A writer
/// that comes back after all is told that its upload is gone: nothing of it is visible, and it may begin again.
#[derive(Clone)]
pub struct AbandonedUploads {
    objects: Arc<dyn ObjectStore>,
    aborting: Arc<dyn AbortUpload>,
    observe: Option<ObserveRequest>,
    root: Path,
    /// How long after its marker was written last an upload is nobody's.
    after: Duration,
}

impl fmt::Debug for AbandonedUploads {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("AbandonedUploads");
        shown.field("objects", &self.objects);
        shown.field("root", &self.root).finish_non_exhaustive()
    }
}

impl AbandonedUploads {
    pub(super) fn new<S: ObjectStore + AbortUpload>(
        store: &Arc<S>,
        root: Path,
        after: Duration,
    ) -> Self {
        Self {
            objects: Arc::clone(store) as _,
            aborting: Arc::clone(store) as _,
            observe: None,
            root,
            after,
        }
    }

    /// Tells `observe` of each request, when it is sent.
    #[must_use]
    pub fn with_requests_observed(self, observe: ObserveRequest) -> Self {
        Self {
            objects: observed(self.objects, Arc::clone(&observe)),
            observe: Some(observe),
            ..self
        }
    }

    /// Aborts what is abandoned now, while `deletions` are allowed. How many uploads that were.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: not all of them could be aborted. Try again later.
    pub async fn abort(&self, deletions: &Deletions) -> Result<u64, StoreError> {
        let (mut aborted, mut failed) = (0, None);
        if !deletions.are_allowed() {
            return Ok(aborted);
        }
        for marker in &self.old_markers().await.map_err(read_error)? {
            match deletions.while_allowed(self.abort_marked(marker)).await {
                Ok(was_there) => aborted += u64::from(was_there),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(aborted), Err)
    }

    /// The markers that nobody has written for so long.
    async fn old_markers(&self) -> object_store::Result<Vec<ObjectMeta>> {
        // Mostly there are none, and nobody need know what time it is.
        if !self.listed().await?.iter().any(is_marker) {
            return Ok(Vec::new());
        }
        let location = folder_of(&self.root).join(NOW);
        self.objects.put(&location, Bytes::new().into()).await?;
        let listed = self.listed().await?;
        // Lists say times more exactly than answers about one object do: all of them are from one list.
        let now = listed.iter().find(|object| object.location == location);
        let Some(now) = now.map(|object| object.last_modified) else {
            return Ok(Vec::new());
        };
        let is_old = |marker: &ObjectMeta| {
            let age = (now - marker.last_modified).to_std();
            // One that is younger than now has no age.
            age.is_ok_and(|age| age >= self.after)
        };
        let markers = listed.into_iter().filter(is_marker);
        Ok(markers.filter(is_old).collect())
    }

    async fn listed(&self) -> object_store::Result<Vec<ObjectMeta>> {
        let listed = self.objects.list(Some(&folder_of(&self.root)));
        listed.take(MAX_LISTED).try_collect().await
    }

    /// Aborts the upload of an old marker. Whether there was one.
    async fn abort_marked(&self, listed: &ObjectMeta) -> Result<bool, StoreError> {
        let location = &listed.location;
        let Some(MarkedUpload { path, id }) = self.marked(listed).await.map_err(read_error)? else {
            return Ok(false);
        };
        if let Some(observe) = &self.observe {
            observe(ObjectStoreRequest::Upload);
        }
        let was_there = match self.aborting.abort_upload(&path, &id).await {
            Ok(()) => true,
            Err(Error::NotFound { .. }) => false,
            Err(error) => return Err(read_error(error)),
        };
        if was_there {
            metrics::counter!("regatta_abandoned_uploads_total").increment(1);
            tracing::info!(%path, "an upload that its writer has left was aborted");
        }
        // Not before the upload is gone: nobody else knows of it.
        match self.objects.delete(location).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(was_there),
            Err(error) => Err(read_error(error)),
        }
    }

    /// What a marker says, unless it is gone or was written anew, or is none that can be read.
    async fn marked(&self, listed: &ObjectMeta) -> object_store::Result<Option<MarkedUpload>> {
        let location = &listed.location;
        let upload = match listed.size > MAX_MARKER_BYTES {
            true => None,
            false => match self.objects.get(location).await {
                Ok(found) if found.meta.last_modified > listed.last_modified => return Ok(None),
                Ok(found) => MarkedUpload::of_text(&found.bytes().await?),
                Err(Error::NotFound { .. }) => return Ok(None),
                Err(error) => return Err(error),
            },
        };
        let upload = upload.filter(|upload| upload.path.prefix_matches(&self.root));
        if upload.is_none() {
            tracing::warn!(%location, "the marker of an upload cannot be read, and is left");
        }
        Ok(upload)
    }
}

fn is_marker(object: &ObjectMeta) -> bool {
    let name = object.location.filename();
    name.is_some_and(|name| uuid::Uuid::try_parse(name).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_says_what_it_was_told_and_nothing_else_is_one() {
        let upload = MarkedUpload {
            path: Path::from("some/prefix/cas/ab/ab c-5"),
            id: "an\nid".to_owned(),
        };
        let text = upload.to_text();
        assert_eq!(MarkedUpload::of_text(&text), Some(upload));
        for other in [
            &text[..MAGIC.len() + 1],
            &text[1..],
            b"",
            b"regatta upload 2\na\nb",
            b"regatta upload 1\na//b\nc",
            b"regatta upload 1\n\xff\nc",
        ] {
            assert_eq!(MarkedUpload::of_text(other), None, "{other:?}");
        }
    }
}
