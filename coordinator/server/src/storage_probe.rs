//! Whether the storage answers, as whoever probes the coordinator is told at once.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use regatta_cas::{BlobStore, StoreError};
use regatta_model::Digest;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// How long whoever asks waits for an answer: supervisors give a probe a second.
pub(crate) const ANSWERED_WITHIN: Duration = Duration::from_millis(700);
/// How long the storage has to answer, or else counts as one that does not.
const STORAGE_LIMIT: Duration = Duration::from_secs(5);
/// For how long an answer speaks for a storage that is being asked again: one that takes a second to answer is ready for
/// whoever probes it every ten.
const BELIEVED_FOR: Duration = Duration::from_secs(15);

/// Asks the storage in the background, while somebody wants to know.
///
/// It is asked by one probe at a time, which has an end. Nobody is told that it answers whose last probe has failed, or
/// had no end in time.
#[derive(Debug)]
pub(crate) struct StorageProbe {
    store: Arc<dyn BlobStore>,
    /// When the probe began that is under way.
    begun: Mutex<Option<Instant>>,
    last: watch::Sender<Option<Ended>>,
}

/// What a probe came to.
#[derive(Debug, Clone)]
struct Ended {
    at: Instant,
    outcome: Result<(), Unanswered>,
}

/// Why the storage does not count as one that answers.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Unanswered {
    /// It refuses or fails. What it says tells what to do.
    #[error(transparent)]
    Failing(#[from] StoreError),
    /// It says nothing. See whether it can be reached.
    #[error("it was asked, and has said nothing for {} s; see whether it can be reached", STORAGE_LIMIT.as_secs())]
    Silent,
    /// It was asked a moment ago. Ask again.
    #[error("it is being asked, and has not answered for {} ms", _0.as_millis())]
    Asked(Duration),
}

impl StorageProbe {
    /// Probes a store, above which nothing may be that answers for it.
    pub(crate) fn new(store: Arc<dyn BlobStore>) -> Arc<Self> {
        Arc::new(Self {
            store,
            begun: Mutex::new(None),
            last: watch::Sender::new(None),
        })
    }

    /// Whether the storage answers: now if it says so within [`ANSWERED_WITHIN`], or else as it was known last.
    ///
    /// # Errors
    /// Why it does not.
    pub(crate) async fn answers(self: &Arc<Self>) -> Result<(), Unanswered> {
        // Subscribed before, so that an end is not missed.
        let mut last = self.last.subscribe();
        let begun = self.begin();
        if timeout(ANSWERED_WITHIN, last.changed()).await.is_ok() {
            return last
                .borrow()
                .as_ref()
                .map_or(Ok(()), |last| last.outcome.clone());
        }
        match &*last.borrow() {
            Some(Ended {
                outcome: Ok(()),
                at,
            }) if at.elapsed() < BELIEVED_FOR => Ok(()),
            Some(Ended {
                outcome: Err(why), ..
            }) => Err(why.clone()),
            Some(_) | None => Err(Unanswered::Asked(begun.elapsed())),
        }
    }

    /// Has a probe be under way, and says since when it is.
    fn begin(self: &Arc<Self>) -> Instant {
        let mut under_way = self.under_way();
        if let Some(begun) = *under_way {
            return begun;
        }
        let begun = Instant::now();
        *under_way = Some(begun);
        let probe = Arc::clone(self);
        // It outlives who asked, and has an end of its own.
        tokio::spawn(async move {
            let answer = timeout(STORAGE_LIMIT, ask(probe.store.as_ref())).await;
            let outcome = match answer {
                Ok(answer) => answer.map_err(Unanswered::Failing),
                Err(_) => Err(Unanswered::Silent),
            };
            *probe.under_way() = None;
            let at = Instant::now();
            probe.last.send_replace(Some(Ended { at, outcome }));
        });
        begun
    }

    fn under_way(&self) -> MutexGuard<'_, Option<Instant>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sees that a store answers, by asking it for a digest that is nobody's, and too large to be packed.
async fn ask(store: &dyn BlobStore) -> Result<(), StoreError> {
    let nobodys = Digest::new([0; 32], u64::MAX >> 1);
    store.find_missing(&[nobodys]).await.map(drop)
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use regatta_cas::{BlobRange, BlobStream};

    use super::*;

    /// A store that is asked, and does as the test says.
    #[derive(Debug)]
    struct Answering(watch::Sender<Mood>);

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Mood {
        Answers,
        Slow(Duration),
        Fails,
        Hangs,
    }

    #[async_trait]
    impl BlobStore for Answering {
        async fn get(&self, digest: &Digest, _: BlobRange) -> Result<BlobStream, StoreError> {
            Err(StoreError::NotFound { digest: *digest })
        }

        async fn put(&self, _: &Digest, _: BlobStream) -> Result<(), StoreError> {
            Ok(())
        }

        async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
            let mood = *self.0.borrow();
            match mood {
                Mood::Answers => {}
                Mood::Slow(time) => tokio::time::sleep(time).await,
                Mood::Fails => {
                    return Err(StoreError::Unavailable {
                        detail: "as the test has it".to_owned(),
                    });
                }
                Mood::Hangs => std::future::pending().await,
            }
            Ok(digests.to_vec())
        }

        async fn delete(&self, _: &Digest) -> Result<(), StoreError> {
            Ok(())
        }
    }

    fn probe(mood: Mood) -> (Arc<StorageProbe>, impl Fn(Mood)) {
        let store = Arc::new(Answering(watch::Sender::new(mood)));
        let probe = StorageProbe::new(Arc::clone(&store) as _);
        (probe, move |mood| {
            store.0.send_replace(mood);
        })
    }

    /// What is told, in time.
    async fn told(probe: &Arc<StorageProbe>) -> Result<(), Unanswered> {
        let asked = Instant::now();
        let told = probe.answers().await;
        assert!(asked.elapsed() <= ANSWERED_WITHIN, "{told:?}");
        told
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_storage_says_at_once_is_told() {
        let (probe, now) = probe(Mood::Answers);
        told(&probe).await.expect("it answers");
        now(Mood::Fails);
        let why = told(&probe).await.expect_err("it fails");
        assert!(why.to_string().contains("as the test has it"), "{why}");
        now(Mood::Answers);
        told(&probe).await.expect("it answers again");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_has_never_answered_or_failed_last_is_not_ready_while_it_hangs() {
        for before in [None, Some(Mood::Fails)] {
            let (probe, now) = probe(before.unwrap_or(Mood::Hangs));
            told(&probe).await.expect_err("it does not answer");
            now(Mood::Hangs);
            for _ in 0..30 {
                told(&probe).await.expect_err("nothing has answered");
            }
            assert!(matches!(told(&probe).await, Err(Unanswered::Silent)));
            now(Mood::Answers);
            let healed = Instant::now();
            while told(&probe).await.is_err() {
                assert!(healed.elapsed() <= STORAGE_LIMIT, "a probe has an end");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_counts_until_the_next_probe_had_its_time() {
        let (probe, now) = probe(Mood::Answers);
        told(&probe).await.expect("it answers");
        now(Mood::Hangs);
        let hangs = Instant::now();
        while told(&probe).await.is_ok() {
            assert!(
                hangs.elapsed() <= STORAGE_LIMIT,
                "it was believed for too long"
            );
        }
        told(&probe).await.expect_err("it has failed last");
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_answer_says_nothing() {
        let (probe, now) = probe(Mood::Answers);
        told(&probe).await.expect("it answers");
        now(Mood::Hangs);
        tokio::time::advance(BELIEVED_FOR).await;
        let why = told(&probe).await.expect_err("that was long ago");
        assert!(matches!(why, Unanswered::Asked(_)), "{why}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_storage_is_ready_for_whoever_probes_it_now_and_then() {
        let (probe, _) = probe(Mood::Slow(2 * ANSWERED_WITHIN));
        told(&probe).await.expect_err("nothing is known yet");
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_secs(10)).await;
            told(&probe).await.expect("it answers, slowly");
        }
    }
}
