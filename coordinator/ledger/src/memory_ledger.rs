//! A ledger that forgets when it is dropped.

mod forgetting;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use regatta_model::{Digest, RunId, TenantId, Timestamp};

use self::forgetting::Forgotten;
use crate::history::{MAX_PLACES, moved};
use crate::{
    Forgetting, ForgottenSubject, GivenVerdict, KeptBlob, KnownTest, Ledger, LedgerError,
    NamedArtefact, NewRun, OldRun, OldRunsQuery, Place, RunEnd, RunQuery, RunRecord, StoredEvent,
    SuiteKnowledge, SuiteObservation, TestHistory, TestObservation, Timing, VerdictQuery,
};

/// A ledger in memory, for tests: it is not bounded.
#[derive(Debug, Default)]
pub struct MemoryLedger {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    runs: Vec<RunRecord>,
    /// Runs that were known.
    forgotten: BTreeMap<RunId, Forgotten>,
    /// The runs that verdicts name.
    named: BTreeMap<(TenantId, Digest), BTreeSet<RunId>>,
    events: BTreeMap<RunId, BTreeMap<u64, StoredEvent>>,
    history: BTreeMap<TestKey, TestHistory>,
    timings: BTreeMap<TestKey, BTreeMap<Place, (Timing, Timestamp)>>,
    overheads: BTreeMap<(TenantId, String), Duration>,
    verdicts: BTreeMap<(TenantId, Digest), (GivenVerdict, Vec<NamedArtefact>)>,
    reserved: u64,
}

/// The tenant, the suite and the test.
type TestKey = (TenantId, String, String);

impl State {
    /// Adds an event, and learns what it teaches, unless the run has it.
    fn append(&mut self, run: &RunId, event: StoredEvent) {
        if self.forgotten.contains_key(run) {
            return;
        }
        let known = self.events.entry(run.clone()).or_default();
        if let Entry::Vacant(place) = known.entry(event.sequence) {
            let StoredEvent {
                sequence,
                bytes,
                teaches,
            } = event;
            place.insert(StoredEvent {
                sequence,
                bytes,
                teaches: None,
            });
            if let Some(seen) = teaches {
                self.observe_suite(&seen);
            }
        }
    }

    fn observe_suite(&mut self, seen: &SuiteObservation) {
        for test in &seen.tests {
            let key = (seen.tenant.clone(), seen.suite.clone(), test.test.clone());
            self.observe(key, &seen.place, test);
        }
        if let Some(overhead) = seen.batch_overhead {
            let key = (seen.tenant.clone(), seen.suite.clone());
            let known = self.overheads.entry(key);
            known
                .and_modify(|mean| *mean = moved(*mean, overhead))
                .or_insert(overhead);
        }
    }

    fn observe(&mut self, key: TestKey, place: &Place, seen: &TestObservation) {
        let timings = self.timings.entry(key.clone()).or_default();
        learn_timing(timings, place.of_any_branch(), seen);
        if !place.branch.is_empty() {
            learn_timing(timings, place.clone(), seen);
        }
        while timings.len() > MAX_PLACES {
            let oldest = timings.iter().min_by_key(|(_, (_, last_run))| *last_run);
            let Some(oldest) = oldest.map(|(place, _)| place.clone()) else {
                break;
            };
            timings.remove(&oldest);
        }
        let suite = key.1.clone();
        self.history
            .entry(key)
            .and_modify(|known| known.learn(seen))
            .or_insert_with(|| TestHistory::begin(&suite, seen));
    }
}

fn learn_timing(
    timings: &mut BTreeMap<Place, (Timing, Timestamp)>,
    place: Place,
    seen: &TestObservation,
) {
    timings
        .entry(place)
        .and_modify(|(timing, last_run)| {
            timing.learn(seen.duration);
            *last_run = seen.finished_at.max(*last_run);
        })
        .or_insert_with(|| (Timing::begin(seen.duration), seen.finished_at));
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

fn is_asked_for(query: &VerdictQuery, given: &GivenVerdict) -> bool {
    let VerdictQuery {
        tenant,
        commit,
        run,
        bundle,
        limit: _,
    } = query;
    tenant.as_ref().is_none_or(|it| *it == given.tenant)
        && commit.as_ref().is_none_or(|it| *it == given.commit)
        && run.as_ref().is_none_or(|it| *it == given.run)
        && bundle.is_none_or(|it| it == given.bundle)
}

#[async_trait]
impl Ledger for MemoryLedger {
    async fn start_run(&self, run: NewRun) -> Result<(), LedgerError> {
        let mut state = self.lock();
        let is_known = state.runs.iter().any(|known| known.new.run == run.run);
        if !is_known && !state.forgotten.contains_key(&run.run) {
            state.runs.push(RunRecord {
                new: run,
                end: None,
                ended: None,
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
        for event in events {
            state.append(run, event);
        }
        let ended = state.last_ended();
        let record = state.runs.iter_mut().find(|record| record.new.run == *run);
        if let Some(record) = record.filter(|record| record.end.is_none() && end.is_some()) {
            record.end = end;
            record.ended = Some(ended.unwrap_or_default() + 1);
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
        let events = state.events.get(run);
        let events = events.filter(|_| !state.forgotten.contains_key(run));
        let events = events.into_iter().flatten();
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

    async fn find_old_runs(&self, query: OldRunsQuery) -> Result<Vec<OldRun>, LedgerError> {
        Ok(self.lock().find_old_runs(&query))
    }

    async fn forget(&self, step: Forgetting) -> Result<(), LedgerError> {
        self.lock().forget(step);
        Ok(())
    }

    async fn find_half_gone(&self, limit: usize) -> Result<Vec<RunId>, LedgerError> {
        let state = self.lock();
        let half_gone = state.forgotten.iter().filter(|(_, it)| it.is_half_gone);
        Ok(half_gone.map(|(run, _)| run.clone()).take(limit).collect())
    }

    async fn is_forgotten(&self, subject: ForgottenSubject) -> Result<bool, LedgerError> {
        let state = self.lock();
        Ok(match subject {
            ForgottenSubject::Run(run) => state.forgotten.contains_key(&run),
            ForgottenSubject::Commit(tenant, commit) => {
                let mut forgotten = state.forgotten.values();
                forgotten.any(|it| it.tenant == tenant && it.commit == commit)
            }
        })
    }

    async fn observe_suite(&self, seen: SuiteObservation) -> Result<(), LedgerError> {
        self.lock().observe_suite(&seen);
        Ok(())
    }

    async fn read_suite(
        &self,
        tenant: &TenantId,
        suite: &str,
        place: &Place,
    ) -> Result<SuiteKnowledge, LedgerError> {
        let state = self.lock();
        let of_suite = state
            .history
            .iter()
            .filter(|((owner, name, _), _)| owner == tenant && name == suite);
        let tests = of_suite.map(|(key, history)| {
            let timings = state.timings.get(key);
            let there = timings.and_then(|it| it.get(place));
            let with_image = || timings.and_then(|it| it.get(&place.of_any_branch()));
            KnownTest {
                test: history.test.clone(),
                timing: there
                    .or_else(with_image)
                    .map_or(history.timing, |(timing, _)| *timing),
                last_failure: history.last_failure,
                last_key: history.last_key,
                last_input_root: history.last_input_root,
                last_failed_key: history.last_failed_key,
            }
        });
        let key = (tenant.clone(), suite.to_owned());
        Ok(SuiteKnowledge {
            tests: tests.collect(),
            batch_overhead: state.overheads.get(&key).copied(),
        })
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

    async fn keep_verdict(
        &self,
        given: GivenVerdict,
        artefacts: Vec<NamedArtefact>,
        runs: Vec<RunId>,
    ) -> Result<(), LedgerError> {
        let mut state = self.lock();
        if state.forgotten.contains_key(&given.run) {
            return Ok(());
        }
        let named = state.named.entry((given.tenant.clone(), given.bundle));
        let named = named.or_default();
        named.extend(runs.into_iter().chain([given.run.clone()]));
        let known = state.verdicts.entry((given.tenant.clone(), given.bundle));
        let last_given_at = given.last_given_at;
        known
            .and_modify(|(known, _)| known.last_given_at = known.last_given_at.max(last_given_at))
            .or_insert((given, artefacts));
        Ok(())
    }

    async fn find_verdicts(&self, query: VerdictQuery) -> Result<Vec<GivenVerdict>, LedgerError> {
        let state = self.lock();
        let all = state.verdicts.values().map(|(given, _)| given);
        let mut found: Vec<_> = all.filter(|given| is_asked_for(&query, given)).collect();
        found.sort_by_key(|it| {
            let last = std::cmp::Reverse(it.last_given_at);
            (last, it.tenant.clone(), it.bundle.to_string())
        });
        Ok(found.into_iter().take(query.limit).cloned().collect())
    }

    async fn read_kept_blobs(
        &self,
        since: Timestamp,
        limit: usize,
    ) -> Result<Vec<KeptBlob>, LedgerError> {
        let state = self.lock();
        let mut kept: BTreeMap<(TenantId, Digest), KeptBlob> = BTreeMap::new();
        let given = state.verdicts.values();
        for (given, artefacts) in given.filter(|(given, _)| given.last_given_at >= since) {
            let named = artefacts.iter().map(|it| (it.digest, it.is_tree));
            for (digest, is_tree) in named.chain([(given.bundle, false)]) {
                let (tenant, last_given_at) = (given.tenant.clone(), given.last_given_at);
                let blob = kept.entry((tenant.clone(), digest)).or_insert(KeptBlob {
                    tenant,
                    digest,
                    is_tree,
                    last_given_at,
                });
                blob.is_tree |= is_tree;
                blob.last_given_at = blob.last_given_at.max(last_given_at);
            }
        }
        let mut kept: Vec<_> = kept.into_values().collect();
        kept.sort_by_key(|it| {
            let last = std::cmp::Reverse(it.last_given_at);
            (last, it.tenant.clone(), it.digest.to_string())
        });
        kept.truncate(limit);
        Ok(kept)
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
