//! How runs outlive a process: what is durable of one before it begins, and those that an earlier process left
//! open, which go on where they were or get an end that says why not.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::{StreamExt as _, stream};
use regatta_ledger::{Ledger, LedgerError, RunEnd, RunRecord, StoredEvent};
use regatta_model::{RunId, Timestamp, Verdict};
use regatta_wire::convert::duration_to_wire;
use regatta_wire::v1;
use regatta_wire::v1::run_event::Event;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::claims::Claim;
use super::{Active, MAX_ACTIVE_RUNS, RunRegistry, SubmitRunError};
use crate::runs::event;
use crate::runs::log::{RunLog, encode, now, read_stored};
use crate::runs::plan::Plan;
use crate::runs::record::new_run;
use crate::runs::recorded::Recorded;
use crate::status::with_sources;

/// How old a run may be that goes on: nobody waits for one that was forgotten.
const MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// How often in a row, and from the first of them on for how long, a run may be taken up without anything of it coming
/// to an end. One that brings the coordinator down must not do so for ever; one whose coordinator is stopped again and
/// again before an agent has come to anything has done nothing.
const MAX_VAIN_RESUMPTIONS: u32 = 20;
const MAX_VAIN: Duration = Duration::from_secs(5 * 60);
/// How often the end of a run that was not accepted is given to the ledger, and how long after one try comes the
/// next.
const ABANDON_ATTEMPTS: u32 = 60;
const ABANDON_PAUSE: Duration = Duration::from_secs(5);
/// How many such runs are tried again at a time. A ledger that is away for long fails whatever is submitted.
pub(in crate::runs) const MAX_ABANDONED_RUNS: usize = 100;

/// How many runs are taken up at once. Each has its events read, and its inputs looked for.
pub(in crate::runs) const MAX_RESUMPTIONS: usize = 8;
/// How long after one try to take a run up comes the next while the ledger fails, and after how many it is said again
/// that it does.
const RESUMPTION_PAUSE: Duration = Duration::from_secs(5);
const ATTEMPTS_PER_WARNING: u32 = 12;

/// Takes runs up, those that come first first, until there is nobody who would have them.
pub(super) async fn resume_all(registry: Weak<RunRegistry>, runs: Vec<RunRecord>) {
    let registry = &registry;
    let take_up = |record: RunRecord| async move {
        let run = record.new.run.clone();
        // What is stored of one run, whatever it is, is no reason to leave the others.
        let taking_up = tokio::spawn(resume_one(Weak::clone(registry), record));
        if let Err(error) = AbortOnDropHandle::new(taking_up).await {
            tracing::error!(%run, %error, "a run is left as it is");
        }
        if let Some(registry) = registry.upgrade() {
            registry.left_open.taken_up(&run);
        }
    };
    let runs = stream::iter(runs);
    runs.for_each_concurrent(MAX_RESUMPTIONS, take_up).await;
}

/// Takes a run up, however long the ledger fails.
async fn resume_one(registry: Weak<RunRegistry>, record: RunRecord) {
    let run = &record.new.run;
    for attempt in 0_u32.. {
        let Some(registry) = registry.upgrade() else {
            return;
        };
        let Err(error) = registry.resume(&record).await else {
            return;
        };
        drop(registry);
        if attempt.is_multiple_of(ATTEMPTS_PER_WARNING) {
            tracing::warn!(%run, %error, "a run could not be taken up yet");
        }
        tokio::time::sleep(RESUMPTION_PAUSE).await;
    }
}

impl RunRegistry {
    /// Goes on with a run that has no end, or gives it one.
    async fn resume(self: &Arc<Self>, record: &RunRecord) -> Result<(), LedgerError> {
        let (run, ledger) = (&record.new.run, &self.services.ledger);
        let mut recorded = match read(ledger.as_ref(), run).await {
            Ok(recorded) => recorded,
            // One run must not keep the others from going on.
            Err(error @ LedgerError::Corrupt { .. }) => {
                tracing::error!(%run, %error, "a run is left as it is: what is stored of it cannot be read");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if recorded.has_ended() {
            // It was given its end before, and the ledger's answer was lost.
            return Ok(());
        }
        let spec = match spec_to_resume(record, &recorded, now()) {
            Ok(spec) => spec,
            Err(why) => return give_up(ledger.as_ref(), run, &recorded, &why).await,
        };
        let log = RunLog::after(recorded.last_sequence(), run.clone(), Arc::clone(ledger));
        // Ahead of whatever may bring the coordinator down once more, so that it is counted.
        log.begin(Event::RunResumed(v1::RunResumed {})).await?;
        recorded.take(v1::RunEvent {
            sequence: recorded.last_sequence() + 1,
            time: None,
            event: Some(Event::RunResumed(v1::RunResumed {})),
        });
        let plan = match self.plan_to_resume(run, spec).await {
            Ok(plan) => plan,
            Err(why) => return give_up(ledger.as_ref(), run, &recorded, &why).await,
        };
        let cancel = CancellationToken::new();
        let active = Active {
            log: Arc::clone(&log),
            cancel: cancel.clone(),
        };
        if !self.admit(run, active, 0) {
            let why = format!("{MAX_ACTIVE_RUNS} others go on already");
            return give_up(ledger.as_ref(), run, &recorded, &why).await;
        }
        tracing::info!(%run, "a run of an earlier process goes on");
        self.spawn(run.clone(), plan, recorded, log, cancel);
        Ok(())
    }

    /// Makes durable that there is a run, and what it is to do; in one transaction if the ledger can.
    pub(super) async fn begin(
        &self,
        run: &RunId,
        plan: &Plan,
        log: &RunLog,
    ) -> Result<(), LedgerError> {
        let spec = Some(plan.spec.clone());
        let first = log.begin(Event::RunStarted(v1::RunStarted { spec }));
        let run = self.services.ledger.start_run(new_run(run, plan));
        tokio::try_join!(first, run).map(drop)
    }

    /// Ends a run that may have become durable though whoever submitted it was told that it has not. A ledger that
    /// fails is tried again in the background; if it goes on to fail, or there are too many such runs, the run ends
    /// after a restart.
    ///
    /// Nobody can submit it meanwhile: what begins anew must not be given the end of what did not.
    pub(super) async fn abandon(self: &Arc<Self>, claim: Claim) {
        let run = claim.run();
        if self.abandon_once(run).await {
            return;
        }
        let Ok(turn) = Arc::clone(&self.abandoned).try_acquire_owned() else {
            tracing::warn!(
                %run,
                "{MAX_ABANDONED_RUNS} runs that were not accepted wait for the ledger already: if this one was \
                 stored, it ends after a restart"
            );
            return;
        };
        let registry = Arc::clone(self);
        tokio::spawn(async move {
            let _turn = turn;
            for _ in 1..ABANDON_ATTEMPTS {
                tokio::time::sleep(ABANDON_PAUSE).await;
                if registry.abandon_once(claim.run()).await {
                    return;
                }
            }
        });
    }

    /// Whether it has ended.
    async fn abandon_once(&self, run: &RunId) -> bool {
        let ended = self.close_abandoned(run).await;
        if let Err(error) = &ended {
            tracing::warn!(%run, %error, "a run that was not accepted could not be ended");
        }
        ended.unwrap_or(false)
    }

    async fn close_abandoned(&self, run: &RunId) -> Result<bool, LedgerError> {
        let reason =
            "the ledger failed while the run was submitted: it never began; submit it again";
        let ledger = self.services.ledger.as_ref();
        // Its first event may be durable or not, and the last follows what is.
        let recorded = read(ledger, run).await?;
        if !recorded.has_ended() {
            close(ledger, run, &recorded, true, reason.to_owned()).await?;
        }
        // What was still on its way may have got ahead of the end.
        Ok(recorded.has_ended() || read(ledger, run).await?.has_ended())
    }

    async fn plan_to_resume(&self, run: &RunId, spec: v1::RunSpec) -> Result<Plan, String> {
        let plan =
            Plan::new(spec, &self.services.defaults).map_err(|error| with_sources(&error))?;
        match self.check_inputs(&plan).await {
            // A store that does not answer just now says nothing of what it has.
            Err(SubmitRunError::Inputs(error)) => {
                tracing::warn!(%run, %error, "a run goes on though its inputs could not be checked");
                Ok(plan)
            }
            checked => checked.map(|()| plan).map_err(|error| with_sources(&error)),
        }
    }
}

/// What is recorded of a run.
async fn read(ledger: &dyn Ledger, run: &RunId) -> Result<Recorded, LedgerError> {
    let mut recorded = Recorded::of(run);
    loop {
        let events = read_stored(ledger, run, recorded.last_sequence()).await?;
        if events.is_empty() {
            return Ok(recorded);
        }
        for event in events {
            recorded.take(event);
        }
    }
}

/// What a run that was left open is to do, if it may go on.
///
/// # Errors
/// Why it may not, for people.
fn spec_to_resume(
    record: &RunRecord,
    recorded: &Recorded,
    now: Timestamp,
) -> Result<v1::RunSpec, String> {
    if now.since(record.new.submitted_at) > MAX_AGE {
        let hours = MAX_AGE.as_secs() / 3600;
        return Err(format!("it is more than {hours} hours old"));
    }
    let vain = recorded.resumed_in_vain();
    if vain.count >= MAX_VAIN_RESUMPTIONS && now.since(vain.since) >= MAX_VAIN {
        return Err(format!(
            "the coordinator was restarted {} times in a row without anything of it coming to an end",
            vain.count
        ));
    }
    let spec = recorded.spec().cloned();
    spec.ok_or_else(|| "what it was to do was not stored".to_owned())
}

/// Gives a run that cannot go on its end. What passed in it is in the action cache.
async fn give_up(
    ledger: &dyn Ledger,
    run: &RunId,
    recorded: &Recorded,
    why: &str,
) -> Result<(), LedgerError> {
    tracing::warn!(%run, why, "a run of an earlier process cannot go on; it gets an end");
    let reason = format!(
        "the coordinator was restarted during the run, which cannot go on: {why}; submit it again: what \
         passed is known"
    );
    let never_began = recorded.spec().is_none();
    close(ledger, run, recorded, never_began, reason).await
}

/// Ends a run without an answer.
async fn close(
    ledger: &dyn Ledger,
    run: &RunId,
    recorded: &Recorded,
    never_began: bool,
    reason: String,
) -> Result<(), LedgerError> {
    let counts = recorded.counts();
    let finished = Event::RunFinished(v1::RunFinished {
        verdict: v1::Verdict::Unknown.into(),
        reasons: vec![reason],
        counts: Some(event::counts(&counts)),
        cancelled: recorded.is_cancelled(),
        never_began,
        duration: recorded
            .begun_at()
            .map(|begun| duration_to_wire(now().since(begun))),
        // How many there were nobody knows; that there were any is recorded.
        leases: u64::from(recorded.has_executed() || !recorded.leased().is_empty()),
        times: None,
    });
    let sequence = recorded.last_sequence() + 1;
    let stored = StoredEvent {
        sequence,
        bytes: encode(sequence, finished),
        teaches: None,
    };
    let end = RunEnd {
        finished_at: now(),
        verdict: Verdict::Unknown,
        counts,
        times: None,
    };
    ledger.append_events(run, vec![stored], Some(end)).await
}

#[cfg(test)]
mod tests {
    use regatta_ledger::{MemoryLedger, NewRun};
    use regatta_wire::convert::timestamp_to_wire;

    use super::*;

    fn events(count: u32, event: &Event) -> Recorded {
        let started = Event::RunStarted(v1::RunStarted {
            spec: Some(v1::RunSpec::default()),
        });
        let all = std::iter::once(started).chain((0..count).map(|_| event.clone()));
        let mut recorded = Recorded::default();
        for (sequence, event) in (1..).zip(all) {
            recorded.take(v1::RunEvent {
                sequence,
                time: None,
                event: Some(event),
            });
        }
        recorded
    }

    #[track_caller]
    fn check(recorded: &Recorded, age: Duration, expected: Result<(), &str>) {
        let submitted_at = Timestamp::EPOCH;
        let record = RunRecord {
            new: NewRun {
                run: "r".parse().expect("is an id"),
                tenant: "".parse().expect("is a name"),
                description: String::new(),
                commit: String::new(),
                branch: String::new(),
                submitted_at,
                committed_at: None,
            },
            end: None,
            ended: None,
        };
        match (
            spec_to_resume(&record, recorded, submitted_at + age),
            expected,
        ) {
            (Ok(_), Ok(())) => {}
            (Err(reason), Err(part)) => assert!(reason.contains(part), "{reason}"),
            (found, _) => panic!("{found:?}"),
        }
    }

    #[tokio::test]
    async fn the_end_of_a_run_that_is_given_up_says_how_long_it_took_and_that_it_had_leases() {
        let ledger = MemoryLedger::new();
        let began = Timestamp::from_nanos(now().as_nanos() - 90_000_000_000);
        for (name, has_leases, expected) in [("a", false, 0), ("b", true, 1)] {
            let run: RunId = name.parse().expect("is an id");
            let mut recorded = Recorded::default();
            let leased = Event::JobLeased(v1::JobLeased {
                job: "a".to_owned(),
            });
            let started = Event::RunStarted(v1::RunStarted {
                spec: Some(v1::RunSpec::default()),
            });
            let events = [Some(started), has_leases.then_some(leased)];
            for (sequence, event) in (1..).zip(events.into_iter().flatten()) {
                recorded.take(v1::RunEvent {
                    sequence,
                    time: Some(timestamp_to_wire(began)),
                    event: Some(event),
                });
            }
            let last = recorded.last_sequence();
            let closed = close(&ledger, &run, &recorded, false, "why".to_owned()).await;
            closed.expect("is stored");
            let events = read_stored(&ledger, &run, last).await.expect("reads");
            let Some(Event::RunFinished(end)) = events[0].event.clone() else {
                panic!("{events:?}");
            };
            let duration = end.duration.expect("is told");
            assert_eq!(end.leases, expected);
            assert!((90..120).contains(&duration.seconds), "{duration:?}");
        }
    }

    #[test]
    fn a_run_goes_on_unless_it_is_old_or_brings_the_coordinator_down() {
        let resumed = Event::RunResumed(v1::RunResumed {});
        let minute = Duration::from_secs(60);
        check(&events(0, &resumed), minute, Ok(()));
        check(&events(19, &resumed), minute, Ok(()));
        check(&events(20, &resumed), 4 * minute, Ok(()));
        check(&events(19, &resumed), 5 * minute, Ok(()));
        check(&events(20, &resumed), 5 * minute, Err("20 times in a row"));
        check(&events(0, &resumed), 60 * 25 * minute, Err("24 hours old"));
        check(&Recorded::default(), minute, Err("was not stored"));
    }
}
