//! Lists that go on where they broke.

use std::sync::Arc;

use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, Result};

use super::attempts::Attempts;
use super::guard::Guard;
use super::trouble::may_pass;

/// What is left to list below a prefix.
pub(super) struct Listing<S> {
    guard: Arc<Guard>,
    store: Arc<S>,
    prefix: Option<Path>,
    /// The last object that was listed; buckets list them in the order of their names.
    last: Option<Path>,
    /// `None` before the beginning and after a break.
    objects: Option<BoxStream<'static, Result<ObjectMeta>>>,
    attempts: Attempts,
}

impl<S: ObjectStore> Listing<S> {
    pub(super) fn new(guard: Arc<Guard>, store: Arc<S>, prefix: Option<Path>) -> Self {
        Self {
            guard,
            store,
            prefix,
            last: None,
            objects: None,
            attempts: Attempts::begin(),
        }
    }

    /// The objects, up to the first error that cannot be mended.
    pub(super) fn into_stream(self) -> BoxStream<'static, Result<ObjectMeta>> {
        stream::unfold(Some(self), |listing| async move {
            let mut listing = listing?;
            match listing.next().await {
                Ok(Some(object)) => Some((Ok(object), Some(listing))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }

    async fn next(&mut self) -> Result<Option<ObjectMeta>> {
        loop {
            let limit = self.guard.limits().answer;
            let (prefix, last) = (self.prefix.as_ref(), self.last.as_ref());
            let objects = self.objects.get_or_insert_with(|| match last {
                Some(last) => self.store.list_with_offset(prefix, last),
                None => self.store.list(prefix),
            });
            match self.guard.once(limit, objects.try_next()).await {
                Ok(next) => {
                    self.attempts = Attempts::begin();
                    self.last = next.as_ref().map(|object| object.location.clone());
                    return Ok(next);
                }
                Err(error) if may_pass(&error) => {
                    self.objects = None;
                    self.attempts.again(&self.guard, error).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }
}
