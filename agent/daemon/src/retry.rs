//! Patience with a store that does not answer for a while.

use std::future::Future;
use std::time::Duration;

use regatta_cas::StoreError;
use tokio::time::Instant;

/// How long blobs are offered to a store that does not answer: long enough for a coordinator to be
/// restarted without its agents losing work.
pub(crate) const STORE_RETRY_LIMIT: Duration = Duration::from_secs(300);
const FIRST_DELAY: Duration = Duration::from_millis(50);
const LONGEST_DELAY: Duration = Duration::from_secs(2);

/// Repeats `attempt` while the store is unavailable, for at most `limit`.
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
    loop {
        let error = match attempt().await {
            Ok(value) => return Ok(value),
            Err(error @ StoreError::Unavailable { .. }) => error,
            Err(error) => return Err(error),
        };
        if Instant::now() + delay >= deadline {
            return Err(error);
        }
        tracing::debug!(%error, "the store does not answer; trying again");
        tokio::time::sleep(delay).await;
        delay = (delay * 2).min(LONGEST_DELAY);
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
}
