//! Bodies that go on where they broke.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, Result};

use super::attempts::Attempts;
use super::guard::Guard;
use super::trouble::{Trouble, may_pass};

/// What is left to read of an object.
pub(super) struct Reading<S> {
    guard: Arc<Guard>,
    store: Arc<S>,
    path: Path,
    options: GetOptions,
    /// What tells this object from another of its name. Without it, a body that breaks stays broken.
    e_tag: Option<String>,
    /// What has not come yet, in bytes from the object's beginning.
    left: Range<u64>,
    /// `None` after a break.
    body: Option<BoxStream<'static, Result<Bytes>>>,
    attempts: Attempts,
}

impl<S: ObjectStore> Reading<S> {
    /// Reads `body`, which is the part `left` of the object at a path, got with some options.
    pub(super) fn new(
        (guard, store): (Arc<Guard>, Arc<S>),
        (path, options): (Path, GetOptions),
        e_tag: Option<String>,
        left: Range<u64>,
        body: BoxStream<'static, Result<Bytes>>,
    ) -> Self {
        Self {
            guard,
            store,
            path,
            options,
            e_tag,
            left,
            body: Some(body),
            attempts: Attempts::begin(),
        }
    }

    /// The bytes, up to the first error that cannot be mended.
    pub(super) fn into_stream(self) -> BoxStream<'static, Result<Bytes>> {
        stream::unfold(Some(self), |reading| async move {
            let mut reading = reading?;
            match reading.next().await {
                Ok(Some(piece)) => Some((Ok(piece), Some(reading))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        while self.left.start < self.left.end {
            match self.piece().await {
                Ok(piece) => {
                    self.attempts = Attempts::begin();
                    return Ok(Some(self.take(piece)));
                }
                Err(error) if self.e_tag.is_some() && may_pass(&error) => {
                    self.body = None;
                    self.attempts.again(&self.guard, error).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn take(&mut self, mut piece: Bytes) -> Bytes {
        let left = self.left.end - self.left.start;
        piece.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        self.left.start += piece.len() as u64;
        piece
    }

    async fn piece(&mut self) -> Result<Bytes> {
        if self.body.is_none() {
            self.body = Some(self.rest().await?);
        }
        let (offset, end) = (self.left.start, self.left.end);
        let (store, path) = (self.guard.name(), self.path.clone());
        let limit = self.guard.limits().stall;
        let next = async {
            match &mut self.body {
                Some(body) => body.try_next().await,
                None => Ok(None),
            }
        };
        match tokio::time::timeout(limit, next).await {
            Ok(Ok(Some(piece))) => Ok(piece),
            Ok(Err(error)) => Err(error),
            Ok(Ok(None)) => Err(Trouble::EndedEarly {
                store,
                path,
                offset,
                end,
            }
            .into()),
            Err(_) => Err(Trouble::Stalled {
                store,
                path,
                offset,
                limit,
            }
            .into()),
        }
    }

    /// Asks for what has not come yet, if the object is still the one that was begun with.
    async fn rest(&mut self) -> Result<BoxStream<'static, Result<Bytes>>> {
        let options = GetOptions {
            range: Some(GetRange::Bounded(self.left.clone())),
            if_match: self.e_tag.clone(),
            ..self.options.clone()
        };
        let get = self.store.get_opts(&self.path, options);
        let found = self.guard.once(self.guard.limits().answer, get).await?;
        if found.meta.e_tag != self.e_tag {
            return Err(object_store::Error::Precondition {
                path: self.path.to_string(),
                source: "it was replaced while it was read".into(),
            });
        }
        Ok(found.into_stream())
    }
}
