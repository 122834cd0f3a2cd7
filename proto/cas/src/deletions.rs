//! Whether what is stored may be deleted.

use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use regatta_model::PlantedBug;

use crate::StoreError;

/// How often it is asked at least, while a deletion waits for something.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Whether what is stored may be deleted. Whoever may lose a store to somebody else may delete for as long as it is
/// surely their own.
#[derive(Clone, Default)]
pub struct Deletions {
    may: Option<Arc<dyn Fn() -> bool + Send + Sync>>,
}

impl Deletions {
    /// They are allowed while this is true. It is asked often.
    #[must_use]
    pub fn allowed_while(may: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self {
            may: Some(Arc::new(may)),
        }
    }

    /// Whether they are allowed now.
    #[must_use]
    pub fn are_allowed(&self) -> bool {
        let may = self.may.as_ref().is_none_or(|may| may());
        may || PlantedBug::TermOutlived.is_planted()
    }

    /// Does `work` for as long as deletions are allowed. That is asked right ahead of each of its steps, and so of
    /// each of its requests, even if this process was stopped in between. Once they are not, it is dropped where it
    /// is; what was asked of a store by then may have happened.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: it was dropped, or did not begin; or those of `work`.
    pub async fn while_allowed<T>(
        &self,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let done = self.unless_forbidden(work).await;
        done.unwrap_or_else(|| Err(Self::refusal()))
    }

    /// The same; nothing if it was dropped, or did not begin.
    pub(crate) async fn unless_forbidden<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        if self.may.is_none() {
            return Some(work.await);
        }
        let mut work = pin!(work);
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        poll_fn(|context| {
            if !self.are_allowed() {
                return Poll::Ready(None);
            }
            while looks.poll_tick(context).is_ready() {}
            work.as_mut().poll(context).map(Some)
        })
        .await
    }

    pub(crate) fn refusal() -> StoreError {
        StoreError::Unavailable {
            detail: "somebody else may have the store by now: nothing is deleted from it"
                .to_owned(),
        }
    }
}

impl fmt::Debug for Deletions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Deletions")
            .field("are_allowed", &self.are_allowed())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use tokio::time::{Instant, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_goes_no_step_further_once_it_is_not_allowed() {
        const ALLOWED_FOR: Duration = Duration::from_secs(5);
        let begun = Instant::now();
        let deletions = Deletions::allowed_while(move || begun.elapsed() < ALLOWED_FOR);
        let steps = AtomicU32::new(0);
        // Its last step in time hangs for longer than it may.
        let work = async {
            for pause in [1, 3, 60] {
                steps.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_secs(pause)).await;
            }
            steps.fetch_add(1, Ordering::Relaxed);
            Ok(())
        };
        assert!(deletions.while_allowed(work).await.is_err());
        assert_eq!(steps.load(Ordering::Relaxed), 3);
        assert!(begun.elapsed() < ALLOWED_FOR + 2 * LOOK_INTERVAL);
        let never = async { panic!("it is not allowed to begin") };
        assert!(deletions.while_allowed::<()>(never).await.is_err());
        let always = Deletions::default();
        let done = always.while_allowed(async { Ok(7) }).await;
        assert_eq!(done.ok(), Some(7));
    }

    #[tokio::test]
    async fn who_was_stopped_meanwhile_does_nothing_when_it_wakes() {
        let may = Arc::new(AtomicBool::new(true));
        let asked = Arc::clone(&may);
        let deletions = Deletions::allowed_while(move || asked.load(Ordering::Relaxed));
        // An answer that came while it was stopped is there at once.
        let work = async {
            may.store(false, Ordering::Relaxed);
            tokio::task::yield_now().await;
            panic!("another request is sent");
        };
        assert!(deletions.while_allowed::<()>(work).await.is_err());
    }
}
