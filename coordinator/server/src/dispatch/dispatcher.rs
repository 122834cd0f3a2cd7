//! The dispatcher itself: the lock, the clock and the two background tasks.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use regatta_ledger::{Ledger, LedgerError};
use regatta_model::{AgentId, FencingToken, LeaseId, RunId, TaskId, TenantId, Timestamp};
use regatta_scheduler::{AdmissionError, AgentState, Event, Scheduler, SchedulerConfig};
use regatta_wire::convert::timestamp_to_wire;
use regatta_wire::v1;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::agents::{CloseReason, Connection};
use super::background::{Commits, keep_commits, keep_time};
use super::board::{Board, Payloads, Taken};
use super::claim::ClaimKey;
use super::clock::Clock;
use super::leases::Lease;
use super::{TaskHandle, ValidChunk, ValidReport, Work};

/// What may be chosen.
#[derive(Clone, Debug)]
pub struct DispatchConfig {
    /// The bounds of the scheduler. Its `first_token` is taken from the ledger instead.
    pub scheduler: SchedulerConfig,
    /// How long the ledger may refuse what leases need before work stops waiting for it. Default: 10 s.
    pub commit_patience: Duration,
    /// What the claims of leases are sealed with. Leases go on after a restart if it has the same. Default: one that
    /// nobody else has.
    pub claim_key: ClaimKey,
}

impl Default for DispatchConfig {
    fn default() -> Self {
        Self {
            scheduler: SchedulerConfig::default(),
            commit_patience: Duration::from_secs(10),
            claim_key: ClaimKey::random(),
        }
    }
}

/// Why a dispatcher cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// It is not known which fencing tokens were used before. Repair the ledger.
    #[error("the reserved fencing tokens could not be read")]
    Ledger(#[from] LedgerError),
}

/// Gives work to agents and answers to submitters. See the module for what holds.
#[derive(Debug)]
pub struct Dispatcher {
    board: Mutex<Board>,
    pub(super) heartbeat_interval: Duration,
    pub(super) ledger: Arc<dyn Ledger>,
    clock: Clock,
    pub(super) wake_at: watch::Sender<Option<Timestamp>>,
    pub(super) commit: Arc<Notify>,
    pub(super) commit_patience: Duration,
    pub(super) claim_key: ClaimKey,
    /// Whether nothing new is leased.
    pub(super) holding: watch::Sender<bool>,
    pub(super) commits: watch::Sender<Commits>,
    background: OnceLock<[AbortOnDropHandle<()>; 2]>,
}

impl Dispatcher {
    /// Starts to dispatch, on the current Tokio runtime.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn start(
        config: DispatchConfig,
        ledger: Arc<dyn Ledger>,
    ) -> Result<Arc<Self>, StartError> {
        let reserved = ledger.reserved_tokens().await?;
        let first_token = FencingToken(reserved.saturating_add(1));
        let dispatcher = Arc::new(Self {
            heartbeat_interval: config.scheduler.heartbeat_interval,
            board: Mutex::new(Board::new(Scheduler::new(SchedulerConfig {
                first_token,
                ..config.scheduler
            }))),
            ledger,
            clock: Clock::start(),
            wake_at: watch::Sender::new(None),
            commit: Arc::new(Notify::new()),
            commit_patience: config.commit_patience,
            claim_key: config.claim_key,
            holding: watch::Sender::default(),
            commits: watch::Sender::default(),
            background: OnceLock::new(),
        });
        let timer = tokio::spawn(keep_time(Arc::downgrade(&dispatcher)));
        let committer = tokio::spawn(keep_commits(Arc::downgrade(&dispatcher)));
        dispatcher.background.get_or_init(|| {
            [
                AbortOnDropHandle::new(timer),
                AbortOnDropHandle::new(committer),
            ]
        });
        Ok(dispatcher)
    }

    /// Takes work in.
    ///
    /// # Errors
    /// The queue is full, or the work has no units.
    pub fn submit(self: &Arc<Self>, work: Work) -> Result<TaskHandle, AdmissionError> {
        self.submit_to(self.lock(), work)
    }

    /// Takes work in that can be merged with identical work submitted earlier; `None` if there is none.
    ///
    /// # Errors
    /// The queue is full.
    pub fn merge(self: &Arc<Self>, work: Work) -> Result<Option<TaskHandle>, AdmissionError> {
        let board = self.lock();
        if !board.would_merge(&work) {
            return Ok(None);
        }
        self.submit_to(board, work).map(Some)
    }

    fn submit_to(
        self: &Arc<Self>,
        mut board: MutexGuard<'_, Board>,
        work: Work,
    ) -> Result<TaskHandle, AdmissionError> {
        let (task, mailbox, taken) = board.submit(self.now(), work);
        self.follow_up(&board, &taken);
        drop(board);
        match taken.refused {
            Some(error) => Err(error),
            None => Ok(TaskHandle {
                task,
                mailbox,
                dispatcher: Arc::clone(self),
            }),
        }
    }

    /// Cancels everything of a run.
    pub fn cancel_run(&self, tenant: TenantId, run: RunId) {
        self.take(Event::CancelRun(tenant, run), Payloads::new());
    }

    /// Lets an agent finish what it holds and gives it nothing new; or ends that. Whether the agent
    /// is known.
    pub fn drain_agent(&self, agent: &AgentId, drain: bool) -> bool {
        let known = {
            let mut board = self.lock();
            board
                .agents
                .get_mut(agent)
                .map(|known| known.drained_by_operator = drain)
                .is_some()
        };
        if known {
            self.take(Event::DrainAgent(agent.clone(), drain), Payloads::new());
        }
        known
    }

    /// Leases nothing new as long as this is so, which is why; `None`: that is over. What is leased goes on, but for what
    /// has yet to be prepared before its agent is told of it: that waits with the rest. What waits for too long is given
    /// up ([`SchedulerConfig::hold_limit`]).
    pub fn hold(&self, reason: Option<String>) {
        if self.held() == reason {
            return;
        }
        match &reason {
            Some(reason) => tracing::warn!(reason, "no work is begun"),
            None => tracing::info!("work is begun again"),
        }
        let is_held = reason.is_some();
        self.take(Event::Hold(reason), Payloads::new());
        self.holding.send_replace(is_held);
    }

    /// Why nothing new is leased, if so.
    #[must_use]
    pub fn held(&self) -> Option<String> {
        self.lock().held()
    }

    /// Waits until that begins or ends.
    pub(crate) async fn hold_changes(&self) {
        // The sender lives in `self`, so this cannot fail.
        drop(self.holding.subscribe().changed().await);
    }

    /// Every agent known, connected or not, by id.
    #[must_use]
    pub fn list_agents(&self) -> Vec<v1::AgentStatus> {
        let board = self.lock();
        let lease = |(id, lease): (LeaseId, &Lease)| v1::AgentLease {
            lease_id: id.0,
            run_id: lease.work.run.to_string(),
            description: lease.work.spec.description.clone(),
            phase: lease.phase.into(),
            granted_at: Some(timestamp_to_wire(self.clock.shown(lease.granted_at))),
        };
        let status = |(id, agent): (&AgentId, &super::agents::Agent)| v1::AgentStatus {
            agent_id: id.to_string(),
            offer: Some(agent.offer.clone()),
            connected: agent.connection.is_some(),
            draining: agent.draining || agent.drained_by_operator,
            unavailable_reason: agent.unavailable_reason.clone(),
            last_report: Some(timestamp_to_wire(self.clock.shown(agent.last_report))),
            leases: board.leases.of_agent(id).map(lease).collect(),
            paused_until: board
                .cooling_off_until(id)
                .map(|until| timestamp_to_wire(self.clock.shown(until))),
        };
        board.agents.iter().map(status).collect()
    }

    /// What waits and who works, for metrics and for people.
    #[must_use]
    pub fn snapshot(&self) -> regatta_scheduler::Snapshot {
        self.lock().snapshot()
    }

    /// What would come of work if it were submitted now, together and alone.
    #[must_use]
    pub fn forecast(&self, works: &[Work]) -> regatta_scheduler::Forecast {
        self.lock().forecast(works)
    }

    /// Waits until the ledger has refused what leases need for longer than an action should wait, and tells why.
    pub async fn stalled(&self) -> LedgerError {
        self.trouble_once(|commits| commits.stalled).await
    }

    /// The same for longer than runs wait.
    pub(crate) async fn unstored(&self) -> LedgerError {
        self.trouble_once(|commits| commits.failed).await
    }

    async fn trouble_once(&self, is_so: impl Fn(&Commits) -> bool) -> LedgerError {
        let mut commits = self.commits.subscribe();
        // The sender lives in `self`, so this cannot fail.
        let commits = commits.wait_for(|commits| is_so(commits)).await;
        let trouble = commits.ok().and_then(|commits| commits.trouble.clone());
        trouble.unwrap_or(LedgerError::Closed)
    }

    /// Why the ledger did not take the last reservation, if it did not.
    #[must_use]
    pub fn trouble(&self) -> Option<LedgerError> {
        self.commits.borrow().trouble.clone()
    }

    /// Begins an agent's connection; one that it had before is ended.
    #[must_use]
    pub fn connect(self: &Arc<Self>, agent: &AgentId, incarnation: &str) -> Connection {
        let now = self.now();
        let mut board = self.lock();
        let (id, outbox, superseded) = board.agents.connect(agent, now);
        metrics::gauge!("regatta_agents_connected").set(as_gauge(board.agents.connected()));
        if superseded {
            self.take_disconnected(&mut board, now, agent);
        }
        drop(board);
        tracing::info!(%agent, incarnation, superseded, "an agent has connected");
        Connection {
            agent: agent.clone(),
            id,
            outbox: Some(outbox),
            dispatcher: Arc::clone(self),
        }
    }

    /// Passes a piece of live output on. What no valid lease accounts for is dropped.
    pub fn output(&self, chunk: ValidChunk) {
        self.lock().output(chunk);
    }

    pub(super) fn disconnect(&self, agent: &AgentId, connection: u64) {
        let now = self.now();
        let mut board = self.lock();
        if !board.agents.disconnect(agent, connection) {
            return;
        }
        metrics::gauge!("regatta_agents_connected").set(as_gauge(board.agents.connected()));
        self.take_disconnected(&mut board, now, agent);
        drop(board);
        tracing::info!(%agent, "an agent has disconnected");
    }

    /// Tells the scheduler that a connection has ended, under the lock under which it did: afterwards the
    /// agent's next connection may already have reported.
    fn take_disconnected(&self, board: &mut Board, now: Timestamp, agent: &AgentId) {
        let event = Event::AgentDisconnected(agent.clone());
        let taken = board.take(now, event, Payloads::new());
        self.follow_up(board, &taken);
    }

    pub(super) fn report(
        &self,
        agent: &AgentId,
        connection: u64,
        report: ValidReport,
    ) -> Result<(), CloseReason> {
        let now = self.now();
        let mut board = self.lock();
        let known = board.agents.current(agent, connection)?;
        known.last_report = now;
        known.draining = report.draining;
        known
            .unavailable_reason
            .clone_from(&report.unavailable_reason);
        let refusal = report.refusal();
        let offer = report.offer.map(|(message, offer)| {
            known.offer = message;
            offer
        });
        let mut payloads = Payloads::new();
        let mut leases = Vec::with_capacity(report.leases.len());
        for reported in report.leases {
            let (id, phase) = (reported.lease, reported.phase);
            let (held, outcomes) = match board.leases.get_mut(id) {
                Some(lease) => {
                    lease.phase = phase;
                    lease.held(reported)
                }
                None => board.claims.held(&self.claim_key, agent, reported),
            };
            payloads.extend(outcomes.into_iter().map(|(index, it)| ((id, index), it)));
            leases.push(held);
        }
        let state = AgentState {
            agent: agent.clone(),
            sequence: report.sequence,
            observed_version: report.observed_version,
            offer,
            leases,
            refusal,
        };
        let taken = board.take(now, Event::AgentReported(state), payloads);
        self.follow_up(&board, &taken);
        Ok(())
    }

    pub(super) fn cancel_task(&self, task: TaskId) {
        self.take(Event::CancelTask(task), Payloads::new());
    }

    pub(super) fn take(&self, event: Event, payloads: Payloads) {
        let now = self.now();
        let mut board = self.lock();
        let taken = board.take(now, event, payloads);
        self.follow_up(&board, &taken);
    }

    /// Wakes the background tasks as a step asks. The board is still locked, so that what a later step
    /// asks is never overwritten by what an earlier one did.
    fn follow_up(&self, _locked: &Board, taken: &Taken) {
        self.wake_at.send_if_modified(|wake_at| {
            let changed = *wake_at != taken.wake_at;
            *wake_at = taken.wake_at;
            changed
        });
        if taken.must_commit {
            self.commit.notify_one();
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(super) fn instant_of(&self, time: Timestamp) -> Instant {
        self.clock.instant_of(time)
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn as_gauge(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::MAX, f64::from)
}
