//! A coordinator that stands still, and goes on when another has its place.

use std::collections::BTreeSet;
use std::time::Duration;

use regatta_wire::v1;

use super::happening::Happening;
use super::{Ended, World};
use crate::coordinator::Coordinator;
use crate::said::{Link, Said};
use crate::violation::{Checked, Invariant};

/// How long it takes until another has the place of one that is silent, in milliseconds.
const SUCCESSION_MILLIS: (u64, u64) = (7000, 10_000);
/// How long one goes on that has lost its place: by then it has asked the ledger, and ends.
const AFTERLIFE: Duration = Duration::from_secs(4);
/// Of a thousand runs that go on, how many somebody wants to end while their coordinator stands still.
const CANCELLED_PERMILLE: u64 = 300;

/// How many things of each kind it is asked for besides: its successor may have let some of them go.
const ASKED_IN_VAIN: usize = 24;

/// One that stands still, or has done so.
#[derive(Debug)]
pub(super) struct Hung {
    coordinator: Coordinator,
    since: Duration,
    /// Until when it goes on, once it does.
    ends: Option<Duration>,
    /// The connections that it had.
    links: BTreeSet<Link>,
    /// The runs that were stored before.
    stored: BTreeSet<String>,
}

impl World {
    pub(super) fn hang(&mut self, length: Duration) {
        let Some(coordinator) = self.coordinator.take() else {
            return;
        };
        self.tell(&format!("the coordinator hangs for {length:?}"));
        let stored = self.stored_runs(false).into_iter();
        let stored = stored.map(|record| record.new.run.to_string()).collect();
        self.ask_in_vain(&coordinator);
        self.hung = Some(Hung {
            coordinator,
            since: self.now,
            ends: None,
            links: self.wires.keys().copied().collect(),
            stored,
        });
        self.after(length, Happening::Awakes);
        let (first, last) = SUCCESSION_MILLIS;
        let down = self.random.millis(first, last);
        self.lose_coordinator(down);
    }

    /// What it is asked for while it stands still, it does when it goes on.
    fn ask_in_vain(&mut self, coordinator: &Coordinator) {
        let run = self.random.index(self.plan.runs.len());
        let planned = &self.plan.runs[run];
        coordinator.submit(run, planned.inputs.clone(), planned.spec.clone());
        for id in self.open_runs() {
            if self.random.chance(CANCELLED_PERMILLE) {
                coordinator.cancel(id.to_string());
            }
        }
        for (_, inputs) in self.plan.uploads.iter().take(ASKED_IN_VAIN) {
            coordinator.provide(inputs.clone());
        }
        for (_, blob, kind) in self.plan.large.iter().take(ASKED_IN_VAIN) {
            coordinator.have_large(blob.clone(), *kind);
        }
        for key in self.keys.iter().take(ASKED_IN_VAIN) {
            coordinator.look_up(*key, self.durable.stock.clone());
        }
    }

    /// A report comes to where its connection ended once.
    pub(super) fn report_to_hung(&self, link: Link, report: v1::AgentReport) {
        if let Some(hung) = self.hung.as_ref().filter(|it| it.links.contains(&link)) {
            hung.coordinator.report(link, report);
        }
    }

    pub(super) fn awake(&mut self) {
        let now = self.now;
        if let Some(hung) = &mut self.hung {
            hung.coordinator.wake(now - hung.since);
            hung.ends = Some(now + AFTERLIFE);
            self.tell("the coordinator that hung goes on");
        }
    }

    /// Lets the one go on that has lost its place. What it does is done, and some listen to it still.
    pub(super) fn go_on(&mut self) -> Result<(), Ended> {
        loop {
            let Some((hung, ends)) = self.hung.as_ref().and_then(|it| Some((it, it.ends?))) else {
                return Ok(());
            };
            let reached = hung.coordinator.run_until(self.now);
            let said = hung.coordinator.said();
            let stored = hung.stored.clone();
            let has_crashed = said.iter().any(|it| matches!(it, Said::Crashed));
            if has_crashed || self.now >= ends {
                self.hung = None;
            }
            for said in said {
                self.hear_late(said, &stored)?;
            }
            if reached >= self.now {
                return Ok(());
            }
        }
    }

    /// One says something that has lost its place.
    fn hear_late(&mut self, said: Said, stored: &BTreeSet<String>) -> Checked {
        match said {
            Said::StoreChanged { removed: true } => self.check_promises(),
            Said::Submitted { run, answer } => {
                let outcome = match &answer {
                    Ok(_) => "accepted",
                    Err(error) => error,
                };
                self.tell(&format!("run {run} is asked for in vain: {outcome}"));
                // The answer about one that it had stored before comes late, and is true.
                let is_stored = |id: &String| stored.contains(id);
                let holds = answer.as_ref().map_or(true, is_stored);
                Invariant::WhatWasSeenStays.holds(holds, || {
                    format!("run {run} is accepted by a coordinator that has lost the ledger")
                })
            }
            Said::Event { run, event } => {
                self.tell(&format!("run {run}: event {} comes late", event.sequence));
                self.seen_late.push((run, *event));
                Ok(())
            }
            Said::Served { key, absent } => self.model.served(&key, &absent),
            Said::Promised(promise) => {
                let (by, count) = (promise.by, promise.blobs.len());
                self.tell(&format!("{by} says late that {count} blobs are there"));
                self.there_when_told(&promise)
            }
            Said::Read { digest, is_right } => self.read(&digest, is_right),
            Said::StoreChanged { removed: false }
            | Said::Started
            | Said::FailedToStart(_)
            | Said::Crashed
            | Said::State(..)
            | Said::HungUp(..)
            | Said::Uploaded { .. }
            | Said::WatchEnded { .. }
            | Said::Removing { .. }
            | Said::Spoilt { .. } => Ok(()),
        }
    }

    /// What was seen of a run through one that had lost its place is what its events are.
    pub(super) fn check_seen_late(&self, run: usize, events: &[v1::RunEvent]) -> Checked {
        let late = self.seen_late.iter().filter(|(of, _)| *of == run);
        for (_, seen) in late {
            Invariant::WhatWasSeenStays.holds(events.contains(seen), || {
                format!("run {run} was seen to be {seen:?} late, and is {events:?}")
            })?;
        }
        Ok(())
    }
}
