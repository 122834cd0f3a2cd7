//! A machine's daemon, as far as the scheduler can tell.

use std::collections::{BTreeMap, BTreeSet};

use regatta_model::{
    AgentId, Digest, FencingToken, LeaseId, Resources, SlotIndex, Timestamp, UnitIndex,
};

use crate::{
    AgentState, Claim, DesiredAgent, DesiredLease, HeldLease, Offer, OutcomeKind, UnitOutcome,
};

/// Keeps to the protocol, forgets when told to, and never lets go of work before it has stopped.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) id: AgentId,
    pub(crate) offer: Offer,
    pub(crate) connected: bool,
    /// Tells what belongs to an earlier connection.
    pub(crate) connection: u64,
    /// Tells what belongs to an earlier life.
    pub(crate) life: u64,
    pub(crate) silent: bool,
    /// The last desired state that was sent to it.
    pub(crate) latest_desired: u64,
    /// When it arrives: what is sent later does not overtake it.
    pub(crate) desire_arrives: Timestamp,
    /// Every lease that it has been told of.
    pub(crate) told: BTreeSet<LeaseId>,
    sequence: u64,
    observed_version: u64,
    pub(crate) held: BTreeMap<LeaseId, Held>,
}

/// A lease at a machine.
#[derive(Debug)]
pub(crate) struct Held {
    token: FencingToken,
    pub(crate) resources: Resources,
    pub(crate) left: Vec<UnitIndex>,
    /// What it is for, for a scheduler that did not grant it.
    claim: Claim,
    outcomes: Vec<UnitOutcome>,
    acknowledged: u32,
    first_reported: Option<u64>,
    /// Not desired any more, but not stopped yet.
    pub(crate) stopping: bool,
}

impl Held {
    pub(crate) fn is_running(&self) -> bool {
        !self.left.is_empty()
    }
}

impl Machine {
    pub(crate) fn new(id: AgentId, offer: Offer) -> Self {
        Self {
            id,
            offer,
            connected: false,
            connection: 0,
            life: 0,
            silent: false,
            latest_desired: 0,
            desire_arrives: Timestamp::EPOCH,
            told: BTreeSet::new(),
            sequence: 0,
            observed_version: 0,
            held: BTreeMap::new(),
        }
    }

    pub(crate) fn crash(&mut self) {
        self.connected = false;
        self.life += 1;
        self.observed_version = 0;
        self.held.clear();
    }

    pub(crate) fn connect(&mut self) {
        self.connected = true;
        self.connection += 1;
        self.sequence = 0;
        for held in self.held.values_mut() {
            held.first_reported = None;
        }
    }

    /// Everything it holds, now.
    pub(crate) fn report(&mut self) -> AgentState {
        self.sequence += 1;
        let sequence = self.sequence;
        let leases = self.held.iter_mut().map(|(id, held)| {
            held.first_reported.get_or_insert(sequence);
            HeldLease {
                lease: *id,
                token: held.token,
                slot: None,
                outcomes: held.outcomes[held.acknowledged as usize..].to_vec(),
                finished: !held.is_running(),
                claim: (sequence == 1 && !held.stopping).then(|| Claim {
                    acknowledged: held.acknowledged,
                    ..held.claim.clone()
                }),
            }
        });
        AgentState {
            agent: self.id.clone(),
            sequence,
            observed_version: self.observed_version,
            leases: leases.collect(),
            offer: (sequence == 1).then(|| self.offer.clone()),
            refusal: None,
        }
    }

    /// Does what is desired. Returns what it has begun and what it has to stop; an error if it is
    /// expected to know a lease that it does not.
    pub(crate) fn obey(
        &mut self,
        desired: &DesiredAgent,
        spec: impl Fn(&DesiredLease) -> Option<(Claim, Option<Digest>)>,
    ) -> Result<(Vec<LeaseId>, Vec<LeaseId>), String> {
        let wanted: BTreeMap<_, _> = desired.leases.iter().map(|one| (one.lease, one)).collect();
        let mut stopped = Vec::new();
        for (id, held) in &mut self.held {
            let seen = |first: u64| first <= desired.observed_sequence;
            if !wanted.contains_key(id) && held.first_reported.is_some_and(seen) {
                held.stopping = true;
                stopped.push(*id);
            }
        }
        let mut begun = Vec::new();
        for (id, one) in wanted {
            if let Some(held) = self.held.get_mut(&id) {
                held.acknowledged = held.acknowledged.max(one.acknowledged_outcomes);
                continue;
            }
            if one.known_to_agent && self.observed_version < desired.version {
                return Err(format!(
                    "{} is to know {id:?}, which it does not hold",
                    self.id
                ));
            }
            let Some((claim, tree)) = spec(one) else {
                return Err(format!("{id:?} was never granted"));
            };
            self.offer.trees.extend(tree);
            let held = Held {
                token: one.token,
                resources: claim.resources,
                left: claim.units.iter().map(|(unit, _)| *unit).collect(),
                claim,
                outcomes: Vec::new(),
                acknowledged: 0,
                first_reported: None,
                stopping: false,
            };
            self.held.insert(id, held);
            self.told.insert(id);
            begun.push(id);
        }
        self.observed_version = desired.version;
        Ok((begun, stopped))
    }

    /// Ends the unit that a lease works on.
    pub(crate) fn end_unit(&mut self, id: LeaseId, kind: OutcomeKind) {
        let Some(held) = self.held.get_mut(&id) else {
            return;
        };
        if held.left.is_empty() {
            return;
        }
        let unit = held.left.remove(0);
        held.outcomes.push(UnitOutcome {
            unit,
            index: u32::try_from(held.outcomes.len()).unwrap_or(u32::MAX),
            slot: SlotIndex(0),
            kind,
        });
    }

    /// What runs on it now.
    pub(crate) fn usage(&self) -> (usize, Resources) {
        let running = self.held.values().filter(|held| held.is_running());
        let nothing = (0, Resources::default());
        running.fold(nothing, |(slots, used), held| {
            (slots + 1, used.plus(&held.resources))
        })
    }
}
