//! What the scheduler knows, for metrics and for people.

use crate::Scheduler;
use crate::agent::Agent;
use crate::lease::Lease;
use crate::queue::{Run, Tenant};
use regatta_model::{AgentId, FencingToken, LeaseId, RunId, TaskId, TenantId, Timestamp};

/// The state of the queue and the fleet at one moment; everything in it is sorted by id.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    /// How many units wait, over all tenants.
    pub queued_units: usize,
    /// How many units are leased, over all tenants.
    pub leased_units: usize,
    /// Tenants that have work.
    pub tenants: Vec<TenantSnapshot>,
    /// Every agent remembered, lost ones included.
    pub agents: Vec<AgentSnapshot>,
    /// Why nothing new is leased, if so.
    pub held: Option<String>,
}

/// The work of one tenant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TenantSnapshot {
    /// Which tenant.
    pub tenant: TenantId,
    /// Its share of the fleet, relative to the others'.
    pub weight: u32,
    /// Its runs that have work.
    pub runs: Vec<RunSnapshot>,
}

/// The work of one run. Work that several runs share is counted at the first of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RunSnapshot {
    /// Which run.
    pub run: RunId,
    /// How many tasks it has that are not finished, merged ones included.
    pub tasks: usize,
    /// How many of its units wait.
    pub queued_units: usize,
    /// How many of its units are leased.
    pub leased_units: usize,
}

/// What is known of one agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AgentSnapshot {
    /// Which agent.
    pub agent: AgentId,
    /// Whether its connection is up.
    pub connected: bool,
    /// Whether it was silent for so long that its leases have expired.
    pub lost: bool,
    /// Whether an operator drains it.
    pub draining: bool,
    /// Why it says that it takes no new work; `None` if it takes some.
    pub refusal: Option<String>,
    /// Whether it holds leases that are not its own, for which it gets nothing new.
    pub holds_foreign: bool,
    /// Whether it is kept free for work that needs much of it.
    pub reserved: bool,
    /// When it reported last.
    pub last_report: Timestamp,
    /// Until when it gets nothing because it lost too many leases in a row.
    pub cooling_off_until: Option<Timestamp>,
    /// How many leases of an earlier scheduler it is left with until somebody asks for them.
    pub awaiting_adoption: usize,
    /// How many leases it can have at once.
    pub slots: u32,
    /// How many more it could have now.
    pub free_slots: u32,
    /// What it was granted and has not let go of, oldest first.
    pub leases: Vec<LeaseSnapshot>,
}

/// One lease of an agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaseSnapshot {
    /// Which lease.
    pub lease: LeaseId,
    /// Its fencing token.
    pub token: FencingToken,
    /// What it is for.
    pub task: TaskId,
    /// On whose account, and on behalf of what; nothing once it is over and the agent has only to
    /// let go of it.
    pub account: Option<(TenantId, RunId)>,
    /// When it was granted.
    pub granted_at: Timestamp,
    /// How many of its units have no outcome yet.
    pub pending_units: usize,
    /// Whether the agent should still hold it.
    pub desired: bool,
}

impl Scheduler {
    /// What waits and who works.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            queued_units: self.queued_units,
            leased_units: self.leased_units,
            tenants: self.queue.by_id().map(tenant_snapshot).collect(),
            agents: self
                .fleet
                .agents_by_id()
                .map(|agent| self.agent_snapshot(agent))
                .collect(),
            held: self.held().map(str::to_owned),
        }
    }

    /// Until when an agent gets nothing because it lost too many leases in a row.
    #[must_use]
    pub fn cooling_off_until(&self, agent: &AgentId) -> Option<Timestamp> {
        let key = self.fleet.agent_key(agent)?;
        self.fleet.agents[key].cooling_off_until
    }

    fn agent_snapshot(&self, agent: &Agent) -> AgentSnapshot {
        let leases = agent.leases.iter().filter_map(|id| self.leases.get(id));
        AgentSnapshot {
            agent: agent.id.clone(),
            connected: agent.connected,
            lost: agent.lost,
            draining: agent.draining,
            refusal: agent.refusal.clone(),
            holds_foreign: agent.foreign_since.is_some(),
            reserved: agent.reserved_for.is_some(),
            last_report: agent.last_report,
            cooling_off_until: agent.cooling_off_until,
            awaiting_adoption: self.awaiting_adoption(&agent.id),
            slots: agent.slots,
            free_slots: agent.free_slots(),
            leases: leases.map(|lease| self.lease_snapshot(lease)).collect(),
        }
    }

    fn awaiting_adoption(&self, agent: &AgentId) -> usize {
        let key = self.fleet.agent_key(agent);
        key.map_or(0, |key| self.adoptions.of_agent(key).count())
    }

    fn lease_snapshot(&self, lease: &Lease) -> LeaseSnapshot {
        // A lease that occupies nothing no longer keeps its run alive: then nothing is known of it.
        let run = (!lease.vacated).then(|| self.queue.run(lease.run));
        LeaseSnapshot {
            lease: lease.id,
            token: lease.token,
            task: lease.granted_for,
            account: run.map(|run| (self.queue.tenant(run.tenant).id.clone(), run.id.clone())),
            granted_at: lease.granted_at,
            pending_units: lease.pending.len(),
            desired: lease.task.is_some(),
        }
    }
}

fn tenant_snapshot<'queue>(
    (tenant, runs): (&Tenant, impl Iterator<Item = &'queue Run>),
) -> TenantSnapshot {
    let run_snapshot = |run: &Run| RunSnapshot {
        run: run.id.clone(),
        tasks: run.tasks.len(),
        queued_units: run.queued_units,
        leased_units: run.leased_units,
    };
    TenantSnapshot {
        tenant: tenant.id.clone(),
        weight: tenant.weight,
        runs: runs.map(run_snapshot).collect(),
    }
}
