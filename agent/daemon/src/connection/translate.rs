//! Between the protocol's messages and the core's values.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use regatta_agent_core::{
    DEFAULT_HEARTBEAT_INTERVAL, DesiredLease, DesiredState, LeaseKey, LeasePhase, LeaseReport,
    Report,
};
use regatta_model::{AgentId, Digest, FencingToken, ImageReference, LeaseId, Platform, Resources};
use regatta_wire::convert::duration_from_wire;
use regatta_wire::{PROTOCOL_VERSION, reapi, v1};

use crate::lease_spec::{Assignment, LeaseDefaults};
use crate::outcome::Outcome;

/// What the agent has to give.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Offer {
    pub(crate) hostname: String,
    pub(crate) runtime: &'static str,
    pub(crate) slots: u32,
    pub(crate) resources: Resources,
    pub(crate) properties: Platform,
    pub(crate) images: Vec<(ImageReference, String)>,
    pub(crate) trees: Vec<Digest>,
}

impl From<&Offer> for v1::AgentOffer {
    fn from(offer: &Offer) -> Self {
        let image = |(reference, id): &(ImageReference, String)| v1::OfferedImage {
            reference: reference.to_string(),
            id: id.clone(),
        };
        Self {
            hostname: offer.hostname.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            runtime: offer.runtime.to_owned(),
            slots: offer.slots,
            cpu_milli: offer.resources.cpu_milli,
            memory_bytes: offer.resources.memory_bytes,
            properties: reapi::Platform::from(&offer.properties).properties,
            images: offer.images.iter().map(image).collect(),
            trees: offer.trees.iter().map(reapi::Digest::from).collect(),
        }
    }
}

/// A report, as it travels.
pub(crate) fn report_to_wire(
    report: Report<Arc<Assignment>, Outcome>,
    agent: &AgentId,
    incarnation: &str,
    offer: Option<&Offer>,
) -> v1::AgentReport {
    v1::AgentReport {
        protocol_version: PROTOCOL_VERSION,
        agent_id: agent.to_string(),
        incarnation: incarnation.to_owned(),
        sequence: report.sequence,
        observed_version: report.observed_version,
        offer: offer.map(v1::AgentOffer::from),
        leases: report.leases.into_iter().map(lease_to_wire).collect(),
        draining: report.draining,
        unavailable_reason: report.unavailable_reason.unwrap_or_default(),
    }
}

/// Says it in the words of the first release: a coordinator refuses a report with a kind of outcome that it does not know, if
/// it is of an earlier one.
pub(crate) fn in_first_words(report: &mut v1::AgentReport) {
    use v1::OutcomeKind::{
        Cancelled, Completed, ImageAbsent, Infrastructure, OutOfMemory, RegistryUnreachable,
        Rejected, StoreExhausted, TimedOut, Unspecified,
    };
    let leases = report.leases.iter_mut();
    for outcome in leases.flat_map(|lease| &mut lease.outcomes) {
        match outcome.kind() {
            ImageAbsent | RegistryUnreachable | StoreExhausted => outcome.set_kind(Infrastructure),
            Unspecified | Completed | TimedOut | OutOfMemory | Rejected | Infrastructure
            | Cancelled => {}
        }
    }
}

fn lease_to_wire(lease: LeaseReport<Arc<Assignment>, Outcome>) -> v1::HeldLease {
    let phase = match lease.phase {
        LeasePhase::Staging => v1::LeasePhase::Staging,
        LeasePhase::Running => v1::LeasePhase::Running,
        LeasePhase::Finished => v1::LeasePhase::Finished,
    };
    v1::HeldLease {
        lease_id: lease.key.lease.0,
        fencing_token: lease.key.token.0,
        phase: phase.into(),
        slot: lease.slot.map(|slot| slot.0),
        outcomes: lease
            .outcomes
            .into_iter()
            .map(Arc::unwrap_or_clone)
            .collect(),
        outcome_count: lease.outcome_count,
        claim: lease.spec.map_or_else(Bytes::new, |spec| spec.claim()),
    }
}

/// A desired state, as the core wants it. What is wrong with a lease becomes its outcome.
pub(crate) fn desired_from_wire(
    state: v1::DesiredState,
    defaults: &LeaseDefaults,
) -> DesiredState<Arc<Assignment>> {
    DesiredState {
        version: state.version,
        observed_sequence: state.observed_sequence,
        drain: state.drain,
        heartbeat_interval: heartbeat_interval(state.heartbeat_interval.as_ref()),
        leases: state
            .leases
            .into_iter()
            .map(|lease| desired_lease(lease, defaults))
            .collect(),
    }
}

fn heartbeat_interval(interval: Option<&prost_types::Duration>) -> Duration {
    let interval = interval.and_then(|interval| duration_from_wire(interval).ok());
    interval
        .filter(|interval| !interval.is_zero())
        .unwrap_or(DEFAULT_HEARTBEAT_INTERVAL)
}

fn desired_lease(
    lease: v1::DesiredLease,
    defaults: &LeaseDefaults,
) -> DesiredLease<Arc<Assignment>> {
    DesiredLease {
        key: LeaseKey {
            lease: LeaseId(lease.lease_id),
            token: FencingToken(lease.fencing_token),
        },
        acknowledged_outcomes: lease.acknowledged_outcomes,
        work: lease.spec.map(|spec| defaults.read(spec)),
    }
}
