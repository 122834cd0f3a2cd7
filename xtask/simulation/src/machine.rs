//! A machine: an agent's real core, and slots that only look busy.

use std::sync::Arc;
use std::time::Duration;

use regatta_agent_core::{
    AgentCore, CoreConfig, Demand, DesiredLease, DesiredState, Event, LeaseKey, LeasePhase, Report,
    Shape, ShareKey, Step, Work,
};
use regatta_model::{
    FencingToken, Isolation, LeaseId, NetworkAccess, Resources, RootDirectory, SlotIndex, Timestamp,
};
use regatta_wire::convert::duration_from_wire;
use regatta_wire::{PROTOCOL_VERSION, v1};

use crate::coordinator::tenant;
use crate::job::Task;
use crate::plan::MachinePlan;
use crate::said::Link;

/// What a lease asks for.
pub(crate) type Spec = Arc<v1::LeaseSpec>;
/// What an execution came to.
pub(crate) type Outcome = Arc<v1::ExecutionOutcome>;
/// When every machine's clock began.
const CLOCK_BEGAN: Timestamp = Timestamp::from_nanos(1_700_000_000_000_000_000);
/// How long an agent that is asked to end may take for it.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(60);

/// One machine.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) index: usize,
    plan: MachinePlan,
    /// Tells what belongs to an earlier start of the agent.
    pub(crate) life: u64,
    /// The agent, if it runs.
    pub(crate) core: Option<AgentCore<Spec, Outcome>>,
    /// The connection that the agent believes to have.
    pub(crate) link: Option<Link>,
    links: u64,
    pub(crate) slots: Vec<Option<Working>>,
    /// When the agent wants to be woken.
    pub(crate) wake_at: Option<Duration>,
    pub(crate) partitioned_until: Duration,
    pub(crate) fails_until: Duration,
    pub(crate) slots_fail_until: Duration,
    pub(crate) connect_attempts: u32,
    /// Whether it is to be started again once it has ended.
    pub(crate) restarts_after: Option<Duration>,
}

/// A lease in a slot.
#[derive(Clone, Debug)]
pub(crate) struct Working {
    pub(crate) key: LeaseKey,
    pub(crate) spec: Spec,
    /// What each of its executions is, once its inputs are laid out.
    pub(crate) tasks: Vec<Task>,
    /// Which of its executions is next.
    pub(crate) next: usize,
    pub(crate) stopped: bool,
    /// Tells what belongs to an earlier part of the work.
    pub(crate) part: u64,
}

impl Machine {
    pub(crate) fn new(index: usize, plan: &MachinePlan) -> Self {
        Self {
            index,
            plan: plan.clone(),
            life: 0,
            core: None,
            link: None,
            links: 0,
            slots: Vec::new(),
            wake_at: None,
            partitioned_until: Duration::ZERO,
            fails_until: Duration::ZERO,
            slots_fail_until: Duration::ZERO,
            connect_attempts: 0,
            restarts_after: None,
        }
    }

    pub(crate) fn name(&self) -> String {
        format!("m{}", self.index)
    }

    pub(crate) fn slot_count(&self) -> u32 {
        self.plan.slots
    }

    /// Its agent starts, and knows nothing.
    pub(crate) fn start(&mut self) {
        self.life += 1;
        self.link = None;
        self.wake_at = None;
        self.connect_attempts = 0;
        self.restarts_after = None;
        self.slots = (0..self.plan.slots).map(|_| None).collect();
        self.core = Some(AgentCore::new(CoreConfig {
            slots: self.plan.slots,
            default_shape: Some(shape()),
            drain_timeout: DRAIN_TIMEOUT,
        }));
    }

    /// Everything on it ends.
    pub(crate) fn stop(&mut self) {
        self.core = None;
        self.link = None;
        self.wake_at = None;
        self.slots.clear();
    }

    pub(crate) fn next_link(&mut self) -> Link {
        self.links += 1;
        Link {
            machine: self.index,
            number: self.links,
        }
    }

    /// What its clock shows.
    fn clock(&self, now: Duration) -> Timestamp {
        let passed = now.as_nanos() * u128::from(self.plan.clock_rate) / 1000;
        let passed = Duration::from_nanos(u64::try_from(passed).unwrap_or(u64::MAX));
        CLOCK_BEGAN + self.plan.clock_ahead + passed
    }

    /// When its clock has come to an instant.
    fn when(&self, instant: Timestamp) -> Duration {
        let passed = instant.since(CLOCK_BEGAN + self.plan.clock_ahead);
        let micros = passed.as_micros() * 1000 / u128::from(self.plan.clock_rate);
        let millis = u64::try_from(micros / 1000).unwrap_or(u64::MAX);
        Duration::from_millis(millis.saturating_add(1))
    }

    /// Tells its agent something; when it wants to be woken, by everybody else's clock.
    pub(crate) fn step(
        &mut self,
        now: Duration,
        event: Event<Spec, Outcome>,
    ) -> Option<(Step<Spec, Outcome>, Option<Duration>)> {
        let clock = self.clock(now);
        let step = self.core.as_mut()?.step(clock, event);
        let wake_at = step.wake_at.map(|instant| self.when(instant).max(now));
        Some((step, wake_at))
    }

    /// A report, as it travels.
    pub(crate) fn report(&self, report: Report<Spec, Outcome>) -> v1::AgentReport {
        let offer = report.with_offer.then(|| v1::AgentOffer {
            hostname: self.name(),
            runtime: "process".to_owned(),
            slots: self.plan.slots,
            cpu_milli: 64_000,
            memory_bytes: 1 << 40,
            ..Default::default()
        });
        let lease = |lease: regatta_agent_core::LeaseReport<Spec, Outcome>| v1::HeldLease {
            lease_id: lease.key.lease.0,
            fencing_token: lease.key.token.0,
            phase: phase(lease.phase).into(),
            slot: lease.slot.map(|slot| slot.0),
            outcomes: lease
                .outcomes
                .into_iter()
                .map(Arc::unwrap_or_clone)
                .collect(),
            outcome_count: lease.outcome_count,
            claim: lease
                .spec
                .map(|spec| spec.claim.clone())
                .unwrap_or_default(),
        };
        v1::AgentReport {
            protocol_version: PROTOCOL_VERSION,
            agent_id: self.name(),
            incarnation: self.life.to_string(),
            sequence: report.sequence,
            observed_version: report.observed_version,
            offer,
            leases: report.leases.into_iter().map(lease).collect(),
            draining: report.draining,
            unavailable_reason: report.unavailable_reason.unwrap_or_default(),
        }
    }
}

const fn phase(phase: LeasePhase) -> v1::LeasePhase {
    match phase {
        LeasePhase::Staging => v1::LeasePhase::Staging,
        LeasePhase::Running => v1::LeasePhase::Running,
        LeasePhase::Finished => v1::LeasePhase::Finished,
    }
}

fn shape() -> Shape {
    Shape {
        image: None,
        work_path: "/work".to_owned(),
        root: RootDirectory::Image,
        resources: Resources::default(),
        network: NetworkAccess::Off,
    }
}

/// A desired state, as the core wants it.
pub(crate) fn desired(state: v1::DesiredState) -> DesiredState<Spec> {
    let heartbeat = state.heartbeat_interval.as_ref();
    let heartbeat = heartbeat.and_then(|it| duration_from_wire(it).ok());
    DesiredState {
        version: state.version,
        observed_sequence: state.observed_sequence,
        drain: state.drain,
        heartbeat_interval: heartbeat.unwrap_or(regatta_agent_core::DEFAULT_HEARTBEAT_INTERVAL),
        leases: state.leases.into_iter().map(desired_lease).collect(),
    }
}

fn desired_lease(lease: v1::DesiredLease) -> DesiredLease<Spec> {
    DesiredLease {
        key: LeaseKey {
            lease: LeaseId(lease.lease_id),
            token: FencingToken(lease.fencing_token),
        },
        acknowledged_outcomes: lease.acknowledged_outcomes,
        work: lease.spec.and_then(work),
    }
}

fn work(spec: v1::LeaseSpec) -> Option<Work<Spec>> {
    let key = ShareKey {
        tenant: tenant(),
        run: spec.run_id.parse().ok()?,
        shape: shape(),
    };
    Some(Work {
        demand: Demand {
            key,
            isolation: Isolation::Run,
        },
        avoid: spec.avoid_slot.map(SlotIndex),
        spec: Arc::new(spec),
    })
}
