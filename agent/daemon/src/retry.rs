//! Patience with a store that does not answer for a while.

use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use regatta_cas::StoreError;
use tokio::time::Instant;

/// How long blobs are offered to a store that does not answer or takes nothing: long enough for a coordinator to be
/// restarted, or for room to be made on its disk, without its agents losing work.
pub(crate) const STORE_RETRY_LIMIT: Duration = Duration::from_secs(300);
const FIRST_DELAY: Duration = Duration::from_millis(50);
const LONGEST_DELAY: Duration = Duration::from_secs(2);

/// What is left of the time in which a store is asked again. Whatever the store does meanwhile renews it: what is many
/// things takes as long as it takes, while they come.
#[derive(Debug)]
pub(crate) struct Patience {
    limit: Duration,
    /// Since when nothing has come of anything.
    trouble: Mutex<Option<Instant>>,
}

impl Patience {
    /// For so long.
    pub(crate) const fn of(limit: Duration) -> Self {
        Self {
            limit,
            trouble: Mutex::new(None),
        }
    }

    /// Nothing has come of an attempt; until when there are to be others.
    fn tried(&self) -> Instant {
        *self.lock().get_or_insert_with(Instant::now) + self.limit
    }

    fn renew(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Instant>> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Repeats `attempt` while the store is unavailable or takes nothing, as long as there is `patience`, which several may
/// share.
///
/// # Errors
/// The last error, or the first that waiting does not mend.
pub(crate) async fn patiently<T, Attempt, Answer>(
    patience: &Patience,
    mut attempt: Attempt,
) -> Result<T, StoreError>
where
    Attempt: FnMut() -> Answer,
    Answer: Future<Output = Result<T, StoreError>>,
{
    let limit = patience.limit;
    let mut delay = FIRST_DELAY;
    let mut is_told = false;
    loop {
        let error = match attempt().await {
            Ok(value) => {
                patience.renew();
                return Ok(value);
            }
            Err(error) => error,
        };
        let pause = match least_pause(&error) {
            Some(least) => least.max(delay),
            None => return Err(error),
        };
        if Instant::now() + pause >= patience.tried() {
            return Err(error);
        }
        if matches!(error, StoreError::Exhausted { .. }) && !is_told {
            is_told = true;
            tracing::warn!(%error, ?limit, "the store takes nothing; waiting until it does");
        } else {
            tracing::debug!(%error, "the store does not answer; trying again");
        }
        tokio::time::sleep(pause).await;
        delay = (delay * 2).min(LONGEST_DELAY);
    }
}

/// How long to wait at least before another attempt; `None` if waiting does not mend an error.
fn least_pause(error: &StoreError) -> Option<Duration> {
    match error {
        StoreError::Unavailable { .. } => Some(Duration::ZERO),
        StoreError::Away { retry_after, .. } => Some(*retry_after),
        StoreError::Exhausted { retry_after, .. } => Some(retry_after.unwrap_or_default()),
        // Of this machine: no answer of the store's.
        StoreError::Full { .. }
        | StoreError::NotFound { .. }
        | StoreError::OutOfRange { .. }
        | StoreError::Corrupt { .. }
        | StoreError::Undecodable { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn patience() -> Patience {
        Patience::of(STORE_RETRY_LIMIT)
    }

    #[tokio::test(start_paused = true)]
    async fn an_absence_ends_and_so_does_patience() {
        let unavailable = || StoreError::Unavailable {
            detail: "gone".to_owned(),
        };
        let mut left = 5;
        let whole = patience();
        let answered = patiently(&whole, || {
            left -= 1;
            std::future::ready(if left > 0 { Err(unavailable()) } else { Ok(()) })
        });
        assert!(answered.await.is_ok());
        let whole = patience();
        let never = patiently(&whole, || std::future::ready(Err::<(), _>(unavailable())));
        assert!(never.await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_takes_nothing_is_asked_again_no_sooner_than_it_says() {
        let wanted = Duration::from_secs(7);
        let mut asked = Vec::new();
        let exhausted = |retry_after| StoreError::Exhausted {
            detail: "the store is full".to_owned(),
            retry_after,
        };
        let whole = patience();
        let stored = patiently(&whole, || {
            asked.push(Instant::now());
            std::future::ready(match asked.len() {
                ..10 => Err(exhausted(Some(wanted))),
                _ => Ok(()),
            })
        });
        assert!(stored.await.is_ok());
        assert!(asked.windows(2).all(|two| two[1] - two[0] >= wanted));
        for retry_after in [None, Some(wanted), Some(STORE_RETRY_LIMIT * 2)] {
            let begun = Instant::now();
            let whole = patience();
            let never = patiently(&whole, || {
                std::future::ready(Err::<(), _>(exhausted(retry_after)))
            });
            let error = never.await.expect_err("it never takes anything");
            assert!(matches!(error, StoreError::Exhausted { .. }), "{error}");
            assert!(begun.elapsed() <= STORE_RETRY_LIMIT);
        }
    }

    /// How long it takes to store many things, one of which is taken last.
    async fn stored_last(patience: [&Patience; 2]) -> Result<Duration, StoreError> {
        let begun = Instant::now();
        let busy = || StoreError::Exhausted {
            detail: "too many uploads".to_owned(),
            retry_after: None,
        };
        let last = patiently(patience[0], || {
            let is_taken = begun.elapsed() > STORE_RETRY_LIMIT * 3;
            std::future::ready(if is_taken { Ok(()) } else { Err(busy()) })
        });
        let others = async {
            for _ in 0..6 {
                tokio::time::sleep(STORE_RETRY_LIMIT / 2).await;
                let taken = patiently(patience[1], || std::future::ready(Ok(())));
                taken.await.expect("it is taken");
            }
        };
        let (last, ()) = tokio::join!(last, others);
        last.map(|()| begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_meanwhile_renews_patience_with_the_rest() {
        let apart = stored_last([&patience(), &patience()]).await;
        assert!(apart.is_err(), "{apart:?}");
        let shared = patience();
        let took = stored_last([&shared, &shared]).await.expect("all is taken");
        assert!(took > STORE_RETRY_LIMIT * 3, "{took:?}");
    }
}
