//! What was asked for, and what came of it.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(180);
/// How many failures are told in full.
const TOLD_FAILURES: usize = 20;

/// Counts what was asked for.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    kinds: BTreeMap<&'static str, Kind>,
    failures: u64,
    told: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Kind {
    asked: u64,
    answered: u64,
}

impl Tally {
    /// Waits for the answer to something that is asked for. One that is wrong, or late, is none.
    pub(super) async fn ask<T>(
        &self,
        kind: &'static str,
        answer: impl Future<Output = Result<T>>,
    ) -> Option<T> {
        self.lock().kinds.entry(kind).or_default().asked += 1;
        let answer = tokio::time::timeout(PATIENCE, answer).await;
        let answer = answer.with_context(|| format!("no answer within {PATIENCE:?}"));
        match answer.and_then(|answer| answer) {
            Ok(answer) => {
                self.lock().kinds.entry(kind).or_default().answered += 1;
                Some(answer)
            }
            Err(error) => {
                self.note(Err(error.context(kind)));
                None
            }
        }
    }

    /// Notes what failed.
    pub(super) fn note(&self, result: Result<()>) {
        let Err(error) = result else { return };
        let mut counts = self.lock();
        counts.failures += 1;
        if counts.told.len() < TOLD_FAILURES {
            counts.told.push(format!("{error:#}"));
        }
    }

    /// What it comes to after so long.
    pub(super) fn summary(&self, elapsed: Duration) -> serde_json::Value {
        let (counts, seconds) = (self.lock(), elapsed.as_secs_f64());
        let kind = |(name, kind): (&&'static str, &Kind)| {
            let value = serde_json::json!({
                "asked": kind.asked, "answered": kind.answered,
                "per_second": kind.asked as f64 / seconds,
            });
            ((*name).to_owned(), value)
        };
        let kinds: serde_json::Map<_, _> = counts.kinds.iter().map(kind).collect();
        serde_json::json!({
            "seconds": seconds, "kinds": kinds,
            "failures": counts.failures, "told_failures": counts.told,
        })
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
