//! Many small requests in few large ones.

use std::sync::Arc;

use futures::future::BoxFuture;
use regatta_model::Digest;
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::StoreError;

/// How many items wait at most; who comes later waits outside.
const QUEUE_LENGTH: usize = 1024;
/// How many batches are under way at a time: one travels while the server works on the other.
const BATCHES_IN_FLIGHT: usize = 2;
/// How many items a batch has at most.
const BATCH_ITEMS: usize = 1000;
/// How large the blobs of a batch are together at most, in bytes. Servers accept 4 MiB a message.
const BATCH_BYTES: u64 = 3 << 20;

/// One item of a batch.
pub(super) struct Item<I> {
    pub(super) digest: Digest,
    pub(super) input: I,
}

/// Does the work of a batch: an answer for each item, in order.
type Work<I, O> =
    Arc<dyn Fn(Vec<Item<I>>) -> BoxFuture<'static, Vec<Result<O, StoreError>>> + Send + Sync>;

struct Queued<I, O> {
    item: Item<I>,
    answer: oneshot::Sender<Result<O, StoreError>>,
}

type Queue<I, O> = Arc<Mutex<Waiting<I, O>>>;

struct Waiting<I, O> {
    receiver: mpsc::Receiver<Queued<I, O>>,
    /// What did not fit into the last batch.
    left_over: Option<Queued<I, O>>,
}

/// Collects what comes while earlier batches are under way, and then sends it together. Nothing waits for
/// company: what finds no batch under way goes at once.
pub(super) struct Coalescer<I, O> {
    sender: mpsc::Sender<Queued<I, O>>,
}

impl<I: Send + 'static, O: Send + 'static> Coalescer<I, O> {
    /// Starts the tasks that send batches; they end when this is dropped.
    pub(super) fn new(
        work: impl Fn(Vec<Item<I>>) -> BoxFuture<'static, Vec<Result<O, StoreError>>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE_LENGTH);
        let queue = Arc::new(Mutex::new(Waiting {
            receiver,
            left_over: None,
        }));
        let work: Work<I, O> = Arc::new(work);
        for _ in 0..BATCHES_IN_FLIGHT {
            tokio::spawn(send_batches(Arc::clone(&queue), Arc::clone(&work)));
        }
        Self { sender }
    }

    /// Does the work for one item, in a batch with others.
    pub(super) async fn run(&self, digest: Digest, input: I) -> Result<O, StoreError> {
        let stopped = || StoreError::Unavailable {
            detail: "the client has been shut down".to_owned(),
        };
        let (answer, answered) = oneshot::channel();
        let queued = Queued {
            item: Item { digest, input },
            answer,
        };
        self.sender.send(queued).await.map_err(|_| stopped())?;
        answered.await.map_err(|_| stopped())?
    }
}

async fn send_batches<I: Send, O: Send>(queue: Queue<I, O>, work: Work<I, O>) {
    loop {
        // Whoever waits for the queue here goes next, while others work.
        let batch = queue.lock().await.next_batch().await;
        if batch.is_empty() {
            return;
        }
        let (items, answers): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .map(|queued| (queued.item, queued.answer))
            .unzip();
        for (answer, result) in answers.into_iter().zip(work(items).await) {
            // Who does not wait any more needs no answer.
            drop(answer.send(result));
        }
    }
}

impl<I, O> Waiting<I, O> {
    /// Waits for the first item, then takes what is there. Empty once there will be no more.
    async fn next_batch(&mut self) -> Vec<Queued<I, O>> {
        let first = match self.left_over.take() {
            Some(left_over) => Some(left_over),
            None => self.receiver.recv().await,
        };
        let Some(first) = first else {
            return Vec::new();
        };
        let mut bytes = first.item.digest.size_bytes();
        let mut batch = vec![first];
        while batch.len() < BATCH_ITEMS {
            let Ok(next) = self.receiver.try_recv() else {
                break;
            };
            if next.answer.is_closed() {
                continue;
            }
            bytes += next.item.digest.size_bytes();
            if bytes > BATCH_BYTES {
                self.left_over = Some(next);
                break;
            }
            batch.push(next);
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::FutureExt as _;
    use tokio::sync::Semaphore;

    use super::*;

    fn digest(size_bytes: u64) -> Digest {
        Digest::new([0; 32], size_bytes)
    }

    #[tokio::test]
    async fn what_comes_while_batches_are_under_way_goes_together() {
        let batches = Arc::new(AtomicUsize::new(0));
        let gate = Arc::new(Semaphore::new(0));
        let coalescer = {
            let (batches, gate) = (Arc::clone(&batches), Arc::clone(&gate));
            Coalescer::new(move |batch: Vec<Item<u32>>| {
                let (batches, gate) = (Arc::clone(&batches), Arc::clone(&gate));
                async move {
                    batches.fetch_add(1, Ordering::SeqCst);
                    gate.acquire().await.unwrap().forget();
                    batch.into_iter().map(|item| Ok(item.input)).collect()
                }
                .boxed()
            })
        };
        let asking = futures::future::join_all((0..500).map(|at| coalescer.run(digest(1), at)));
        let opening = async {
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            gate.add_permits(100);
        };
        let (answers, ()) = futures::future::join(asking, opening).await;
        let answers: Vec<u32> = answers.into_iter().map(Result::unwrap).collect();
        assert_eq!(answers, (0..500).collect::<Vec<_>>());
        assert!(batches.load(Ordering::SeqCst) <= 4, "{batches:?}");
    }

    #[tokio::test]
    async fn batches_are_bounded_in_bytes() {
        let coalescer = Coalescer::new(|batch: Vec<Item<()>>| {
            let bytes: u64 = batch.iter().map(|item| item.digest.size_bytes()).sum();
            let count = batch.len();
            async move { (0..count).map(|_| Ok(bytes)).collect() }.boxed()
        });
        let size_bytes = BATCH_BYTES / 3;
        let asking = (0..20).map(|_| coalescer.run(digest(size_bytes), ()));
        for bytes in futures::future::join_all(asking).await {
            assert!(bytes.unwrap() <= BATCH_BYTES);
        }
    }
}
