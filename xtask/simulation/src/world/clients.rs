//! Who submits runs, watches them, and asks for what is cached.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::FutureExt as _;
use prost::Message as _;
use regatta_ledger::{Ledger as _, RunQuery, RunRecord};
use regatta_model::{Digest, RunId};
use regatta_wire::v1;
use regatta_wire::v1::run_event::Event;

use super::happening::Happening;
use super::{Ended, World};
use crate::model::{Story, check_whole};
use crate::violation::{Checked, Invariant};

/// How often a client submits its run at most.
const MAX_SUBMISSIONS: u32 = 60;
/// How long it waits before it tries again.
const PAUSE: Duration = Duration::from_secs(2);

/// Whoever wants a run.
#[derive(Debug, Default)]
pub(super) struct Client {
    state: State,
    /// Counts its submissions.
    attempt: u32,
    run: Option<String>,
    /// Whether it wants its run to end.
    cancels: bool,
    /// What its builds have made.
    made: Vec<Digest>,
    story: Story,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum State {
    #[default]
    Idle,
    Submitting,
    Watching,
    /// Nobody listens to it just now.
    Away,
    Done,
}

impl Client {
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }
}

impl World {
    pub(super) fn submit(&mut self, run: usize, attempt: u32) {
        let client = &mut self.clients[run];
        if client.run.is_some() || client.attempt != attempt || client.state == State::Done {
            return;
        }
        client.attempt += 1;
        if client.attempt > MAX_SUBMISSIONS {
            client.state = State::Done;
            return;
        }
        let coordinator = self.coordinator.as_ref().filter(|it| it.is_up());
        let Some(coordinator) = coordinator else {
            self.submit_later(run);
            return;
        };
        client.state = State::Submitting;
        let planned = &self.plan.runs[run];
        coordinator.submit(run, planned.inputs.clone(), planned.spec.clone());
        self.tell(&format!("run {run} is submitted"));
    }

    fn submit_later(&mut self, run: usize) {
        let attempt = self.clients[run].attempt;
        self.clients[run].state = State::Idle;
        self.after(PAUSE, Happening::Submits { run, attempt });
    }

    pub(super) fn submitted(&mut self, run: usize, answer: Result<String, String>) {
        match answer {
            Ok(id) => {
                self.tell(&format!("run {run} is accepted: {id}"));
                self.clients[run].run = Some(id);
                let inputs = self.plan.runs[run].inputs.digests();
                self.model.promises.pin(self.now, run, inputs);
                self.clients[run].state = State::Away;
                if let Some(pause) = self.plan.runs[run].cancel_after {
                    self.after(pause, Happening::Cancels(run));
                }
                self.after(Duration::from_millis(1), Happening::Watches(run));
            }
            Err(error) => {
                self.tell(&format!("run {run} is refused: {error}"));
                self.submit_later(run);
            }
        }
    }

    pub(super) fn watch(&mut self, run: usize) {
        let client = &mut self.clients[run];
        let (State::Away, Some(id)) = (client.state, client.run.clone()) else {
            return;
        };
        let coordinator = self.coordinator.as_ref().filter(|it| it.is_up());
        if let Some(coordinator) = coordinator {
            client.state = State::Watching;
            coordinator.watch(run, id, client.story.last());
        }
    }

    pub(super) fn cancel(&mut self, run: usize) {
        let (Some(id), false) = (self.clients[run].run.clone(), self.clients[run].is_done()) else {
            return;
        };
        self.clients[run].cancels = true;
        match self.coordinator.as_ref().filter(|it| it.is_up()) {
            Some(coordinator) => {
                coordinator.cancel(id);
                self.tell(&format!("run {run} is cancelled"));
            }
            None => self.after(PAUSE, Happening::Cancels(run)),
        }
    }

    pub(super) fn event(&mut self, run: usize, event: v1::RunEvent) -> Result<(), Ended> {
        self.tell(&format!("run {run}: {}", show(&event)));
        self.model.seen(&event)?;
        if let Some(Event::TestsFinished(finished)) = &event.event {
            let keys = finished
                .results
                .iter()
                .filter_map(|result| result.key.as_ref());
            let keys = keys.filter_map(|key| Digest::try_from(key).ok());
            self.keys.extend(keys);
        }
        let made = match &event.event {
            Some(Event::JobFinished(finished)) => finished.result.as_ref(),
            _ => None,
        };
        let made: Vec<Digest> = made.into_iter().flat_map(crate::job::blobs_of).collect();
        self.clients[run].made.extend(made);
        self.clients[run].story.take(event)?;
        let story = &self.clients[run].story;
        if story.has_ended {
            check_whole(Some(&self.plan.runs[run]), story)?;
            // As long as there is room: what was used lately takes that of what verdicts name. Another coordinator
            // knows nothing of them (decision 0017).
            let storage = self.plan.storage;
            let lasts = storage.max_bytes.is_none() && !storage.is_shared;
            if let Some(coordinator) = self.coordinator.as_ref().filter(|_| lasts) {
                coordinator.give_verdict(self.clients[run].made.clone());
            }
        }
        Ok(())
    }

    pub(super) fn watch_ended(&mut self, run: usize, failure: Option<&str>) {
        let client = &mut self.clients[run];
        if client.state != State::Watching {
            return;
        }
        if client.story.has_ended {
            client.state = State::Done;
            return;
        }
        client.state = State::Away;
        if let Some(failure) = failure {
            self.tell(&format!("run {run} is watched no more: {failure}"));
        }
        self.after(PAUSE, Happening::Watches(run));
    }

    /// The coordinator is gone: what was asked has no answer.
    pub(super) fn clients_lose_it(&mut self) {
        for run in 0..self.clients.len() {
            match self.clients[run].state {
                State::Submitting => self.submit_later(run),
                State::Watching => self.clients[run].state = State::Away,
                State::Idle | State::Away | State::Done => {}
            }
        }
    }

    pub(super) fn clients_return(&mut self) {
        for run in 0..self.clients.len() {
            if self.clients[run].state == State::Away {
                let pause = self.random.millis(1, 500);
                self.after(pause, Happening::Watches(run));
            }
            // Nobody knows whether the last coordinator heard of it.
            if self.clients[run].cancels {
                self.after(PAUSE, Happening::Cancels(run));
            }
        }
    }

    pub(super) fn look_up(&mut self) {
        let coordinator = self.coordinator.as_ref().filter(|it| it.is_up());
        let (Some(coordinator), false) = (coordinator, self.keys.is_empty()) else {
            return;
        };
        for _ in 0..4 {
            let key = self.keys[self.random.index(self.keys.len())];
            coordinator.look_up(key, self.durable.stock.clone());
        }
    }

    pub(super) fn stored_runs(&self, active_only: bool) -> Vec<RunRecord> {
        let query = RunQuery {
            active_only,
            limit: usize::MAX,
            ..RunQuery::default()
        };
        // Memory answers at once.
        let found = self.durable.ledger.find_runs(query).now_or_never();
        found.and_then(Result::ok).unwrap_or_default()
    }

    /// Runs that have no end.
    pub(super) fn open_runs(&self) -> Vec<RunId> {
        let open = self.stored_runs(true).into_iter();
        open.map(|record| record.new.run).collect()
    }

    /// The clients whose runs have no end.
    pub(super) fn open_clients(&self) -> BTreeSet<usize> {
        let open: BTreeSet<String> = self.open_runs().iter().map(RunId::to_string).collect();
        let clients = self.clients.iter().enumerate();
        let is_open = |it: &Client| it.run.as_ref().is_some_and(|run| open.contains(run));
        clients
            .filter(|(_, it)| is_open(it))
            .map(|(run, _)| run)
            .collect()
    }

    /// Checks every run there is, those included that nobody was told of.
    pub(super) fn check_stored(&self) -> Checked {
        for record in self.stored_runs(false) {
            let run = &record.new.run;
            let events = self.durable.ledger.read_events(run, 0, usize::MAX);
            let events = events
                .now_or_never()
                .and_then(Result::ok)
                .unwrap_or_default();
            let mut story = Story::default();
            for event in events {
                let event = v1::RunEvent::decode(event.bytes).unwrap_or_default();
                self.model.seen(&event)?;
                story.take(event)?;
            }
            let id = run.to_string();
            let client = self
                .clients
                .iter()
                .position(|it| it.run.as_ref() == Some(&id));
            if let Some(client) = client {
                let seen = &self.clients[client].story.events;
                Invariant::WhatWasSeenStays.holds(*seen == story.events, || {
                    format!(
                        "run {client} was seen to be {seen:?} and is {:?}",
                        story.events
                    )
                })?;
                self.check_seen_late(client, &story.events)?;
            }
            check_whole(client.map(|client| &self.plan.runs[client]), &story)?;
        }
        Ok(())
    }
}

fn show(event: &v1::RunEvent) -> String {
    let what = match &event.event {
        Some(Event::RunStarted(_)) => "it starts".to_owned(),
        Some(Event::TestsFinished(finished)) => {
            let result = |it: &v1::TestResult| {
                let number = crate::job::execution_in(&it.stdout_tail);
                let number = number.map_or(String::new(), |number| format!(" #{number}"));
                format!("{} {:?}{number}", it.test_id, it.status())
            };
            let results: Vec<String> = finished.results.iter().map(result).collect();
            results.join(", ")
        }
        Some(other) => {
            let text = format!("{other:?}");
            text.chars().take(160).collect()
        }
        None => "nothing".to_owned(),
    };
    format!("event {}: {what}", event.sequence)
}
