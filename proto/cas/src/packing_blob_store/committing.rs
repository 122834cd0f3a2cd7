//! Writes that come together are written together.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use regatta_model::{Digest, PlantedBug};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use super::limits::Limits;
use super::pack::PackDraft;
use super::packs::{Freshness, Packs};
use super::version::{Version, now_s};
use crate::{Deletions, StoreError};

/// How many packs' worth of writes are in memory at a time: one that is being written, one that collects.
const PACKS_IN_MEMORY: usize = 2;

/// What is to be written of a key.
#[derive(Debug, Clone)]
pub(super) enum Wish {
    /// This value.
    Store(Bytes),
    /// That its value is an object of its own from now on.
    SayElsewhere,
    /// That there is none.
    Forget,
}

impl Wish {
    fn bytes(&self) -> usize {
        match self {
            Self::Store(value) => value.len(),
            Self::SayElsewhere | Self::Forget => 0,
        }
    }
}

/// A write that waits for its pack.
#[derive(Debug)]
struct Request {
    key: Digest,
    wish: Wish,
    since: Instant,
    answer: oneshot::Sender<Result<(), StoreError>>,
    _room: OwnedSemaphorePermit,
}

impl Request {
    const fn forgets(&self) -> bool {
        matches!(self.wish, Wish::Forget)
    }
}

/// Puts writes into packs, one pack after the other: what collects while one is written is the next.
#[derive(Debug)]
pub(super) struct Committer {
    requests: mpsc::Sender<Request>,
    /// A permit for each byte that may be in memory.
    room: Arc<Semaphore>,
}

impl Committer {
    /// Needs a tokio runtime; its task ends with it.
    pub(super) fn new(packs: Arc<Packs>) -> Self {
        let limits = packs.limits;
        let (requests, waiting) = mpsc::channel(PACKS_IN_MEMORY * limits.max_records);
        let pack_bytes = usize::try_from(limits.max_pack_bytes).unwrap_or(Semaphore::MAX_PERMITS);
        let room = (PACKS_IN_MEMORY * pack_bytes).min(Semaphore::MAX_PERMITS);
        tokio::spawn(run(packs, waiting));
        Self {
            requests,
            room: Arc::new(Semaphore::new(room)),
        }
    }

    /// Returns once the write is durable.
    ///
    /// # Errors
    /// Those of writing the pack; what was stored is not visible then, unless the answer alone was lost.
    pub(super) async fn commit(&self, key: Digest, wish: Wish) -> Result<(), StoreError> {
        let bytes = u32::try_from(wish.bytes().max(1)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(bytes).await;
        let (answer, answered) = oneshot::channel();
        let request = Request {
            key,
            wish,
            since: Instant::now(),
            answer,
            _room: room.map_err(|_| ended())?,
        };
        self.requests.send(request).await.map_err(|_| ended())?;
        if PlantedBug::AnsweredBeforePacked.is_planted() {
            tokio::spawn(answered);
            return Ok(());
        }
        answered.await.map_err(|_| ended())?
    }
}

fn ended() -> StoreError {
    StoreError::Unavailable {
        detail: "the process is ending; nothing is written any more".to_owned(),
    }
}

async fn run(packs: Arc<Packs>, mut waiting: mpsc::Receiver<Request>) {
    let mut ahead = None;
    let mut doubtful = None;
    loop {
        let first = match ahead.take() {
            Some(first) => first,
            None => match waiting.recv().await {
                Some(first) => first,
                None => return,
            },
        };
        let mut batch = Batch::new(first);
        ahead = batch.fill(&mut waiting, &packs.limits).await;
        batch.write(&packs, &mut doubtful).await;
    }
}

/// The writes of one pack.
struct Batch {
    requests: Vec<Request>,
    bytes: u64,
}

impl Batch {
    fn new(first: Request) -> Self {
        Self {
            bytes: first.wish.bytes() as u64,
            requests: vec![first],
        }
    }

    /// Takes what comes in time and fits; a request that no longer fits is the first of the next batch.
    async fn fill(
        &mut self,
        waiting: &mut mpsc::Receiver<Request>,
        limits: &Limits,
    ) -> Option<Request> {
        let first = self.requests.first()?;
        let deadline = first.since + limits.linger;
        while self.requests.len() < limits.max_records {
            // Past the deadline, those that are there already are taken all the same.
            let Ok(Some(next)) = tokio::time::timeout_at(deadline, waiting.recv()).await else {
                break;
            };
            let bytes = self.bytes + next.wish.bytes() as u64;
            if bytes > limits.max_pack_bytes {
                return Some(next);
            }
            self.bytes = bytes;
            self.requests.push(next);
        }
        None
    }

    /// Writes the pack and answers. `doubtful` is the version of the last pack of which it is not known
    /// whether it was written.
    async fn write(self, packs: &Arc<Packs>, doubtful: &mut Option<Version>) {
        // Whoever went away does not want it any more.
        let wanted = self.requests.into_iter();
        let wanted: Vec<Request> = wanted.filter(|it| !it.answer.is_closed()).collect();
        let written = match wanted.iter().any(Request::forgets) {
            true => {
                let writing = write(packs, &wanted, doubtful);
                packs.deletions().unless_forbidden(writing).await
            }
            false => Some(write(packs, &wanted, doubtful).await),
        };
        if let Some(written) = written {
            answer(wanted, &written);
        } else {
            let (forgetting, others): (Vec<_>, Vec<_>) =
                wanted.into_iter().partition(Request::forgets);
            answer(forgetting, &Err(Deletions::refusal()));
            let written = write(packs, &others, doubtful).await;
            answer(others, &written);
        }
        packs.keep_up_soon();
    }
}

fn answer(requests: Vec<Request>, written: &Result<(), StoreError>) {
    for request in requests {
        // An error means that it is not waited for any more.
        drop(request.answer.send(written.clone()));
    }
}

async fn write(
    packs: &Arc<Packs>,
    requests: &[Request],
    doubtful: &mut Option<Version>,
) -> Result<(), StoreError> {
    // What is written is later than all that is known, which has to be known.
    packs.refresh(Freshness::Ever).await?;
    let newest = packs.index().newest();
    let version = Version::after(doubtful.unwrap_or_default().max(newest));
    let draft = draft_of(packs, requests, version, *doubtful);
    if draft.len() == 0 {
        return Ok(());
    }
    let (pack, pieces) = draft.seal();
    let body = futures::stream::iter(pieces).map(Ok).boxed();
    // Until it is known, and if that is not waited for.
    let earlier = doubtful.replace(version);
    packs.store.put(&pack.digest, body).await?;
    packs.index().insert(pack);
    *doubtful = earlier;
    Ok(())
}

/// The last wish for each key.
fn draft_of(
    packs: &Packs,
    requests: &[Request],
    version: Version,
    doubtful: Option<Version>,
) -> PackDraft {
    let wishes: HashMap<Digest, &Wish> = requests.iter().map(|it| (it.key, &it.wish)).collect();
    let index = packs.index();
    let mut draft = PackDraft::new(0);
    for (key, wish) in wishes {
        match wish {
            Wish::Store(value) => draft.store(key, version, value.clone()),
            Wish::SayElsewhere => draft.say_elsewhere(key, version),
            Wish::Forget => {
                // What was seen is forgotten, and not what somebody else may be storing just now.
                if let Some(seen) = index.version(&key).max(doubtful) {
                    draft.forget(key, seen, now_s());
                }
            }
        }
    }
    draft
}
