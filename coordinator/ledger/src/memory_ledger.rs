//! A ledger that forgets when it is dropped.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use regatta_model::{RunId, TenantId};

use crate::{
    Ledger, LedgerError, NewRun, RunEnd, RunQuery, RunRecord, StoredEvent, TestHistory,
    TestObservation,
};

/// A ledger in memory, for tests: it is not bounded.
#[derive(Debug, Default)]
pub struct MemoryLedger {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    runs: Vec<RunRecord>,
    events: BTreeMap<RunId, BTreeMap<u64, StoredEvent>>,
    history: BTreeMap<(TenantId, String, String), TestHistory>,
    reserved: u64,
}

impl MemoryLedger {
    /// An empty ledger.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wanted(query: &RunQuery, record: &RunRecord) -> bool {
    query.run.as_ref().is_none_or(|run| *run == record.new.run)
        && query
            .tenant
            .as_ref()
            .is_none_or(|tenant| *tenant == record.new.tenant)
        && query
            .commit
            .as_ref()
            .is_none_or(|commit| *commit == record.new.commit)
        && !(query.active_only && record.end.is_some())
}

#[async_trait]
impl Ledger for MemoryLedger {
    async fn start_run(&self, run: NewRun) -> Result<(), LedgerError> {
        let mut state = self.lock();
        if !state.runs.iter().any(|known| known.new.run == run.run) {
            state.runs.push(RunRecord {
                new: run,
                end: None,
            });
        }
        Ok(())
    }

    async fn append_events(
        &self,
        run: &RunId,
        events: Vec<StoredEvent>,
        end: Option<RunEnd>,
    ) -> Result<(), LedgerError> {
        let mut state = self.lock();
        let known = state.events.entry(run.clone()).or_default();
        for event in events {
            known.entry(event.sequence).or_insert(event);
        }
        if let Some(record) = state.runs.iter_mut().find(|record| record.new.run == *run) {
            record.end = record.end.or(end);
        }
        Ok(())
    }

    async fn read_events(
        &self,
        run: &RunId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<StoredEvent>, LedgerError> {
        let state = self.lock();
        let events = state.events.get(run).into_iter().flatten();
        let later = events
            .map(|(_, event)| event)
            .filter(|event| event.sequence > after);
        Ok(later.take(limit).cloned().collect())
    }

    async fn find_runs(&self, query: RunQuery) -> Result<Vec<RunRecord>, LedgerError> {
        let state = self.lock();
        let mut found: Vec<_> = state
            .runs
            .iter()
            .rev()
            .filter(|record| wanted(&query, record))
            .cloned()
            .collect();
        found.sort_by_key(|record| std::cmp::Reverse(record.new.submitted_at));
        found.truncate(query.limit);
        Ok(found)
    }

    async fn observe_tests(&self, observations: Vec<TestObservation>) -> Result<(), LedgerError> {
        let mut state = self.lock();
        for seen in observations {
            let key = (seen.tenant.clone(), seen.suite.clone(), seen.test.clone());
            if let Some(known) = state.history.get_mut(&key) {
                known.learn(seen);
            } else {
                state.history.insert(key, TestHistory::begin(seen));
            }
        }
        Ok(())
    }

    async fn read_history(
        &self,
        tenant: &TenantId,
        suite: Option<&str>,
    ) -> Result<Vec<TestHistory>, LedgerError> {
        let state = self.lock();
        let of_tenant = state
            .history
            .iter()
            .filter(|((owner, _, _), _)| owner == tenant);
        let wanted = of_tenant.filter(|((_, name, _), _)| suite.is_none_or(|suite| suite == name));
        Ok(wanted.map(|(_, history)| history.clone()).collect())
    }

    async fn reserve_tokens(&self, last: u64) -> Result<(), LedgerError> {
        let mut state = self.lock();
        state.reserved = state.reserved.max(last);
        Ok(())
    }

    async fn reserved_tokens(&self) -> Result<u64, LedgerError> {
        Ok(self.lock().reserved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_passes_the_suite() {
        crate::conformance::check(&MemoryLedger::new()).await;
    }
}
