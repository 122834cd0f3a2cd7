//! Reads the events of the runs that somebody asks for, and has it learnt what they teach.

use std::time::Duration;

use regatta_ledger::{Ledger, LedgerError, RunQuery, StoredEvent, TestHistory};
use regatta_model::{TenantId, Timestamp};

use super::counting::{Counting, Page};
use crate::apart::apart;
use crate::runs::{MAX_LIST, now};

/// Of which runs it is asked what they show.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Scope {
    pub(super) tenant: TenantId,
    /// Of one suite alone.
    pub(super) suite: Option<String>,
    pub(super) branch: Option<String>,
    /// When they were submitted at the earliest.
    pub(super) since: Option<Timestamp>,
}

/// What they show.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Shown {
    /// By suite, then by id.
    pub(super) tests: Vec<TestHistory>,
    pub(super) runs: usize,
    /// Since when all runs are among those that are looked at, if not all ever.
    pub(super) complete_since: Option<Timestamp>,
    /// What could not be read.
    pub(super) damage: Vec<String>,
}

/// Why it is not known.
#[derive(Debug, thiserror::Error)]
pub(super) enum CountError {
    /// See the source.
    #[error("the events of runs cannot be read")]
    Ledger(#[from] LedgerError),
    /// A bug. Report it.
    #[error("counting tests has failed; report this")]
    Panicked(#[from] tokio::task::JoinError),
}

/// What runs show, which are kept for so long after they ended, or for ever. Whoever goes away meanwhile ends it with
/// the page that is being read.
///
/// # Errors
/// [`CountError`].
pub(super) async fn count(
    ledger: &dyn Ledger,
    scope: &Scope,
    kept: Option<Duration>,
) -> Result<Shown, CountError> {
    let query = RunQuery {
        tenant: Some(scope.tenant.clone()),
        limit: MAX_LIST,
        ..RunQuery::default()
    };
    let mut runs = ledger.find_runs(query).await?;
    let oldest = runs.last().filter(|_| runs.len() >= MAX_LIST);
    let oldest = oldest.map(|run| run.new.submitted_at);
    let complete_since = oldest.max(kept.map(|kept| before(now(), kept)));
    runs.retain(|run| {
        let is_of = |branch: &String| *branch == run.new.branch;
        let is_since = |since| run.new.submitted_at >= since;
        scope.branch.as_ref().is_none_or(is_of) && scope.since.is_none_or(is_since)
    });
    let count = runs.len();
    let counting = learn(ledger, Counting::new(runs, scope.suite.clone())).await?;
    let (tests, damage) = counting.finish();
    Ok(Shown {
        tests,
        runs: count,
        complete_since,
        damage,
    })
}

async fn learn(ledger: &dyn Ledger, mut counting: Counting) -> Result<Counting, CountError> {
    let mut read: Option<(Page, Vec<StoredEvent>)> = None;
    loop {
        let (so_far, missing) = apart(move || {
            if let Some((page, events)) = read {
                counting.take(&page, &events);
            }
            let missing = counting.go_on();
            (counting, missing)
        })
        .await?;
        counting = so_far;
        let Some(page) = missing else {
            return Ok(counting);
        };
        read = match ledger.read_events(&page.run, page.after, page.limit).await {
            Ok(events) => Some((page, events)),
            Err(LedgerError::Corrupt { detail }) => {
                counting.give_up(&page, &detail);
                None
            }
            Err(error) => return Err(error.into()),
        };
    }
}

fn before(time: Timestamp, duration: Duration) -> Timestamp {
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    Timestamp::from_nanos(time.as_nanos().saturating_sub(nanos))
}

#[cfg(test)]
mod tests;
