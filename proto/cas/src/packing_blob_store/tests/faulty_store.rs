//! A store for packs that counts what it is asked, and fails when it is told to.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::*;

/// How a write fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It never happened.
    Lost,
    /// It happened, and nobody was told.
    AnswerLost,
    /// It does not happen, and nobody is told.
    Hangs,
}

/// How often a store was asked for something.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Asked {
    pub(super) puts: usize,
    pub(super) gets: usize,
    pub(super) lists: usize,
}

#[derive(Debug, Default)]
struct State {
    asked: Asked,
    /// What befalls the next change.
    next: Option<Fault>,
    /// After so many changes one fails, and nothing is answered any more.
    until_crash: Option<(usize, Fault)>,
    is_down: bool,
    /// Whether the last byte of the next read is another.
    spoils_next: bool,
}

#[derive(Debug)]
pub(super) struct FaultyStore {
    store: MemoryBlobStore,
    state: Mutex<State>,
}

impl FaultyStore {
    pub(super) fn new() -> Self {
        Self {
            store: MemoryBlobStore::new(),
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn asked(&self) -> Asked {
        self.state().asked
    }

    pub(super) fn fail_next_change(&self, fault: Fault) {
        self.state().next = Some(fault);
    }

    pub(super) fn spoil_next_read(&self) {
        self.state().spoils_next = true;
    }

    pub(super) fn crash_after(&self, changes: usize, fault: Fault) {
        self.state().until_crash = Some((changes, fault));
    }

    pub(super) fn restart(&self) {
        let mut state = self.state();
        state.until_crash = None;
        state.next = None;
        state.is_down = false;
    }

    pub(super) fn is_down(&self) -> bool {
        self.state().is_down
    }

    fn check_up(&self) -> Result<(), StoreError> {
        match self.is_down() {
            true => Err(down()),
            false => Ok(()),
        }
    }

    /// What befalls this change.
    fn fault(&self) -> Result<Option<Fault>, StoreError> {
        self.check_up()?;
        let mut state = self.state();
        let next = state.next.take();
        let Some((left, fault)) = &mut state.until_crash else {
            return Ok(next);
        };
        if *left > 0 {
            *left -= 1;
            return Ok(next);
        }
        let fault = *fault;
        state.is_down = true;
        Ok(Some(fault))
    }

    async fn change(
        &self,
        change: impl Future<Output = Result<(), StoreError>>,
    ) -> Result<(), StoreError> {
        // As with a request, others go on meanwhile.
        tokio::task::yield_now().await;
        match self.fault()? {
            None => change.await,
            Some(Fault::Lost) => Err(down()),
            Some(Fault::Hangs) => future::pending().await,
            Some(Fault::AnswerLost) => {
                change.await?;
                Err(down())
            }
        }
    }
}

fn down() -> StoreError {
    StoreError::Unavailable {
        detail: "the bucket is down".to_owned(),
    }
}

#[async_trait]
impl BlobStore for FaultyStore {
    async fn get(&self, digest: &Digest, range: BlobRange) -> Result<BlobStream, StoreError> {
        self.state().asked.gets += 1;
        self.check_up()?;
        let body = self.store.get(digest, range).await?;
        if !std::mem::take(&mut self.state().spoils_next) {
            return Ok(body);
        }
        let pieces: Vec<Bytes> = body.try_collect().await?;
        let mut bytes = pieces.concat();
        if let Some(last) = bytes.last_mut() {
            *last ^= 1;
        }
        Ok(stream_of(bytes.into()))
    }

    async fn put(&self, digest: &Digest, body: BlobStream) -> Result<(), StoreError> {
        self.state().asked.puts += 1;
        self.change(self.store.put(digest, body)).await
    }

    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        self.check_up()?;
        self.store.find_missing(digests).await
    }

    async fn delete(&self, digest: &Digest) -> Result<(), StoreError> {
        self.change(self.store.delete(digest)).await
    }
}

impl ListedBlobStore for FaultyStore {
    fn list(&self) -> BoxStream<'static, Result<Digest, StoreError>> {
        self.state().asked.lists += 1;
        match self.check_up() {
            Ok(()) => self.store.list(),
            Err(error) => stream::iter([Err(error)]).boxed(),
        }
    }
}
