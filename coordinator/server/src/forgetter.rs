//! Lets runs go that ended longer ago than they are kept for (ADR 26).
//!
//! It asks the ledger for one small step after another, each of which is durable and whole: killed between any two,
//! it goes on with what is left after the next start. Whoever has lost the ledger lets nothing go, for what forgets
//! is written as everything is: by the one session that has it.

use std::sync::Arc;
use std::time::Duration;

use regatta_ledger::{Forgetting, Ledger, LedgerError, OldRunsQuery};
use regatta_model::{RunId, Timestamp};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::CoordinatorConfig;
use crate::runs::now;

/// How often it is looked for old runs in the time that they are kept, and how long after one time comes the next at
/// least and at most.
const LOOKS: u32 = 50;
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60 * 60);
/// How long to wait after the ledger failed.
const RETRY_PAUSE: Duration = Duration::from_secs(60);
/// At how many runs one step looks, how many events and how many names it deletes.
const MAX_OLD_RUNS: usize = 100;
const MAX_EVENTS: usize = 200;
const MAX_NAMES: usize = 1000;
/// How many runs that are half gone are dealt with before it is asked for others.
const MAX_HALF_GONE: usize = 100;
/// For each moment that a step takes the ledger, so many are left to others.
const REST: u32 = 3;

/// Lets runs go.
#[derive(Debug)]
pub(crate) struct Forgetter {
    ledger: Arc<dyn Ledger>,
    /// For ever if `None`.
    keep: Option<Duration>,
    keep_verdicts: Duration,
    clock: SteadyClock,
}

/// Goes on from what another clock said once: nothing grows old because somebody sets the time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SteadyClock {
    began: Timestamp,
    since: Instant,
}

impl SteadyClock {
    /// It is this time now.
    pub(crate) fn starting_at(began: Timestamp) -> Self {
        let since = Instant::now();
        Self { began, since }
    }

    fn now(&self) -> Timestamp {
        self.began + self.since.elapsed()
    }
}

/// Lets runs go as a coordinator's settings say.
pub(crate) fn forgetter(config: &CoordinatorConfig, ledger: Arc<dyn Ledger>) -> Forgetter {
    let clock = SteadyClock::starting_at(now());
    Forgetter::new(ledger, config.keep_runs, config.cache.keep_verdicts, clock)
}

impl Forgetter {
    /// Runs are kept for `keep` after they ended, or for ever; those that a verdict names for `keep_verdicts` after
    /// that was given last.
    pub(crate) const fn new(
        ledger: Arc<dyn Ledger>,
        keep: Option<Duration>,
        keep_verdicts: Duration,
        clock: SteadyClock,
    ) -> Self {
        Self {
            ledger,
            keep,
            keep_verdicts,
            clock,
        }
    }

    /// Lets them go as they grow old, until the coordinator ends.
    pub(crate) async fn run(self, ending: CancellationToken) {
        let forgetting = async {
            let mut has_failed = false;
            loop {
                tokio::time::sleep(self.pause()).await;
                match self.pass().await {
                    Ok(0) => has_failed = false,
                    Ok(runs) => {
                        has_failed = false;
                        tracing::info!(runs, "runs that ended long ago are no longer kept");
                    }
                    // The coordinator ends.
                    Err(LedgerError::Superseded | LedgerError::Closed) => return,
                    Err(error) => {
                        if !has_failed {
                            tracing::warn!(%error, "old runs cannot be let go for now");
                        }
                        has_failed = true;
                        tokio::time::sleep(RETRY_PAUSE).await;
                    }
                }
            }
        };
        tokio::select! {
            () = forgetting => {}
            () = ending.cancelled() => {}
        }
    }

    fn pause(&self) -> Duration {
        let pause = self.keep.map_or(LONGEST_PAUSE, |keep| keep / LOOKS);
        pause.clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
    }

    /// Lets all go that may, and what is left of others. How many have gone.
    async fn pass(&self) -> Result<usize, LedgerError> {
        let mut gone = self.finish().await?;
        let Some(keep) = self.keep else {
            return Ok(gone);
        };
        let now = self.clock.now();
        let mut query = OldRunsQuery {
            ended_before: now - keep,
            verdicts_since: now - self.keep_verdicts,
            after: None,
            limit: MAX_OLD_RUNS,
        };
        loop {
            let old = self.ledger.find_old_runs(query.clone()).await?;
            let Some(last) = old.last() else { break };
            query.after = Some(last.place.clone());
            for run in old.into_iter().filter(|old| old.may_go) {
                let step = Forgetting::Run {
                    run: run.place.run,
                    ended_before: query.ended_before,
                    verdicts_since: query.verdicts_since,
                    now,
                };
                self.take(step).await?;
            }
            gone += self.finish().await?;
        }
        let names = Forgetting::Names {
            forgotten_before: now - keep,
            limit: MAX_NAMES,
        };
        self.take(names).await?;
        Ok(gone)
    }

    /// Deletes what is left of runs that are forgotten. How many that were.
    async fn finish(&self) -> Result<usize, LedgerError> {
        let mut gone = 0;
        let mut half_gone: Vec<RunId> = Vec::new();
        loop {
            let left = self.ledger.find_half_gone(MAX_HALF_GONE).await?;
            let done = half_gone.iter().filter(|run| !left.contains(run)).count();
            metrics::counter!("regatta_runs_forgotten_total")
                .increment(u64::try_from(done).unwrap_or(u64::MAX));
            gone += done;
            if left.is_empty() {
                return Ok(gone);
            }
            half_gone = left;
            for run in &half_gone {
                let step = Forgetting::Events {
                    run: run.clone(),
                    limit: MAX_EVENTS,
                };
                self.take(step).await?;
            }
        }
    }

    /// Takes a step, then leaves the ledger to others.
    async fn take(&self, step: Forgetting) -> Result<(), LedgerError> {
        let begun = Instant::now();
        self.ledger.forget(step).await?;
        tokio::time::sleep(begun.elapsed() * REST).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
