//! One piece of work for all who want its result.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, WeakShared};

use crate::StoreError;

type Work<T> = BoxFuture<'static, Result<T, StoreError>>;

/// Lets concurrent callers that want the same thing share one execution.
///
/// The work goes on as long as any caller waits for it, whoever started it, and stops with the last.
pub(crate) struct SingleFlight<K, T> {
    flights: Mutex<HashMap<K, WeakShared<Work<T>>>>,
}

impl<K: Copy + Eq + Hash, T: Clone> SingleFlight<K, T> {
    pub(crate) fn new() -> Self {
        Self {
            flights: Mutex::default(),
        }
    }

    /// The result of the work under way for `key`, or else of `work`.
    pub(crate) async fn run(
        &self,
        key: K,
        work: impl FnOnce() -> Work<T>,
    ) -> Result<T, StoreError> {
        let seat = Seat {
            single_flight: self,
            key,
            flight: Some(self.board(key, work)),
        };
        match &seat.flight {
            Some(flight) => flight.clone().await,
            // Only dropping a seat empties it.
            None => Err(StoreError::Unavailable {
                detail: "abandoned".to_owned(),
            }),
        }
    }

    fn board(&self, key: K, work: impl FnOnce() -> Work<T>) -> Shared<Work<T>> {
        let mut flights = self.flights();
        let under_way = flights.get(&key).and_then(WeakShared::upgrade);
        // A flight that has landed is not joined: its result may be out of date.
        if let Some(flight) = under_way.filter(|flight| flight.peek().is_none()) {
            return flight;
        }
        let flight = work().shared();
        if let Some(weak) = flight.downgrade() {
            flights.insert(key, weak);
        }
        flight
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<K, WeakShared<Work<T>>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One caller's interest in a flight; the last to leave removes the flight.
struct Seat<'a, K: Copy + Eq + Hash, T: Clone> {
    single_flight: &'a SingleFlight<K, T>,
    key: K,
    flight: Option<Shared<Work<T>>>,
}

impl<K: Copy + Eq + Hash, T: Clone> Drop for Seat<'_, K, T> {
    fn drop(&mut self) {
        // Dropped outside the lock: what the work holds may do anything when it goes.
        drop(self.flight.take());
        let mut flights = self.single_flight.flights();
        let gone = flights
            .get(&self.key)
            .is_some_and(|flight| flight.upgrade().is_none());
        if gone {
            flights.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn callers_share_one_execution_and_leave_nothing_behind() {
        let flights = SingleFlight::<u8, usize>::new();
        let runs = Arc::new(AtomicUsize::new(0));
        let gate = Arc::new(tokio::sync::Semaphore::new(0));
        let work = || {
            let (runs, gate) = (Arc::clone(&runs), Arc::clone(&gate));
            async move {
                drop(gate.acquire().await);
                Ok(runs.fetch_add(1, Ordering::SeqCst))
            }
            .boxed()
        };
        let callers = futures::future::join_all((0..10).map(|_| flights.run(1, work)));
        let opening = async { gate.add_permits(1) };
        let (results, ()) = futures::future::join(callers, opening).await;
        assert!(results.iter().all(|result| matches!(result, Ok(0))));
        assert!(flights.flights().is_empty());
        assert_eq!(flights.run(1, work).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn the_work_outlives_the_caller_that_started_it() {
        let flights = Arc::new(SingleFlight::<u8, ()>::new());
        let gate = Arc::new(Notify::new());
        let wait = Arc::clone(&gate);
        let first = flights.run(1, || async move { wait.notified().map(Ok).await }.boxed());
        let mut first = Box::pin(first);
        assert!(first.as_mut().now_or_never().is_none());
        let second = flights.run(1, || panic!("there is work under way"));
        let mut second = Box::pin(second);
        assert!(second.as_mut().now_or_never().is_none());
        drop(first);
        gate.notify_one();
        second.await.unwrap();
        assert!(flights.flights().is_empty());
    }
}
