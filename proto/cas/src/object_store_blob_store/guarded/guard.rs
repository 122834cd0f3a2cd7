//! What stands between this process and one store.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use object_store::Result;
use tokio::time::Instant;

use super::attempts::Attempts;
use super::circuit_breaker::{Away, Change, CircuitBreaker};
use super::trouble::{Trouble, may_pass};
use crate::object_store_blob_store::failure;

/// How long things may take. What is sent is bounded by a rate, because nobody can see how far it is.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Limits {
    /// From a request without a body to the beginning of its answer, and from the end of a body that is sent.
    pub(in super::super) answer: Duration,
    /// From one piece of a body to the next.
    pub(in super::super) stall: Duration,
    /// For putting the parts of an upload together.
    pub(in super::super) complete: Duration,
    /// How fast a body is sent at least, in bytes a second.
    pub(in super::super) sending_rate: u32,
    /// How long it is tried to be rid of an upload that came to nothing.
    pub(in super::super) abort: Duration,
    /// How long after its marker was written last an upload counts as abandoned.
    pub(in super::super) abandoned_after: Duration,
}

impl Limits {
    /// A store answers in some 100 ms (Amazon S3's performance guidelines), so that what takes a hundred times
    /// as long is lost. Parts of 5 MiB have 80 s more, for lines that many of them share. Completing an upload
    /// "can take several minutes" (S3, `CompleteMultipartUpload`). Who aborts an upload is waited for by nobody.
    /// A writer that says nothing of its upload for a day is gone, or its bucket was.
    pub(in super::super) const DEFAULT: Self = Self {
        answer: Duration::from_secs(15),
        stall: Duration::from_secs(15),
        complete: Duration::from_secs(5 * 60),
        sending_rate: 64 << 10,
        abort: Duration::from_secs(10 * 60),
        abandoned_after: Duration::from_secs(24 * 60 * 60),
    };

    /// For a request with so many bytes.
    pub(super) fn of_sending(&self, size_bytes: usize) -> Duration {
        let size_bytes = u32::try_from(size_bytes).unwrap_or(u32::MAX);
        self.answer + Duration::from_secs(1) * size_bytes / self.sending_rate
    }
}

/// Limits requests to one store, repeats them, and knows whether it is away.
#[derive(Debug)]
pub(super) struct Guard {
    name: String,
    limits: Limits,
    randomness: fn() -> u64,
    breaker: Mutex<CircuitBreaker>,
}

impl Guard {
    pub(super) fn new(name: &str, limits: Limits, randomness: fn() -> u64) -> Self {
        metrics::gauge!("regatta_object_store_away", "store" => name.to_owned()).set(0);
        Self {
            name: name.to_owned(),
            limits,
            randomness,
            breaker: Mutex::new(CircuitBreaker::new()),
        }
    }

    pub(super) const fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(super) fn name(&self) -> String {
        self.name.clone()
    }

    pub(super) fn randomness(&self) -> u64 {
        (self.randomness)()
    }

    /// Makes a request until it succeeds, or fails for good, or was made often enough.
    pub(super) async fn repeated<T, Request>(
        &self,
        limit: Duration,
        mut request: impl FnMut() -> Request,
    ) -> Result<T>
    where
        Request: Future<Output = Result<T>>,
    {
        let mut attempts = Attempts::begin();
        loop {
            match self.once(limit, request()).await {
                Err(error) if may_pass(&error) => attempts.again(self, error).await?,
                answer => return answer,
            }
        }
    }

    /// Makes a request, unless the store is away.
    pub(super) async fn once<T>(
        &self,
        limit: Duration,
        request: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.admit()?;
        let late = || Trouble::Late {
            store: self.name(),
            limit,
        };
        let answer = tokio::time::timeout(limit, request).await;
        let answer = answer.unwrap_or_else(|_| Err(late().into()));
        match &answer {
            Err(error) if may_pass(error) => self.failed(error),
            Ok(_) | Err(_) => self.answered(),
        }
        answer
    }

    fn breaker(&self) -> MutexGuard<'_, CircuitBreaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn admit(&self) -> Result<()> {
        let admitted = self.breaker().admit(Instant::now(), self.randomness());
        admitted.map_err(|away| {
            metrics::counter!("regatta_object_store_refusals_total", "store" => self.name())
                .increment(1);
            let Away {
                failing,
                again_in,
                reason,
            } = away;
            let store = self.name();
            let away = Trouble::Away {
                store,
                failing,
                again_in,
                reason,
            };
            away.into()
        })
    }

    fn answered(&self) {
        if let Change::Closed(failing) = self.breaker().answered(Instant::now()) {
            tracing::info!(store = self.name, ?failing, "the object store is back");
            self.show_away(0);
        }
    }

    fn failed(&self, error: &object_store::Error) {
        let reason = failure::words_of(error);
        let change = self
            .breaker()
            .failed(Instant::now(), &reason, self.randomness());
        if change == Change::Opened {
            tracing::error!(
                store = self.name,
                reason,
                "the object store does nothing but fail; it is left alone for a while"
            );
            self.show_away(1);
        }
    }

    /// A request is about to be made again.
    pub(super) fn repeats(&self, error: &object_store::Error, wait: Duration) {
        let error = failure::words_of(error);
        tracing::debug!(
            store = self.name,
            error,
            ?wait,
            "a request failed; trying again"
        );
        metrics::counter!("regatta_object_store_repeats_total", "store" => self.name())
            .increment(1);
    }

    fn show_away(&self, away: u8) {
        metrics::gauge!("regatta_object_store_away", "store" => self.name()).set(away);
    }
}
