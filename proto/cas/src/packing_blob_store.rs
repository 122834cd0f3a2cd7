//! Small blobs together.

mod committing;
mod index;
mod limits;
mod neighbours;
mod pack;
mod packs;
mod upkeep;
mod version;

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use regatta_model::Digest;

use self::committing::{Committer, Wish};
use self::index::{KnownPack, Slice, Standing};
use self::limits::Limits;
use self::neighbours::Neighbours;
use self::packs::{Freshness, Packs};
use crate::whole_blob::{Collected, bounds_of, collect_up_to};
use crate::{
    AbsenceIndex, BlobRange, BlobStore, BlobStream, Deletions, ListedBlobStore, Losses,
    SpooledBlob, StoreError, stream_of,
};

/// How often a value is looked for again that was moved while it was read.
const MAX_MOVES: usize = 3;

/// Packs small blobs: those that are stored at about the same time become one object, so that they cost one
/// request together. Larger ones are objects of their own, in a store below.
///
/// A write returns once its pack is stored, and fails if that fails; one that comes alone waits for others
/// for a few milliseconds. Which blob is where in which pack is in memory, at about 64 bytes a blob, and is
/// read from the ends of the packs in the beginning: nothing else is kept. A blob is forgotten by a record
/// in a later pack; packs that are empty, half empty or small are rewritten in the background. Reading a blob
/// reads what was stored beside it too, which is kept in memory for a while: up to 8 MiB.
///
/// Several processes may share the packs. Each lists them again and again: a small blob that another has
/// stored, or forgotten, may seem absent, or present, for ten seconds. A read never finds a blob absent that
/// was stored before it began, unless the store is keyed. Of writes of one key by several processes, the
/// last by their clocks counts. A process of a version that does not pack must not write at the same time.
///
/// It does not look at the bytes, so it can also be keyed.
#[derive(Debug)]
pub struct PackingBlobStore {
    packs: Arc<Packs>,
    committer: Committer,
    neighbours: Neighbours,
    /// Blobs that are objects of their own.
    whole: Arc<dyn ListedBlobStore>,
    /// The same, asked about small blobs: those that were there before there were packs.
    earlier: AbsenceIndex,
    keys: Keys,
}

/// What keys tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keys {
    /// How large their values are.
    Sizes,
    /// Nothing.
    Nothing,
}

/// Where else to look for a blob that no pack names.
enum Place {
    Packed(Slice),
    Whole,
    Nowhere,
}

impl PackingBlobStore {
    /// Packs what is small into `packs`, which must have nothing else, and keeps the rest in `whole`. Each key
    /// is the digest of its value. It needs a tokio runtime.
    ///
    /// Small blobs that are in `whole` already are found there, at the cost of listing it; `earlier_capacity` is
    /// how many of them may be before each absent blob costs a request, at 10 to 20 bytes each.
    #[must_use]
    pub fn new(
        packs: Arc<dyn ListedBlobStore>,
        whole: Arc<dyn ListedBlobStore>,
        earlier_capacity: usize,
    ) -> Self {
        Self::with_limits(packs, whole, earlier_capacity, Keys::Sizes, Limits::DEFAULT)
    }

    /// The same for a store whose keys have nothing to do with their values.
    #[must_use]
    pub fn keyed(
        packs: Arc<dyn ListedBlobStore>,
        whole: Arc<dyn ListedBlobStore>,
        earlier_capacity: usize,
    ) -> Self {
        Self::with_limits(
            packs,
            whole,
            earlier_capacity,
            Keys::Nothing,
            Limits::DEFAULT,
        )
    }

    /// The same for whoever only looks: packs are not rewritten, nor deleted.
    #[must_use]
    pub fn without_upkeep(self) -> Self {
        self.packs.leave_alone();
        self
    }

    /// The same for whoever may delete nothing at times. A pack that says what is forgotten is given up then, and
    /// what else is in it is written without that; packs that are empty stay.
    #[must_use]
    pub fn with_deletions(self, deletions: Deletions) -> Self {
        self.packs.set_deletions(deletions);
        self
    }

    /// What is told once a pack is gone with all that was in it, behind everybody's back: whatever knows of one of them
    /// may know of the others.
    #[must_use]
    pub fn losses(&self) -> Losses {
        self.packs.losses.clone()
    }

    fn with_limits(
        packs: Arc<dyn ListedBlobStore>,
        whole: Arc<dyn ListedBlobStore>,
        earlier_capacity: usize,
        keys: Keys,
        limits: Limits,
    ) -> Self {
        let listed = Arc::clone(&whole);
        let list = move || {
            let may_be_packed =
                move |digest: &Digest| std::future::ready(!is_never_packed(digest, keys, &limits));
            listed.list().try_filter(may_be_packed).boxed()
        };
        let neighbours = Neighbours::new(
            Arc::clone(&packs) as _,
            limits.max_value_bytes,
            limits.neighbours_bytes,
        );
        let packs = Arc::new(Packs::new(packs, limits));
        Self {
            neighbours,
            committer: Committer::new(Arc::clone(&packs)),
            packs,
            earlier: AbsenceIndex::new(Arc::clone(&whole) as _, list, earlier_capacity),
            whole,
            keys,
        }
    }

    fn is_never_packed(&self, digest: &Digest) -> bool {
        is_never_packed(digest, self.keys, &self.packs.limits)
    }

    /// How sure it has to be that a blob is absent: a client that is told so of what it has just stored, by way
    /// of another process, would be told wrong. Of a key, it is as if it had asked a moment earlier.
    const fn freshness_of_absence(&self) -> Freshness {
        match self.keys {
            Keys::Sizes => Freshness::Now,
            Keys::Nothing => Freshness::Recent,
        }
    }

    fn standing(&self, digest: &Digest) -> Standing {
        self.packs.index().standing(digest)
    }

    /// Where a blob is as far as is known.
    async fn known_place(&self, digest: &Digest) -> Result<Place, StoreError> {
        Ok(match self.standing(digest) {
            Standing::Packed(slice) => Place::Packed(slice),
            Standing::Elsewhere => Place::Whole,
            Standing::Forgotten => Place::Nowhere,
            Standing::Unknown => match self.earlier.find_missing(&[*digest]).await?.is_empty() {
                true => Place::Whole,
                false => Place::Nowhere,
            },
        })
    }

    async fn place(&self, digest: &Digest) -> Result<Place, StoreError> {
        self.packs.refresh(Freshness::Ever).await?;
        match self.known_place(digest).await? {
            Place::Nowhere => {}
            found => return Ok(found),
        }
        self.packs.refresh(self.freshness_of_absence()).await?;
        self.known_place(digest).await
    }

    async fn read(
        &self,
        digest: &Digest,
        slice: Slice,
        range: BlobRange,
    ) -> Result<BlobStream, StoreError> {
        let (start, end) = bounds_of(digest, slice.length, range)?;
        if start == end {
            return Ok(stream_of(bytes::Bytes::new()));
        }
        let known = self
            .packs
            .index()
            .pack(&slice.pack)
            .map(KnownPack::values_bytes);
        // Gone since it was looked for.
        let values_bytes = known.ok_or(StoreError::NotFound { digest: slice.pack })?;
        let part = Slice {
            offset: slice.offset + start,
            length: end - start,
            ..slice
        };
        let value = self.neighbours.read(part, values_bytes).await?;
        let is_whole = part.length == slice.length;
        if is_whole && self.keys == Keys::Sizes && Digest::of(&value) != *digest {
            // What is wrong may have gone wrong on its way, and would be wrong for its neighbours and again.
            self.neighbours.forget(part);
            return self
                .neighbours
                .read(part, values_bytes)
                .await
                .map(stream_of);
        }
        Ok(stream_of(value))
    }
}

fn is_never_packed(digest: &Digest, keys: Keys, limits: &Limits) -> bool {
    match keys {
        Keys::Sizes => digest.size_bytes() > limits.max_value_bytes,
        // A record has 32 bits for it.
        Keys::Nothing => digest.size_bytes() > u64::from(u32::MAX),
    }
}

#[async_trait]
impl BlobStore for PackingBlobStore {
    async fn get(&self, digest: &Digest, range: BlobRange) -> Result<BlobStream, StoreError> {
        if self.is_never_packed(digest) {
            return self.whole.get(digest, range).await;
        }
        for _ in 0..MAX_MOVES {
            let slice = match self.place(digest).await? {
                Place::Packed(slice) => slice,
                Place::Whole => return self.whole.get(digest, range).await,
                Place::Nowhere => break,
            };
            match self.read(digest, slice, range).await {
                Err(StoreError::NotFound { .. }) => {}
                read => return read,
            }
            // It was moved, here or by another process.
            if self.standing(digest) == Standing::Packed(slice) {
                self.packs.refresh(Freshness::Now).await?;
            }
        }
        Err(StoreError::NotFound { digest: *digest })
    }

    async fn put(&self, digest: &Digest, body: BlobStream) -> Result<(), StoreError> {
        if self.is_never_packed(digest) {
            return self.whole.put(digest, body).await;
        }
        match collect_up_to(body, self.packs.limits.max_value_bytes).await? {
            Collected::Whole(value) => self.committer.commit(*digest, Wish::Store(value)).await,
            Collected::TooLarge { read, rest } => {
                let body = stream::iter(read.into_iter().map(Ok)).chain(rest);
                self.whole.put(digest, body.boxed()).await?;
                self.committer.commit(*digest, Wish::SayElsewhere).await
            }
        }
    }

    async fn put_spooled(&self, digest: &Digest, blob: &SpooledBlob) -> Result<(), StoreError> {
        match self.is_never_packed(digest) {
            true => self.whole.put_spooled(digest, blob).await,
            false => self.put(digest, blob.body()?).await,
        }
    }

    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        if digests.iter().any(|digest| !self.is_never_packed(digest)) {
            self.packs.refresh(Freshness::Recent).await?;
        }
        let (mut in_whole, mut in_earlier) = (Vec::new(), Vec::new());
        let mut missing = HashSet::new();
        for digest in digests {
            if self.is_never_packed(digest) {
                in_whole.push(*digest);
                continue;
            }
            match self.standing(digest) {
                Standing::Packed(_) => {}
                Standing::Elsewhere => in_whole.push(*digest),
                Standing::Unknown => in_earlier.push(*digest),
                Standing::Forgotten => missing.extend([*digest]),
            }
        }
        if !in_whole.is_empty() {
            missing.extend(self.whole.find_missing(&in_whole).await?);
        }
        if !in_earlier.is_empty() {
            missing.extend(self.earlier.find_missing(&in_earlier).await?);
        }
        let missing = digests.iter().filter(|digest| missing.contains(digest));
        Ok(missing.copied().collect())
    }

    async fn delete(&self, digest: &Digest) -> Result<(), StoreError> {
        if self.is_never_packed(digest) {
            return self.whole.delete(digest).await;
        }
        self.packs.refresh(Freshness::Recent).await?;
        let may_be_whole = match self.keys {
            // A small value may have replaced a large one, which is still there.
            Keys::Nothing => true,
            Keys::Sizes => self.earlier.find_missing(&[*digest]).await?.is_empty(),
        };
        if may_be_whole {
            self.whole.delete(digest).await?;
        }
        self.committer.commit(*digest, Wish::Forget).await
    }
}

impl ListedBlobStore for PackingBlobStore {
    fn list(&self) -> BoxStream<'static, Result<Digest, StoreError>> {
        let (packs, whole) = (Arc::clone(&self.packs), self.whole.list());
        let of_packs = Arc::clone(&packs);
        let names = async move {
            of_packs.refresh(Freshness::Recent).await?;
            // All at once: what is moved to another pack meanwhile would be in neither.
            let index = of_packs.index();
            let stored = index.pack_names().flat_map(|name| index.stored_in(name));
            let stored: Vec<Digest> = stored.collect();
            Ok(stream::iter(stored).map(Ok))
        };
        let packed = stream::once(names).try_flatten();
        // What is in a pack hides what is beside it.
        let whole = whole.try_filter(move |digest| {
            let standing = packs.index().standing(digest);
            let is_hidden = matches!(standing, Standing::Packed(_) | Standing::Forgotten);
            std::future::ready(!is_hidden)
        });
        packed.chain(whole).boxed()
    }
}

#[cfg(test)]
mod tests;
