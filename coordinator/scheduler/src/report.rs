//! What an agent says it holds, against what it should hold.

use regatta_model::{AttemptNumber, LeaseId, PlantedBug, UnitIndex};

use crate::fleet::AgentKey;
use crate::scheduler::Scheduler;
use crate::task::{Answer, TaskKey};
use crate::{AgentState, Effect, HeldLease, OutcomeKind, UnitOutcome};

impl Scheduler {
    /// Takes in an agent's report, unless a later one of its connection is known.
    pub(crate) fn reported(&mut self, state: AgentState) {
        let key = self.fleet.enter(&state.agent);
        let agent = &mut self.fleet.agents[key];
        let is_first = state.sequence == 1;
        let is_stale = state.sequence <= agent.sequence || state.observed_version < agent.observed;
        if !is_first && is_stale {
            return;
        }
        agent.sequence = state.sequence;
        agent.observed = state.observed_version;
        // Versions keep growing when the coordinator restarts and the agents do not.
        agent.version = agent.version.max(state.observed_version);
        agent.refusal.clone_from(&state.refusal);
        if std::mem::take(&mut agent.missed_state) {
            self.agents_to_tell.insert(key);
        }
        self.heard_from(key);
        if let Some(offer) = &state.offer {
            self.fleet.offer(key, offer);
        }
        if is_first {
            self.begin_connection(key);
        }
        self.reconcile(key, state, is_first);
        self.fleet.relist(key);
        self.watch_release(key);
        let agent = &self.fleet.agents[key];
        if agent.listed.free.is_some() || agent.reserved_for.is_some() {
            self.agents_to_fill.insert(key);
        }
    }

    /// Forgets what belongs to the last connection. The agent is told everything again.
    fn begin_connection(&mut self, key: AgentKey) {
        let agent = &mut self.fleet.agents[key];
        agent.answered_sequence = None;
        agent.foreign.clear();
        for lease in &agent.leases {
            if let Some(lease) = self.leases.get_mut(lease) {
                lease.first_reported = None;
            }
        }
        self.agents_to_tell.insert(key);
    }

    fn reconcile(&mut self, key: AgentKey, mut state: AgentState, is_first: bool) {
        // In order, so that equal reports lead to equal steps; of a lease that is named twice the first
        // counts.
        state.leases.sort_by_key(|lease| lease.lease);
        state.leases.dedup_by_key(|lease| lease.lease);
        self.take_claims(key, &mut state.leases);
        let is_own = |lease: &HeldLease| {
            let known = self.leases.get(&lease.lease);
            known.is_some_and(|known| known.agent == key && known.token == lease.token)
        };
        let (own, others): (Vec<_>, Vec<_>) = state.leases.into_iter().partition(is_own);
        let others = others.into_iter();
        let foreign = others.filter(|lease| !self.adoptions.includes(key, lease));
        let foreign: Vec<_> = foreign.collect();
        let is_missing = |id: &LeaseId| {
            let is_held = own.binary_search_by_key(id, |lease| lease.lease).is_ok();
            let is_gone =
                |lease: &crate::lease::Lease| lease.is_gone(state.observed_version, is_first);
            !is_held && self.leases.get(id).is_some_and(is_gone)
        };
        let leases = self.fleet.agents[key].leases.iter().copied();
        let missing: Vec<_> = leases.filter(is_missing).collect();
        for lease in own {
            self.holds(key, lease, state.sequence);
        }
        for lease in missing {
            self.lose_lease(lease, "the agent no longer has it");
            self.forget_lease(lease);
        }
        self.fence(key, foreign, state.sequence);
    }

    /// Takes in what an agent says of a lease of its own.
    fn holds(&mut self, key: AgentKey, held: HeldLease, sequence: u64) {
        let id = held.lease;
        let Some(lease) = self.leases.get_mut(&id) else {
            return;
        };
        lease.was_held = true;
        if let Some(slot) = held.slot.filter(|_| lease.slot.is_none() && !lease.vacated) {
            lease.slot = Some(slot);
            self.fleet.agents[key].working.insert(slot);
        }
        let first_reported = *lease.first_reported.get_or_insert(sequence);
        let before = lease.acknowledged;
        for outcome in held.outcomes {
            self.take_outcome(id, outcome);
        }
        let after = self.leases.get(&id).map(|lease| lease.acknowledged);
        if after > Some(before) {
            self.progress(id);
        }
        if held.finished {
            self.lose_lease(id, "the agent ended it without an outcome");
            self.vacate(id);
        }
        let is_desired = self
            .leases
            .get(&id)
            .is_some_and(|lease| lease.task.is_some());
        let answered = self.fleet.agents[key].answered_sequence;
        if !is_desired && answered.is_none_or(|answered| answered < first_reported) {
            self.agents_to_tell.insert(key);
        }
    }

    /// Takes an outcome, unless it was taken before. An agent reports its outcomes until they are
    /// acknowledged, so one that lacks those before it breaks the protocol, and its lease is lost.
    fn take_outcome(&mut self, id: LeaseId, mut outcome: UnitOutcome) {
        let Some(lease) = self.leases.get_mut(&id) else {
            return;
        };
        if outcome.index > lease.acknowledged {
            let (index, acknowledged) = (outcome.index, lease.acknowledged);
            let reason = format!(
                "the agent reported outcome {index} of the lease when only {acknowledged} were \
                 acknowledged"
            );
            return self.lose_lease(id, &reason);
        }
        if outcome.index < lease.acknowledged {
            return;
        }
        lease.acknowledged += 1;
        let (agent, task, granted_for) = (lease.agent, lease.task, lease.granted_for);
        let unit = lease.unit_of(outcome.unit);
        let attempt = unit.and_then(|unit| lease.resolve(unit));
        outcome.unit = unit.unwrap_or(outcome.unit);
        let is_done = lease.pending.is_empty();
        self.agents_to_tell.insert(agent);
        let Some((task, attempt)) = task.zip(attempt) else {
            self.fence_outcome(id, agent, &outcome.kind);
            if PlantedBug::FenceDropped.is_planted()
                && let Some((task, _)) = self.submitted.get(&granted_for).copied()
            {
                self.take_answer(id, task, AttemptNumber(1), &outcome);
            }
            return;
        };
        if let OutcomeKind::Infrastructure(_) | OutcomeKind::Cancelled = &outcome.kind {
            self.blame(id);
        }
        if let Some(reason) = self.loss(id, task, &outcome) {
            for unit in self.unlease(id, vec![outcome.unit]) {
                self.lose_unit(task, unit, agent, reason);
            }
        } else {
            self.withdraw_from_twin(id, outcome.unit);
            self.unlease(id, vec![outcome.unit]);
            self.take_answer(id, task, attempt, &outcome);
        }
        if is_done {
            self.release(id);
        }
        self.conclude(task);
    }

    /// Why a unit is lost, if its outcome is no answer.
    fn loss<'outcome>(
        &self,
        id: LeaseId,
        task: TaskKey,
        outcome: &'outcome UnitOutcome,
    ) -> Option<&'outcome str> {
        let unit = outcome.unit;
        match &outcome.kind {
            OutcomeKind::Answered => None,
            OutcomeKind::Unsuitable(reason) => {
                let another = self.is_shared(id, unit) || self.may_suit_another(task, unit);
                another.then_some(reason)
            }
            OutcomeKind::Unreachable(reason) | OutcomeKind::Infrastructure(reason) => Some(reason),
            OutcomeKind::Cancelled => Some("stopped by the agent"),
        }
    }

    fn take_answer(
        &mut self,
        lease: LeaseId,
        task: TaskKey,
        attempt: AttemptNumber,
        outcome: &UnitOutcome,
    ) {
        let Some(agent) = self.leases.get(&lease).map(|lease| lease.agent) else {
            return;
        };
        self.fleet.agents[agent].consecutive_losses = 0;
        let answer = Answer {
            lease,
            index: outcome.index,
            agent: self.fleet.agents[agent].id.clone(),
            slot: outcome.slot,
            attempt,
        };
        self.answer_unit(task, outcome.unit, answer);
    }

    /// Whether a unit that one agent lacks something for can be tried on another.
    fn may_suit_another(&self, task: TaskKey, unit: UnitIndex) -> bool {
        let task = &self.tasks[task];
        let attempts = task.unit(unit).map_or(u32::MAX, |unit| unit.attempts);
        attempts < self.config.max_attempts && self.fleet.classes[task.class].willing > 1
    }

    /// Says that an outcome of a lease without a task, or of a unit without a need, is void.
    fn fence_outcome(&mut self, lease: LeaseId, agent: AgentKey, kind: &OutcomeKind) {
        match kind {
            OutcomeKind::Answered
            | OutcomeKind::Infrastructure(_)
            | OutcomeKind::Unsuitable(_)
            | OutcomeKind::Unreachable(_) => {
                let agent = self.fleet.agents[agent].id.clone();
                self.effect(Effect::Fenced { lease, agent });
            }
            OutcomeKind::Cancelled => {}
        }
    }

    /// Takes in what an agent holds that is not its own: nothing of it counts, and nothing new is
    /// granted while it may be running.
    fn fence(&mut self, key: AgentKey, foreign: Vec<HeldLease>, sequence: u64) {
        let agent = &mut self.fleet.agents[key];
        let known = std::mem::take(&mut agent.foreign);
        let mut any_running = false;
        for lease in foreign {
            let before = known.iter().find(|(id, _)| *id == lease.lease);
            let first_reported = before.map_or(sequence, |(_, first)| *first);
            let agent = &mut self.fleet.agents[key];
            agent.foreign.push((lease.lease, first_reported));
            any_running |= !lease.finished;
            if agent
                .answered_sequence
                .is_none_or(|answered| answered < first_reported)
            {
                self.agents_to_tell.insert(key);
            }
            for outcome in &lease.outcomes {
                self.fence_outcome(lease.lease, key, &outcome.kind);
            }
        }
        let agent = &mut self.fleet.agents[key];
        let since = agent.foreign_since.unwrap_or(self.now);
        agent.foreign_since = any_running.then_some(since);
        agent.stuck.foreign &= any_running;
    }
}
