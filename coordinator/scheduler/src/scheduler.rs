//! The state machine: which event does what.

use std::collections::BTreeSet;
use std::time::Duration;

use regatta_model::{Digest, LeaseId, RunId, TaskId, TenantId, Timestamp};

use crate::adoption::Adoptions;
use crate::avoidance::Group;
use crate::fleet::{AgentKey, ClassKey, Fleet};
use crate::hold::Hold;
use crate::lease::Lease;
use crate::lookup::Lookup;
use crate::queue::{FairQueue, RunKey, TenantKey};
use crate::slab::Slab;
use crate::task::{Task, TaskKey};
use crate::timers::{Timer, Timers};
use crate::token::TokenSource;
use crate::{Effect, Event, SchedulerConfig, Step};

/// Who runs what, where, and next. See the crate's documentation for what holds.
///
/// A time before that of an earlier step is taken for that of the earlier step: it never goes back.
#[derive(Debug)]
pub struct Scheduler {
    pub(crate) config: SchedulerConfig,
    pub(crate) now: Timestamp,
    /// Counts the events of all time.
    pub(crate) events: u64,
    pub(crate) arrivals: u64,
    /// The last group of tasks that avoid one slot.
    pub(crate) last_group: Group,
    pub(crate) queued_units: usize,
    pub(crate) leased_units: usize,
    /// How many submitters wait for what another one submitted.
    pub(crate) merged_submitters: usize,
    pub(crate) tasks: Slab<Task>,
    pub(crate) submitted: Lookup<TaskId, (TaskKey, RunKey)>,
    pub(crate) merging: Lookup<(TenantKey, Digest), TaskKey>,
    pub(crate) queue: FairQueue,
    pub(crate) fleet: Fleet,
    pub(crate) leases: Lookup<LeaseId, Lease>,
    /// Leases that are late and that no other has the units of.
    pub(crate) late: BTreeSet<LeaseId>,
    pub(crate) tokens: TokenSource,
    /// What agents hold from before this scheduler.
    pub(crate) adoptions: Adoptions,
    pub(crate) timers: Timers,
    /// Why nothing new is leased, if so.
    pub(crate) hold: Option<Hold>,
    /// Whether the fleet had an agent when the last step ended.
    pub(crate) had_live_agents: bool,
    /// Agents that may take more than before.
    pub(crate) agents_to_fill: BTreeSet<AgentKey>,
    /// Classes that may be placed where they could not be before.
    pub(crate) classes_to_place: BTreeSet<ClassKey>,
    /// Agents whose desired state has changed.
    pub(crate) agents_to_tell: BTreeSet<AgentKey>,
    /// What this step has led to so far.
    pub(crate) step: Step,
}

impl Scheduler {
    /// A scheduler that knows of no work and no agents.
    #[must_use]
    pub fn new(config: SchedulerConfig) -> Self {
        Self {
            tokens: TokenSource::new(&config),
            config,
            now: Timestamp::EPOCH,
            events: 0,
            arrivals: 0,
            last_group: Group::MIN,
            queued_units: 0,
            leased_units: 0,
            merged_submitters: 0,
            tasks: Slab::default(),
            submitted: Lookup::default(),
            merging: Lookup::default(),
            queue: FairQueue::default(),
            fleet: Fleet::default(),
            leases: Lookup::default(),
            late: BTreeSet::new(),
            adoptions: Adoptions::default(),
            timers: Timers::default(),
            hold: None,
            had_live_agents: false,
            agents_to_fill: BTreeSet::new(),
            classes_to_place: BTreeSet::new(),
            agents_to_tell: BTreeSet::new(),
            step: Step::default(),
        }
    }

    /// Takes one event at one time.
    ///
    /// The event counts before whatever else is due by then, so that a report which arrives at the last
    /// moment saves its agent's leases. Nothing in an event makes this panic; what makes no sense, such
    /// as a task id that is in use or the cancellation of an unknown one, is passed over.
    pub fn step(&mut self, now: Timestamp, event: Event) -> Step {
        self.now = self.now.max(now);
        self.events += 1;
        if self.events == 1 {
            self.begin_adoption();
        }
        self.handle(event);
        while let Some(timer) = self.timers.due(self.now) {
            self.events += 1;
            self.ring(timer);
        }
        self.review_satisfiability();
        self.place();
        self.duplicate_late();
        self.tell_agents();
        self.fleet.forget_idle_classes();
        self.step.wake_at = self.timers.next();
        std::mem::take(&mut self.step)
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Submit(submission) => self.submit(submission),
            Event::CancelTask(task) => self.cancel_task(task),
            Event::CancelRun(tenant, run) => self.cancel_run(&tenant, &run),
            Event::AgentReported(state) => self.reported(state),
            Event::AgentDisconnected(agent) => self.disconnected(&agent),
            Event::DrainAgent(agent, drain) => self.drain(&agent, drain),
            Event::Hold(reason) => self.hold(reason),
            Event::ReturnLease(lease) => self.return_lease(lease),
            Event::Tick => {}
        }
    }

    fn ring(&mut self, timer: Timer) {
        match timer {
            Timer::AgentSilent(agent) => self.lose_agent(agent),
            Timer::CooledOff(agent) => self.end_cooling_off(agent),
            Timer::ForgetAgent(agent) => self.forget_agent(agent),
            Timer::Unsatisfiable(class) => self.give_up(class),
            Timer::RetryAnywhere(class) => self.retry_anywhere(class),
            Timer::Overdue(agent) => self.review_overdue(agent),
            Timer::Reserved(agent) => self.end_reservation_in_vain(agent),
            Timer::Late(lease) => self.find_late(lease),
            Timer::AdoptionEnds => self.end_adoption(),
            Timer::Held => self.give_up_held(),
        }
    }

    fn cancel_run(&mut self, tenant: &TenantId, run: &RunId) {
        let Some(key) = self.queue.run_key(tenant, run) else {
            return;
        };
        for task in self.queue.run(key).tasks.clone() {
            self.cancel_task(task);
        }
    }

    pub(crate) fn effect(&mut self, effect: Effect) {
        self.step.effects.push(effect);
    }

    pub(crate) fn after(&self, duration: Duration) -> Timestamp {
        self.now + duration
    }
}
