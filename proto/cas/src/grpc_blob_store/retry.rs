//! Trying again.

use std::future::Future;
use std::time::Duration;

use tonic::Status;

use super::status::{is_passing, told_to_wait};

/// How often a request is made at most.
pub(super) const MAX_ATTEMPTS: u32 = 5;
/// How long the first wait is at most; each further one may be twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(50);
/// How long any wait is at most.
const MAX_WAIT: Duration = Duration::from_secs(2);

/// How long a stream may go without a byte, in either direction.
const STALL_LIMIT: Duration = Duration::from_secs(60);
/// How long a request with its answer may take; for a write, from its last byte on: the server may have to
/// pass all of it on.
const ANSWER_LIMIT: Duration = Duration::from_secs(300);

/// Waits for the next step of a stream. That it does not come is an error that does not pass: whoever has
/// the patience asks again.
pub(super) async fn moving<T>(step: impl Future<Output = T>) -> Result<T, Status> {
    within(STALL_LIMIT, step).await
}

/// Waits for an answer.
pub(super) async fn answered<T>(
    request: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    within(ANSWER_LIMIT, request).await.flatten()
}

async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Result<T, Status> {
    let ended = tokio::time::timeout(limit, work).await;
    ended.map_err(|_| Status::deadline_exceeded(format!("the server was silent for {limit:?}")))
}

/// Makes a request until it succeeds, fails for good, gets no answer in time, or has failed [`MAX_ATTEMPTS`] times.
pub(super) async fn with_retries<T, F: Future<Output = Result<T, Status>>>(
    mut request: impl FnMut() -> F,
) -> Result<T, Status> {
    let mut attempt = 1;
    loop {
        match answered(request()).await {
            Err(status) if is_passing(&status) && attempt < MAX_ATTEMPTS => {
                tracing::debug!(attempt, %status, "a request failed; trying again");
                tokio::time::sleep(wait_after(attempt, told_to_wait(&status))).await;
                attempt += 1;
            }
            answer => return answer,
        }
    }
}

/// How long to wait after a failed attempt; the first is number one. That is more than the server has told to wait,
/// unless it wants to be left alone for longer than anybody waits here. Chance spreads clients that failed together.
pub(super) fn wait_after(attempt: u32, told: Duration) -> Duration {
    let doubled = FIRST_WAIT.saturating_mul(1 << attempt.saturating_sub(1).min(16));
    let most = doubled.min(MAX_WAIT);
    // The last bits of a version 4 UUID are random, which saves a dependency.
    let random = uuid::Uuid::new_v4().as_u128() & 0xffff;
    let share = u32::try_from(random).unwrap_or_default();
    told.min(MAX_WAIT) + most / 2 + (most / 2).mul_f64(f64::from(share) / f64::from(0xffff_u16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn attempts_are_bounded_and_final_errors_are_final() {
        for (status, expected) in [
            (Status::unavailable("x"), MAX_ATTEMPTS),
            (Status::not_found("x"), 1),
        ] {
            let mut attempts = 0;
            let answer: Result<(), Status> = with_retries(|| {
                attempts += 1;
                std::future::ready(Err(status.clone()))
            })
            .await;
            assert_eq!(answer.unwrap_err().code(), status.code());
            assert_eq!(attempts, expected);
        }
    }

    #[test]
    fn waits_grow_to_their_bound() {
        for attempt in 1..100 {
            let wait = wait_after(attempt, Duration::ZERO);
            assert!(wait >= FIRST_WAIT / 2 && wait <= MAX_WAIT);
            let told = FIRST_WAIT * attempt;
            let wait = wait_after(attempt, told);
            assert!(wait > told.min(MAX_WAIT) && wait <= 2 * MAX_WAIT);
        }
        assert!(wait_after(7, Duration::ZERO) > FIRST_WAIT);
    }
}
