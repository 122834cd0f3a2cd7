//! Patience with a store that does not answer for a while.

use std::future::Future;
use std::time::Duration;

use regatta_cas::StoreError;
use tokio::time::Instant;

/// How long blobs are offered to a store that does not answer or takes nothing: long enough for a coordinator to be
/// restarted, or for room to be made on its disk, without its agents losing work.
pub(crate) const STORE_RETRY_LIMIT: Duration = Duration::from_secs(300);
const FIRST_DELAY: Duration = Duration::from_millis(50);
const LONGEST_DELAY: Duration = Duration::from_secs(2);

/// Repeats `attempt` while the store is unavailable or takes nothing, for at most `limit`.
///
/// # Errors
/// The last error, or the first that waiting does not mend.
pub(crate) async fn patiently<T, Attempt, Answer>(
    limit: Duration,
    mut attempt: Attempt,
) -> Result<T, StoreError>
where
    Attempt: FnMut() -> Answer,
    Answer: Future<Output = Result<T, StoreError>>,
{
    let deadline = Instant::now() + limit;
    let mut delay = FIRST_DELAY;
    let mut is_told = false;
    loop {
        let error = match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let pause = match least_pause(&error) {
            Some(least) => least.max(delay),
            None => return Err(error),
        };
        if Instant::now() + pause >= deadline {
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

    #[tokio::test(start_paused = true)]
    async fn an_absence_ends_and_so_does_patience() {
        let unavailable = || StoreError::Unavailable {
            detail: "gone".to_owned(),
        };
        let mut left = 5;
        let answered = patiently(STORE_RETRY_LIMIT, || {
            left -= 1;
            std::future::ready(if left > 0 { Err(unavailable()) } else { Ok(()) })
        });
        assert!(answered.await.is_ok());
        let never = patiently(STORE_RETRY_LIMIT, || {
            std::future::ready(Err::<(), _>(unavailable()))
        });
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
        let stored = patiently(STORE_RETRY_LIMIT, || {
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
            let never = patiently(STORE_RETRY_LIMIT, || {
                std::future::ready(Err::<(), _>(exhausted(retry_after)))
            });
            let error = never.await.expect_err("it never takes anything");
            assert!(matches!(error, StoreError::Exhausted { .. }), "{error}");
            assert!(begun.elapsed() <= STORE_RETRY_LIMIT);
        }
    }
}
