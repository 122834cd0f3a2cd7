//! The events of one run: numbered, kept, and told to whoever watches.
//!
//! Events become durable in the background, many in one transaction, and are seen once they are: whoever
//! watches a run across a restart of the coordinator must not have seen what the ledger does not know, or
//! the numbers of what follows would be taken. In memory stay those that are not durable yet and a tail of
//! bounded size; whoever is further behind reads from the ledger.
//!
//! While a ledger cannot store, the run waits as soon as much has happened in it, and after [`STORE_PATIENCE`] whoever
//! reads on is told why there is nothing. The events go on to be offered to the ledger. If the process ends first, as it
//! does by itself after [`LEDGER_PATIENCE`], its successor goes on with what is durable, which is all that was seen.

mod progress;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use prost::Message as _;
use regatta_ledger::{Ledger, LedgerError, RunEnd, StoredEvent, SuiteObservation};
use regatta_model::{RunId, Timestamp};
use regatta_wire::convert::timestamp_to_wire;
use regatta_wire::v1;
use regatta_wire::v1::run_event::Event;
use tokio::sync::watch;
use tokio::time::Instant;

use self::progress::Progress;
use super::registry::FindRunError;
use crate::ledger::LEDGER_PATIENCE;

/// Events that are kept in memory once they are durable.
const MAX_RECENT_EVENTS: usize = 1024;
/// And how many bytes of them.
const MAX_RECENT_BYTES: usize = 2 << 20;
/// Events that become durable together.
const MAX_STORED_TOGETHER: usize = 512;
/// How long to wait before a ledger that failed is tried again.
const STORE_RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How long a ledger is tried before whoever watches the run is told why nothing comes.
const STORE_PATIENCE: Duration = Duration::from_secs(10);
/// Events that are read together.
pub(super) const MAX_READ_TOGETHER: usize = 256;

/// The log of a run that has not ended, or has just ended.
#[derive(Debug)]
pub(super) struct RunLog {
    run: RunId,
    ledger: Arc<dyn Ledger>,
    state: Mutex<State>,
    progress: watch::Sender<Progress>,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<StoredEvent>,
    bytes: usize,
    end: Option<RunEnd>,
    /// Why the ledger did not store what it was last given; `None` if it did.
    trouble: Option<LedgerError>,
    /// Why it did not when it had first failed for longer than runs wait.
    failure: Option<LedgerError>,
}

impl RunLog {
    pub(super) fn new(run: RunId, ledger: Arc<dyn Ledger>) -> Arc<Self> {
        Self::after(0, run, ledger)
    }

    /// The log of a run that has this many events, all of them stored.
    pub(super) fn after(last: u64, run: RunId, ledger: Arc<dyn Ledger>) -> Arc<Self> {
        let progress = watch::Sender::new(Progress {
            last,
            stored: last,
            ..Progress::default()
        });
        Arc::new(Self {
            run,
            ledger,
            state: Mutex::default(),
            progress,
        })
    }

    /// Stores a run's first event, or the first since a restart. Nobody is told of a run before what it is to do
    /// is durable: else it could not go on after a restart.
    pub(super) async fn begin(&self, event: Event) -> Result<(), LedgerError> {
        self.append(event);
        let (first, _) = self.unstored(0);
        self.ledger.append_events(&self.run, first, None).await?;
        self.progress.send_modify(|progress| {
            progress.stored = progress.last;
            progress.unstored_bytes = 0;
        });
        Ok(())
    }

    /// Adds an event, without waiting.
    pub(super) fn append(&self, event: Event) {
        self.add(event, None);
    }

    /// Adds an event of this time with what the ledger is to learn when it is durable, without waiting.
    pub(super) fn append_teaching(&self, time: Timestamp, event: Event, seen: SuiteObservation) {
        self.add_at(time, event, Some(seen), None);
    }

    /// Adds an event at once. What is returned waits until it is durable.
    ///
    /// # Errors
    /// [`FindRunError::NotDurable`]: the ledger has failed for too long. It may become durable yet.
    pub(super) fn append_durably(
        self: &Arc<Self>,
        event: Event,
    ) -> impl Future<Output = Result<(), FindRunError>> + Send + use<> {
        let sequence = self.add(event, None);
        let log = Arc::clone(self);
        async move { log.visible_after(sequence - 1).await.map(drop) }
    }

    /// Adds the last event. Whatever follows is dropped.
    pub(super) fn finish(&self, event: Event, end: RunEnd) {
        self.add(event, Some(end));
    }

    fn add(&self, event: Event, end: Option<RunEnd>) -> u64 {
        self.add_at(now(), event, None, end)
    }

    /// Adds an event, unless the last one has been added. The sequence number of the event that is now last.
    fn add_at(
        &self,
        time: Timestamp,
        event: Event,
        seen: Option<SuiteObservation>,
        end: Option<RunEnd>,
    ) -> u64 {
        let mut state = self.lock();
        if state.end.is_some() {
            return self.progress.borrow().last;
        }
        state.end = end;
        let sequence = self.progress.borrow().last + 1;
        let bytes = encode_at(time, sequence, event);
        state.bytes += bytes.len();
        let size = bytes.len();
        state.events.push_back(StoredEvent {
            sequence,
            bytes,
            teaches: seen.map(Arc::new),
        });
        self.progress.send_modify(|progress| {
            progress.last = sequence;
            progress.ended = end.is_some();
            progress.unstored_bytes += size;
        });
        sequence
    }

    /// Waits until there is room for more events.
    pub(super) async fn room(&self) {
        // The sender lives in `self`, so this cannot fail.
        drop(self.progress.subscribe().wait_for(Progress::has_room).await);
    }

    /// Makes events durable as they come, until the last one is.
    pub(super) async fn store(&self) {
        let mut progress = self.progress.subscribe();
        let mut failing_since = None;
        loop {
            let waiting = |progress: &Progress| progress.stored < progress.last;
            let Ok(now) = progress.wait_for(waiting).await.map(|progress| *progress) else {
                return;
            };
            let (batch, end) = self.unstored(now.stored);
            let Some(last) = batch.last().map(|event| event.sequence) else {
                return;
            };
            let size: usize = batch.iter().map(|event| event.bytes.len()).sum();
            if let Err(error) = self.ledger.append_events(&self.run, batch, end).await {
                let since = *failing_since.get_or_insert_with(Instant::now);
                self.bear_with(error, since.elapsed());
                tokio::time::sleep(STORE_RETRY_PAUSE).await;
                continue;
            }
            if failing_since.take().is_some() {
                tracing::info!(run = %self.run, "events can be stored again");
            }
            self.progress.send_modify(|progress| {
                progress.stored = last;
                progress.stalled = false;
                progress.unstored_bytes -= size;
            });
            self.lock().trouble = None;
            self.forget();
            if end.is_some() {
                return;
            }
        }
    }

    /// Takes in that the ledger has failed for so long.
    fn bear_with(&self, error: LedgerError, failing: Duration) {
        let mut state = self.lock();
        // It is tried every second, maybe for hours.
        if state.trouble.as_ref() != Some(&error) {
            tracing::error!(run = %self.run, %error, ?failing, "events could not be stored");
        }
        let has_failed = failing >= LEDGER_PATIENCE;
        if has_failed {
            state.failure.get_or_insert_with(|| error.clone());
        }
        state.trouble = Some(error);
        drop(state);
        self.progress.send_if_modified(|progress| {
            let before = *progress;
            progress.stalled |= failing >= STORE_PATIENCE;
            progress.failed |= has_failed;
            *progress != before
        });
    }

    /// Waits until the ledger has failed for longer than runs wait, and tells why.
    pub(super) async fn failed(&self) -> LedgerError {
        let mut progress = self.progress.subscribe();
        // The sender lives in `self`, so this cannot fail.
        drop(progress.wait_for(|progress| progress.failed).await);
        let failure = self.lock().failure.clone();
        failure.unwrap_or(LedgerError::Closed)
    }

    /// Why the ledger did not store what it was last given, if it did not.
    pub(super) fn trouble(&self) -> Option<LedgerError> {
        self.lock().trouble.clone()
    }

    /// The first events that are not durable, and the run's end if they are the last.
    fn unstored(&self, stored: u64) -> (Vec<StoredEvent>, Option<RunEnd>) {
        let state = self.lock();
        let later = state.events.iter().filter(|event| event.sequence > stored);
        let batch: Vec<_> = later.take(MAX_STORED_TOGETHER).cloned().collect();
        let is_last = batch.last().map(|event| event.sequence)
            == state.events.back().map(|event| event.sequence);
        (batch, state.end.filter(|_| is_last))
    }

    /// Drops durable events beyond what is kept.
    fn forget(&self) {
        let mut state = self.lock();
        let stored = self.progress.borrow().stored;
        let durable = |event: &&mut StoredEvent| event.sequence <= stored;
        for event in state.events.iter_mut().take_while(durable) {
            event.teaches = None;
        }
        while state.events.len() > MAX_RECENT_EVENTS || state.bytes > MAX_RECENT_BYTES {
            let Some(first) = state.events.pop_front_if(|event| event.sequence <= stored) else {
                break;
            };
            state.bytes -= first.bytes.len();
        }
    }

    /// The durable events after `after`, some of them at least, once there are any; none once the run is over
    /// and all were read.
    ///
    /// # Errors
    /// They cannot be read, or there are none and the ledger has failed for too long.
    pub(super) async fn read(&self, after: u64) -> Result<Vec<v1::RunEvent>, FindRunError> {
        let Some(visible) = self.visible_after(after).await? else {
            return Ok(Vec::new());
        };
        Ok(match self.recent(after, visible) {
            Some(events) => decode_all(&events)?,
            None => {
                let events = read_stored(self.ledger.as_ref(), &self.run, after).await?;
                if events.is_empty() {
                    // They were durable, and its watcher came too late for them.
                    let run = self.run.clone();
                    return Err(FindRunError::Forgotten { run });
                }
                events
            }
        })
    }

    /// The last event that may be seen, once it comes after `after`; `None` if no such event ever comes.
    async fn visible_after(&self, after: u64) -> Result<Option<u64>, FindRunError> {
        let mut progress = self.progress.subscribe();
        loop {
            let ready = |progress: &Progress| {
                progress.visible() > after || progress.is_over() || progress.stalled
            };
            // The sender lives in `self`, so this cannot fail.
            let Ok(now) = progress.wait_for(ready).await.map(|progress| *progress) else {
                return Ok(None);
            };
            if now.visible() > after || now.is_over() {
                return Ok(Some(now.visible()).filter(|visible| *visible > after));
            }
            // There is none if the ledger has just recovered.
            if let Some(error) = self.trouble() {
                return Err(FindRunError::NotDurable(error));
            }
        }
    }

    /// Whether there is an event after `after` that may be seen.
    pub(super) fn has_after(&self, after: u64) -> bool {
        self.progress.borrow().visible() > after
    }

    /// Events that are in memory; `None` if the first of them is not.
    fn recent(&self, after: u64, visible: u64) -> Option<Vec<StoredEvent>> {
        let state = self.lock();
        let first = state.events.front()?.sequence;
        let skip = usize::try_from((after + 1).checked_sub(first)?).ok()?;
        let later = state.events.iter().skip(skip).take(MAX_READ_TOGETHER);
        Some(
            later
                .filter(|event| event.sequence <= visible)
                .cloned()
                .collect(),
        )
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The current time.
pub(crate) fn now() -> Timestamp {
    SystemTime::now().into()
}

pub(super) fn encode(sequence: u64, event: Event) -> bytes::Bytes {
    encode_at(now(), sequence, event)
}

fn encode_at(time: Timestamp, sequence: u64, event: Event) -> bytes::Bytes {
    v1::RunEvent {
        sequence,
        time: Some(timestamp_to_wire(time)),
        event: Some(event),
    }
    .encode_to_vec()
    .into()
}

/// Events of a run from the ledger.
pub(super) async fn read_stored(
    ledger: &dyn Ledger,
    run: &RunId,
    after: u64,
) -> Result<Vec<v1::RunEvent>, LedgerError> {
    decode_all(&ledger.read_events(run, after, MAX_READ_TOGETHER).await?)
}

/// The first events of a run, so many at most.
pub(super) async fn read_first(
    ledger: &dyn Ledger,
    run: &RunId,
    limit: usize,
) -> Result<Vec<v1::RunEvent>, LedgerError> {
    decode_all(&ledger.read_events(run, 0, limit).await?)
}

/// What a run was asked to do, which its first event says; none if that is not stored.
pub(super) async fn read_spec(
    ledger: &dyn Ledger,
    run: &RunId,
) -> Result<Option<v1::RunSpec>, LedgerError> {
    let first = read_first(ledger, run, 1).await?;
    Ok(first.into_iter().find_map(|event| match event.event {
        Some(Event::RunStarted(started)) => started.spec,
        _ => None,
    }))
}

fn decode_all(events: &[StoredEvent]) -> Result<Vec<v1::RunEvent>, LedgerError> {
    let decode = |event: &StoredEvent| {
        v1::RunEvent::decode(event.bytes.clone()).map_err(|error| LedgerError::Corrupt {
            detail: format!("event {} cannot be read: {error}", event.sequence),
        })
    };
    events.iter().map(decode).collect()
}

#[cfg(test)]
mod tests {
    use regatta_ledger::{Forgetting, MemoryLedger, NewRun, RunCounts};
    use regatta_model::Verdict;

    use super::*;
    use crate::runs::tests::FullLedger;

    fn started(job: &str) -> Event {
        Event::JobStarted(v1::JobStarted {
            job: job.to_owned(),
        })
    }

    fn end() -> RunEnd {
        RunEnd {
            finished_at: Timestamp::EPOCH,
            verdict: Verdict::Releasable,
            counts: RunCounts::default(),
            times: None,
        }
    }

    async fn read_all(log: &RunLog, mut after: u64) -> Vec<u64> {
        let mut sequences = Vec::new();
        loop {
            let events = log.read(after).await.expect("reads");
            let Some(last) = events.last() else {
                return sequences;
            };
            after = last.sequence;
            sequences.extend(events.iter().map(|event| event.sequence));
        }
    }

    #[tokio::test]
    async fn a_watcher_that_is_far_behind_misses_nothing() {
        let ledger: Arc<dyn Ledger> = Arc::new(MemoryLedger::new());
        let log = RunLog::new("r".parse().expect("valid"), ledger);
        let storing = tokio::spawn({
            let log = Arc::clone(&log);
            async move { log.store().await }
        });
        let count = 3 * MAX_RECENT_EVENTS as u64;
        for _ in 1..count {
            log.room().await;
            log.append(started("a"));
        }
        log.finish(started("last"), end());
        log.append(started("too late"));
        storing.await.expect("stores");
        assert!(log.lock().events.len() <= MAX_RECENT_EVENTS);
        assert_eq!(read_all(&log, 0).await, (1..=count).collect::<Vec<_>>());
        assert_eq!(read_all(&log, count - 2).await, [count - 1, count]);
        assert!(read_all(&log, count).await.is_empty());
    }

    #[tokio::test]
    async fn whoever_comes_too_late_for_events_of_a_run_that_is_forgotten_is_told_so() {
        let ledger = Arc::new(MemoryLedger::new());
        let run: RunId = "r".parse().expect("valid");
        let begun = ledger.start_run(NewRun {
            run: run.clone(),
            tenant: "".parse().expect("valid"),
            description: String::new(),
            commit: String::new(),
            branch: String::new(),
            submitted_at: Timestamp::EPOCH,
            committed_at: None,
        });
        begun.await.expect("begins");
        let log = RunLog::new(run.clone(), Arc::clone(&ledger) as _);
        let count = 2 * MAX_RECENT_EVENTS as u64;
        for _ in 1..count {
            log.append(started("a"));
        }
        log.finish(started("last"), end());
        log.store().await;
        let read = log.read(0).await.expect("is there");
        assert_eq!(read.len(), MAX_READ_TOGETHER);
        let after = end().finished_at + Duration::from_secs(1);
        let step = Forgetting::Run {
            run: run.clone(),
            ended_before: after,
            verdicts_since: after,
            now: after,
        };
        ledger.forget(step).await.expect("is forgotten");
        let read = log.read(read.len() as u64).await;
        assert!(
            matches!(&read, Err(FindRunError::Forgotten { run: gone }) if *gone == run),
            "{read:?}"
        );
        // Who had come to what is in memory sees the end of it.
        assert_eq!(read_all(&log, count - 2).await, [count - 1, count]);
    }

    #[tokio::test]
    async fn an_event_is_seen_once_it_is_durable() {
        let ledger: Arc<dyn Ledger> = Arc::new(MemoryLedger::new());
        let log = RunLog::new("r".parse().expect("valid"), ledger);
        log.append(started("a"));
        assert!(futures::poll!(std::pin::pin!(log.read(0))).is_pending());
        log.finish(started("b"), end());
        assert!(futures::poll!(std::pin::pin!(log.read(0))).is_pending());
        log.store().await;
        assert_eq!(read_all(&log, 0).await, [1, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn while_a_ledger_fails_nothing_is_seen_but_why() {
        let ledger = Arc::new(FullLedger::default());
        let log = RunLog::new("r".parse().expect("valid"), Arc::clone(&ledger) as _);
        let storing = tokio::spawn({
            let log = Arc::clone(&log);
            async move { log.store().await }
        });
        let begun = Instant::now();
        log.append(started("a"));
        let reading = tokio::spawn({
            let log = Arc::clone(&log);
            async move { log.read(0).await }
        });
        let read = reading.await.expect("it ends");
        assert!(matches!(read, Err(FindRunError::NotDurable(_))), "{read:?}");
        assert!((STORE_PATIENCE..LEDGER_PATIENCE).contains(&begun.elapsed()));
        let asked = log.append_durably(started("b")).await;
        let said = asked.expect_err("it is not durable").to_string();
        assert!(said.contains("full"), "{said}");
        log.finish(started("c"), end());
        assert!(!log.has_after(0));
        let read = log.read(0).await;
        assert!(matches!(read, Err(FindRunError::NotDurable(_))), "{read:?}");
        let error = log.failed().await;
        assert!(error.to_string().contains("full"), "{error}");
        assert!(begun.elapsed() >= LEDGER_PATIENCE);
        // However long it takes.
        tokio::time::sleep(Duration::from_secs(6 * 60 * 60)).await;
        ledger.make_room();
        storing.await.expect("it stores and ends");
        assert_eq!(read_all(&log, 0).await, [1, 2, 3]);
        let run = "r".parse().expect("valid");
        let stored = ledger.memory.read_events(&run, 0, 10).await.expect("reads");
        assert_eq!(stored.len(), 3);
        assert_eq!(log.trouble(), None);
        assert_eq!(log.failed().await, error, "it is not forgotten");
    }
}
