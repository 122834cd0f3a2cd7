//! What is known of one agent.

use std::collections::BTreeSet;

use regatta_model::{AgentId, LeaseId, Resources, Timestamp};

use crate::Offer;
use crate::affinity::Warmth;
use crate::fleet::KindKey;
use crate::kind::FreeShape;

/// One agent, connected or not.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) id: AgentId,
    pub(crate) connected: bool,
    pub(crate) lost: bool,
    pub(crate) draining: bool,
    pub(crate) accepts_work: bool,
    pub(crate) last_report: Timestamp,
    /// The last report of this connection.
    pub(crate) sequence: u64,
    /// The desired state that the last report took into account.
    pub(crate) observed: u64,
    /// The last desired state that was sent.
    pub(crate) version: u64,
    /// The last report that it took into account; none on this connection yet.
    pub(crate) answered_sequence: Option<u64>,
    /// Its leases, those that it need not hold any more included, until it says that they are gone.
    pub(crate) leases: BTreeSet<LeaseId>,
    /// Leases that it holds and that are not its own to hold, and the report that had each first.
    pub(crate) foreign: Vec<(LeaseId, u64)>,
    /// Whether one of those may still be running, on capacity that nobody has accounted for.
    pub(crate) foreign_running: bool,
    /// What its leases use that may still be running.
    pub(crate) used_slots: u32,
    pub(crate) used_resources: Resources,
    /// How many leases in a row it lost.
    pub(crate) consecutive_losses: u32,
    pub(crate) cooling_off_until: Option<Timestamp>,
    pub(crate) silent_at: Option<Timestamp>,
    pub(crate) forget_at: Option<Timestamp>,
    pub(crate) slots: u32,
    pub(crate) resources: Resources,
    pub(crate) warmth: Warmth,
    /// The kind that its last offer makes it.
    pub(crate) kind: Option<KindKey>,
    /// How the indexes count it.
    pub(crate) listed: Listing,
}

/// How an agent stands in the indexes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Listing {
    pub(crate) live: bool,
    pub(crate) willing: bool,
    pub(crate) free: Option<FreeShape>,
}

impl Agent {
    pub(crate) fn new(id: AgentId) -> Self {
        Self {
            id,
            connected: false,
            lost: true,
            draining: false,
            accepts_work: false,
            last_report: Timestamp::EPOCH,
            sequence: 0,
            observed: 0,
            version: 0,
            answered_sequence: None,
            leases: BTreeSet::new(),
            foreign: Vec::new(),
            foreign_running: false,
            used_slots: 0,
            used_resources: Resources::default(),
            consecutive_losses: 0,
            cooling_off_until: None,
            silent_at: None,
            forget_at: None,
            slots: 0,
            resources: Resources::default(),
            warmth: Warmth::default(),
            kind: None,
            listed: Listing::default(),
        }
    }

    pub(crate) fn offer(&mut self, offer: &Offer) {
        self.slots = offer.slots;
        self.resources = offer.resources;
        self.warmth = Warmth::new(offer);
    }

    pub(crate) fn free_slots(&self) -> u32 {
        self.slots.saturating_sub(self.used_slots)
    }

    pub(crate) fn free_resources(&self) -> Resources {
        self.resources.minus(&self.used_resources)
    }

    pub(crate) fn occupy(&mut self, resources: &Resources) {
        self.used_slots = self.used_slots.saturating_add(1);
        self.used_resources = self.used_resources.plus(resources);
    }

    pub(crate) fn vacate(&mut self, resources: &Resources) {
        self.used_slots = self.used_slots.saturating_sub(1);
        self.used_resources = self.used_resources.minus(resources);
    }

    /// How it should stand in the indexes.
    pub(crate) fn listing(&self) -> Listing {
        let live = !self.lost && self.kind.is_some();
        let willing = live && self.accepts_work && !self.draining;
        let able = willing
            && self.connected
            && self.cooling_off_until.is_none()
            && !self.foreign_running
            && self.free_slots() > 0;
        Listing {
            live,
            willing,
            free: able.then(|| FreeShape {
                slots: self.free_slots(),
                resources: self.free_resources(),
            }),
        }
    }
}
