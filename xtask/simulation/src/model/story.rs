//! The story of a run: what its events say together.

use std::collections::{BTreeMap, BTreeSet};

use regatta_wire::v1;
use regatta_wire::v1::run_event::Event;

use crate::job::Kind;
use crate::plan::RunPlan;
use crate::violation::{Checked, Invariant};

/// What a watcher has seen of a run.
#[derive(Debug, Default)]
pub(crate) struct Story {
    pub(crate) events: Vec<v1::RunEvent>,
    told: BTreeSet<(String, String)>,
    ended_jobs: BTreeSet<String>,
    pub(crate) has_ended: bool,
}

impl Story {
    pub(crate) fn last(&self) -> u64 {
        self.events.last().map_or(0, |event| event.sequence)
    }

    /// The next event comes.
    pub(crate) fn take(&mut self, event: v1::RunEvent) -> Checked {
        let (expected, found) = (self.last() + 1, event.sequence);
        Invariant::WhatWasSeenStays.holds(expected == found, || {
            format!("event {found} comes where {expected} is next")
        })?;
        Invariant::EachTestCountedOnce.holds(!self.has_ended, || {
            format!("an event follows the end of the run: {event:?}")
        })?;
        match &event.event {
            Some(Event::TestsFinished(finished)) => {
                for result in finished.results.iter().filter(|it| !it.is_audit) {
                    self.tell(result)?;
                }
            }
            Some(Event::JobFinished(finished)) => {
                let is_new = self.ended_jobs.insert(finished.job.clone());
                Invariant::EachTestCountedOnce
                    .holds(is_new, || format!("{} ends twice", finished.job))?;
            }
            Some(Event::RunFinished(_)) => self.has_ended = true,
            _ => {}
        }
        self.events.push(event);
        Ok(())
    }

    fn tell(&mut self, result: &v1::TestResult) -> Checked {
        let name = (result.job.clone(), result.test_id.clone());
        let is_new = self.told.insert(name);
        Invariant::EachTestCountedOnce.holds(is_new, || {
            format!("{} of {} has two results", result.test_id, result.job)
        })
    }
}

/// Checks a run that has ended, by everything that is stored of it.
pub(crate) fn check_whole(plan: Option<&RunPlan>, story: &Story) -> Checked {
    let mut results: BTreeMap<(&str, &str), v1::TestStatus> = BTreeMap::new();
    let mut corrected: BTreeMap<(&str, &str), v1::TestStatus> = BTreeMap::new();
    let mut jobs: BTreeMap<&str, &v1::JobFinished> = BTreeMap::new();
    let mut end = None;
    for event in &story.events {
        match &event.event {
            Some(Event::TestsFinished(finished)) => {
                for result in &finished.results {
                    let name = (result.job.as_str(), result.test_id.as_str());
                    let list = if result.is_audit {
                        &mut corrected
                    } else {
                        &mut results
                    };
                    // A machine that was lost says nothing of its test.
                    let is_lost = result.failure_class() == v1::FailureClass::Infra;
                    let status = match result.status() {
                        v1::TestStatus::Failed if is_lost => v1::TestStatus::NotRun,
                        status => status,
                    };
                    list.insert(name, status);
                }
            }
            Some(Event::JobFinished(finished)) => {
                jobs.insert(&finished.job, finished);
            }
            Some(Event::RunFinished(finished)) => end = Some(finished),
            _ => {}
        }
    }
    results.extend(corrected);
    let Some(end) = end else {
        return Err(Invariant::EveryRunEnds.violated("a run's events have no end".to_owned()));
    };
    let given_up = end.verdict() == v1::Verdict::Unknown && jobs.is_empty();
    let counts = end.counts.unwrap_or_default();
    check_counts(&counts, &results, end)?;
    for (job, finished) in &jobs {
        let told: Vec<_> = results.iter().filter(|((of, _), _)| of == job).collect();
        let planned = finished.counts.unwrap_or_default().planned;
        let tests = plan.and_then(|plan| plan.suites.get(*job));
        if let Some(tests) = tests.filter(|_| planned > 0) {
            let known = told
                .iter()
                .all(|((_, test), _)| tests.iter().any(|it| it == test));
            // Those that were not reached before a restart, and need not be after it, are counted alone.
            let reached = told.iter().filter(|(_, it)| **it != v1::TestStatus::NotRun);
            let counted = finished.counts.unwrap_or_default().not_run;
            let all = usize::try_from(planned) == Ok(tests.len())
                && usize::try_from(counted) == Ok(tests.len() - reached.count());
            Invariant::EachTestCountedOnce.holds(known && all, || {
                format!(
                    "{job} has {} tests, plans {planned} and tells of {told:?}",
                    tests.len()
                )
            })?;
        }
        let is_suite = tests.is_some();
        let must_plan = is_suite && finished.status() == v1::JobStatus::Passed;
        Invariant::EachTestCountedOnce.holds(!must_plan || planned > 0, || {
            format!("{job} has passed without a test")
        })?;
    }
    check_verdict(end, &results, given_up)?;
    plan.filter(|plan| plan.is_calm)
        .map_or(Ok(()), |plan| check_calm(plan, end))
}

/// Without any fault, the tests alone decide.
fn check_calm(plan: &RunPlan, end: &v1::RunFinished) -> Checked {
    let tests = || plan.suites.values().flatten();
    let has = |kind: Kind| tests().any(|test| Kind::of(test) == kind);
    let expected = match (has(Kind::Fails), has(Kind::Wavers) || has(Kind::Hangs)) {
        (true, _) => v1::Verdict::NotReleasable,
        (false, false) => v1::Verdict::Releasable,
        (false, true) => return Ok(()),
    };
    let holds = plan.cancel_after.is_some() || end.verdict() == expected;
    Invariant::ResultsAreTrue.holds(holds, || {
        format!("nothing was amiss, and the run should be {expected:?}: {end:?}")
    })
}

fn check_counts(
    counts: &v1::Counts,
    results: &BTreeMap<(&str, &str), v1::TestStatus>,
    end: &v1::RunFinished,
) -> Checked {
    let count = |status: v1::TestStatus| {
        let found = results.values().filter(|it| **it == status).count();
        u32::try_from(found).unwrap_or(u32::MAX)
    };
    use v1::TestStatus as Status;
    let told = [
        (count(Status::Passed), counts.passed),
        (count(Status::Flaky), counts.flaky),
        (count(Status::Failed), counts.failed),
        (count(Status::Cached), counts.cached),
        (count(Status::Skipped), counts.skipped),
        (count(Status::Quarantined), counts.quarantined),
    ];
    let sum = told.iter().map(|(_, counted)| counted).sum::<u32>() + counts.not_run;
    let holds = told.iter().all(|(told, counted)| told == counted)
        && sum == counts.planned
        && counts.not_run >= count(Status::NotRun);
    Invariant::EachTestCountedOnce.holds(holds, || {
        format!("a run tells of {results:?} and ends with {end:?}")
    })
}

fn check_verdict(
    end: &v1::RunFinished,
    results: &BTreeMap<(&str, &str), v1::TestStatus>,
    given_up: bool,
) -> Checked {
    use v1::TestStatus as Status;
    let good = [
        Status::Passed,
        Status::Flaky,
        Status::Cached,
        Status::Skipped,
    ];
    let all_good = results.values().all(|status| good.contains(status));
    let is_wrong = end.verdict() == v1::Verdict::Releasable && (!all_good || given_up);
    Invariant::ResultsAreTrue.holds(!is_wrong, || format!("{results:?} is called releasable"))
}
