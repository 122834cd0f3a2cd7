//! Learns anew what the events of some runs teach of their tests. Pure.
//!
//! Runs go on at the same time, and what is learnt depends on the order: so the events of all of them are merged by their
//! times, as the ledger has learnt from them. Of a run no more is held than a page of events, and nothing before it is
//! time for the run.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

use prost::Message as _;
use regatta_ledger::{RunRecord, StoredEvent, TestHistory, TestObservation};
use regatta_model::{RunId, Timestamp};
use regatta_wire::convert::timestamp_from_wire;
use regatta_wire::v1;
use regatta_wire::v1::run_event::Event;

use crate::runs::{is_repetition, lesson, results_of};

/// How many events of one run are read together at most, and how many of all runs that go on at the same time.
const MAX_PAGE: usize = 64;
const MAX_PAGES: usize = 1024;
/// How much of what could not be read is named.
const MAX_NAMED: usize = 20;

/// What is learnt of tests from some runs.
#[derive(Debug, Default)]
pub(super) struct Counting {
    /// Of this suite alone, if one is named.
    suite: Option<String>,
    /// Runs that nothing was read of; the first to be submitted is the last.
    waiting: Vec<RunRecord>,
    /// The others, by the order in which they were submitted.
    reading: BTreeMap<usize, Reader>,
    begun: usize,
    /// The times of the next lessons of all that are read, but for the one whose next page is missing.
    next: BinaryHeap<Reverse<(Timestamp, usize)>>,
    missing: Option<usize>,
    tests: BTreeMap<String, BTreeMap<String, TestHistory>>,
    damage: Vec<String>,
    unnamed_damage: usize,
}

/// Events of a run that are to be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Page {
    pub(super) run: RunId,
    pub(super) after: u64,
    pub(super) limit: usize,
}

/// A run that is being read.
#[derive(Debug)]
struct Reader {
    run: RunId,
    /// The last event that was read.
    last: u64,
    /// The latest time of those: a clock that was set does not change the order.
    latest: Timestamp,
    lessons: VecDeque<Lesson>,
    /// Jobs that run one test many times, once the run's first event has said which do.
    repeated: Option<BTreeSet<String>>,
    /// Whether there is an end of it that must not be missing.
    is_over: bool,
    has_ended: bool,
}

#[derive(Debug)]
struct Lesson {
    at: Timestamp,
    suite: String,
    seen: TestObservation,
}

impl Counting {
    /// Learns from these runs, of one suite or of all.
    pub(super) fn new(mut runs: Vec<RunRecord>, suite: Option<String>) -> Self {
        runs.sort_by_key(|run| Reverse(run.new.submitted_at));
        Self {
            suite,
            waiting: runs,
            ..Self::default()
        }
    }

    /// Learns what it can; the page that it needs to go on, if it does not have all.
    pub(super) fn go_on(&mut self) -> Option<Page> {
        loop {
            if let Some(reader) = self.missing.and_then(|it| self.reading.get(&it)) {
                let share = MAX_PAGES / self.reading.len();
                return Some(Page {
                    run: reader.run.clone(),
                    after: reader.last,
                    limit: share.clamp(1, MAX_PAGE),
                });
            }
            let next = self.next.peek().map(|Reverse((at, _))| *at);
            let is_due = |run: &RunRecord| next.is_none_or(|next| run.new.submitted_at <= next);
            if let Some(run) = self.waiting.pop_if(|run| is_due(run)) {
                let number = self.begun;
                self.begun += 1;
                self.reading.insert(number, Reader::new(&run));
                self.missing = Some(number);
            } else {
                let Reverse((_, number)) = self.next.pop()?;
                self.learn_from(number);
            }
        }
    }

    /// Takes in a page that it needed.
    pub(super) fn take(&mut self, page: &Page, events: &[StoredEvent]) {
        let Some((number, mut reader)) = self.missing.take().and_then(|number| {
            let reader = self.reading.remove(&number)?;
            Some((number, reader))
        }) else {
            return;
        };
        for event in events {
            self.take_event(&mut reader, event);
        }
        if events.len() < page.limit {
            if reader.is_over && !reader.has_ended {
                let Reader { run, last, .. } = &reader;
                self.note(format!("run {run}: what comes after event {last} is gone"));
            }
            reader.has_ended = true;
        }
        self.reading.insert(number, reader);
        self.settle(number);
    }

    /// Takes in that a page cannot be read, and so nothing after it.
    pub(super) fn give_up(&mut self, page: &Page, why: &str) {
        self.note(format!(
            "run {}: nothing after event {} can be read: {why}",
            page.run, page.after
        ));
        if let Some(number) = self.missing.take() {
            self.reading.remove(&number);
        }
    }

    /// All that was learnt, by suite and by test, and what could not be read.
    pub(super) fn finish(mut self) -> (Vec<TestHistory>, Vec<String>) {
        let tests = self.tests.into_values().flat_map(BTreeMap::into_values);
        if self.unnamed_damage > 0 {
            let more = format!("and {} more", self.unnamed_damage);
            self.damage.push(more);
        }
        (tests.collect(), self.damage)
    }

    fn take_event(&mut self, reader: &mut Reader, stored: &StoredEvent) {
        let (run, expected) = (reader.run.clone(), reader.last + 1);
        let so = match reader.repeated {
            Some(_) => "",
            None => "; so nothing is learnt of this run",
        };
        let sequence = stored.sequence;
        if sequence != expected {
            let last = sequence.saturating_sub(1);
            self.note(format!(
                "run {run}: the events from {expected} to {last} are gone{so}"
            ));
        }
        reader.last = sequence;
        match v1::RunEvent::decode(stored.bytes.clone()) {
            Ok(event) => reader.take(&event, self.suite.as_deref()),
            Err(error) => self.note(format!(
                "run {run}: event {sequence} cannot be read: {error}{so}"
            )),
        }
    }

    fn note(&mut self, damage: String) {
        match self.damage.len() < MAX_NAMED {
            true => self.damage.push(damage),
            false => self.unnamed_damage += 1,
        }
    }

    fn learn_from(&mut self, number: usize) {
        let reader = self.reading.get_mut(&number);
        if let Some(Lesson { suite, seen, .. }) = reader.and_then(|it| it.lessons.pop_front()) {
            let known = self.tests.get_mut(&suite);
            match known.and_then(|tests| tests.get_mut(&seen.test)) {
                Some(known) => known.learn(&seen),
                None => {
                    let begun = TestHistory::begin(&suite, &seen);
                    let tests = self.tests.entry(suite).or_default();
                    tests.insert(seen.test, begun);
                }
            }
        }
        self.settle(number);
    }

    /// Says what a run that is read comes to next: a lesson, a page, or its end.
    fn settle(&mut self, number: usize) {
        let Some(reader) = self.reading.get(&number) else {
            return;
        };
        match reader.lessons.front() {
            Some(lesson) => self.next.push(Reverse((lesson.at, number))),
            None if reader.has_ended => {
                self.reading.remove(&number);
            }
            None => self.missing = Some(number),
        }
    }
}

impl Reader {
    fn new(run: &RunRecord) -> Self {
        Self {
            run: run.new.run.clone(),
            last: 0,
            latest: run.new.submitted_at,
            lessons: VecDeque::new(),
            repeated: None,
            is_over: run.end.is_some(),
            has_ended: false,
        }
    }

    fn take(&mut self, event: &v1::RunEvent, suite: Option<&str>) {
        let time = event.time.as_ref();
        let time = time.and_then(|time| timestamp_from_wire(time).ok());
        let time = time.unwrap_or(self.latest);
        self.latest = self.latest.max(time);
        let Some(event) = &event.event else { return };
        match event {
            Event::RunStarted(started) => {
                let jobs = started.spec.iter().flat_map(|spec| &spec.jobs);
                let repeated = jobs.filter(|job| is_repetition(job));
                self.repeated = Some(repeated.map(|job| job.name.clone()).collect());
            }
            Event::RunFinished(_) => self.has_ended = true,
            event => {
                // What runs many times must not be taken for what runs once.
                let Some(repeated) = &self.repeated else {
                    return;
                };
                let results = results_of(event).iter();
                let wanted = results.filter(|it| suite.is_none_or(|suite| it.job == suite));
                let lessons = wanted
                    .filter(|result| !repeated.contains(&result.job))
                    .filter_map(|result| {
                        Some(Lesson {
                            at: self.latest,
                            suite: result.job.clone(),
                            seen: lesson(result, time)?,
                        })
                    });
                self.lessons.extend(lessons);
            }
        }
    }
}
