//! The loop around the core: wait, turn what happened into one event, decide, do.

use std::sync::Arc;

use regatta_agent_core::{AgentCore, ConnectionId, Effect, Event, LeaseKey, Report};
use regatta_model::{AgentId, SlotIndex, Timestamp};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::blobs::TenantStores;
use crate::clock::Clock;
use crate::connection::{Offer, Outgoing, in_first_words, report_to_wire};
use crate::error::AgentError;
use crate::input_tree::InputTreeCache;
use crate::lease_spec::{Assignment, container_shape};
use crate::occurrence::{CoreEvent, Occurrence};
use crate::outcome::Outcome;
use crate::slot::SlotCommand;

/// How many commands wait for a slot. The core has at most one lease in a slot, and before it one
/// container to start ahead and one to end.
pub(crate) const QUEUED_COMMANDS: usize = 16;
/// How many trees an offer names.
const OFFERED_TREES: usize = 256;

/// Carries out what the core decides.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) core: AgentCore<Arc<Assignment>, Outcome>,
    pub(crate) clock: Clock,
    pub(crate) agent: AgentId,
    pub(crate) incarnation: String,
    pub(crate) offer: Offer,
    pub(crate) trees: Arc<InputTreeCache>,
    pub(crate) stores: TenantStores,
    pub(crate) slots: Vec<SlotHandle>,
    pub(crate) outgoing: Option<Outgoing>,
}

/// The driver's end of a slot.
#[derive(Debug)]
pub(crate) struct SlotHandle {
    pub(crate) commands: mpsc::Sender<SlotCommand>,
    pub(crate) lease: Option<(LeaseKey, CancellationToken)>,
}

/// Whether to go on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Course {
    Continue,
    Exit,
}

impl Driver {
    /// Runs until the core decides to end, or the coordinator refuses this agent for good.
    pub(crate) async fn run(
        mut self,
        mut occurrences: mpsc::Receiver<Occurrence>,
        shutdown: CancellationToken,
        kill: CancellationToken,
    ) -> Result<(), AgentError> {
        let mut draining = false;
        let (mut course, mut wake_at) = self.feed(Event::Tick);
        while course == Course::Continue {
            let event = tokio::select! {
                biased;
                () = kill.cancelled() => Event::Kill,
                () = shutdown.cancelled(), if !draining => {
                    draining = true;
                    tracing::info!("draining: finishing what runs, taking nothing new");
                    Event::Drain
                }
                id = sent(self.outgoing.as_ref()) => Event::ReportSent(id),
                occurrence = occurrences.recv() => match occurrence {
                    Some(occurrence) => match self.event_of(occurrence)? {
                        Some(event) => event,
                        None => continue,
                    },
                    None => Event::Kill,
                },
                () = self.clock.sleep_until(wake_at) => Event::Tick,
            };
            (course, wake_at) = self.feed(event);
        }
        Ok(())
    }

    fn event_of(&mut self, occurrence: Occurrence) -> Result<Option<CoreEvent>, AgentError> {
        match occurrence {
            Occurrence::Core(event) => Ok(Some(event)),
            Occurrence::Opened(outgoing) => {
                let id = outgoing.id;
                tracing::info!(connection = id.0, "connected to the coordinator");
                self.outgoing = Some(outgoing);
                Ok(Some(Event::ConnectionOpened(id)))
            }
            Occurrence::Refused(error) => Err(error),
            Occurrence::Images(images) => {
                let changed = self.offer.images != images;
                self.offer.images = images;
                Ok(changed.then_some(Event::OfferChanged))
            }
            Occurrence::TreesChanged => {
                let mut trees = self.trees.roots(OFFERED_TREES);
                trees.sort_unstable();
                let changed = self.offer.trees != trees;
                self.offer.trees = trees;
                Ok(changed.then_some(Event::OfferChanged))
            }
        }
    }

    fn feed(&mut self, event: CoreEvent) -> (Course, Option<Timestamp>) {
        self.forget_ended(&event);
        let step = self.core.step(self.clock.now(), event);
        let mut course = Course::Continue;
        for effect in step.effects {
            if self.carry_out(effect) == Course::Exit {
                course = Course::Exit;
            }
        }
        self.measure();
        (course, step.wake_at)
    }

    /// Keeps the driver's own books in step with what ended.
    fn forget_ended(&mut self, event: &CoreEvent) {
        match event {
            Event::ConnectionLost(id) => {
                self.outgoing.take_if(|outgoing| outgoing.id == *id);
            }
            Event::LeaseFinished(slot, key, _) | Event::SlotFailed(slot, key) => {
                if let Some(handle) = self.slot(*slot) {
                    handle.lease.take_if(|(lease, _)| lease == key);
                }
            }
            Event::ConnectionOpened(_)
            | Event::ReportSent(_)
            | Event::Desired(..)
            | Event::LeaseStarted(..)
            | Event::UnitFinished(..)
            | Event::ContainerLost(_)
            | Event::OfferChanged
            | Event::Unavailable(_)
            | Event::Drain
            | Event::Kill
            | Event::Tick => {}
        }
    }

    fn carry_out(&mut self, effect: Effect<Arc<Assignment>, Outcome>) -> Course {
        match effect {
            Effect::SendReport(report) => self.send(report),
            Effect::Start {
                slot,
                lease,
                spec,
                container,
            } => {
                let cancel = CancellationToken::new();
                if let Some(handle) = self.slot(slot) {
                    handle.lease = Some((lease, cancel.clone()));
                }
                let (key, assignment, plan) = (lease, spec, container);
                self.command(
                    slot,
                    SlotCommand::Start {
                        key,
                        assignment,
                        plan,
                        cancel,
                    },
                );
            }
            Effect::Stop { slot, lease } => {
                let held = self.slot(slot).and_then(|handle| handle.lease.as_ref());
                if let Some((_, cancel)) = held.filter(|(key, _)| *key == lease) {
                    cancel.cancel();
                }
            }
            Effect::Warm { slot, shape } => {
                self.command(slot, SlotCommand::Warm(container_shape(&shape)));
            }
            Effect::Evict { slot } => self.command(slot, SlotCommand::Evict),
            Effect::Exit => return Course::Exit,
        }
        Course::Continue
    }

    /// A connection that is gone takes no report; that it is gone follows as an event of its own.
    fn send(&mut self, report: Report<Arc<Assignment>, Outcome>) {
        let Some(outgoing) = self
            .outgoing
            .as_ref()
            .filter(|open| open.id == report.connection)
        else {
            return;
        };
        let offer = report.with_offer.then_some(&self.offer);
        let mut message = report_to_wire(report, &self.agent, &self.incarnation, offer);
        if outgoing.in_first_words {
            in_first_words(&mut message);
        }
        if outgoing.reports.try_send(message).is_err() {
            tracing::debug!("a report was not taken: the connection is ending");
        }
    }

    fn command(&mut self, slot: SlotIndex, command: SlotCommand) {
        let taken = self
            .slot(slot)
            .map(|handle| handle.commands.try_send(command));
        if !matches!(taken, Some(Ok(()))) {
            // The bound is above what the core can ask for; this slot's task is gone.
            tracing::error!(%slot, "a slot takes no commands");
        }
    }

    fn slot(&mut self, slot: SlotIndex) -> Option<&mut SlotHandle> {
        self.slots.get_mut(usize::try_from(slot.0).ok()?)
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "metrics are floating-point numbers"
    )]
    fn measure(&self) {
        metrics::gauge!("regatta_agent_slots", "state" => "busy")
            .set(self.core.busy_slots() as f64);
        metrics::gauge!("regatta_agent_slots", "state" => "warm")
            .set(self.core.warm_slots() as f64);
        metrics::gauge!("regatta_agent_tree_cache_bytes").set(self.trees.bytes() as f64);
        metrics::gauge!("regatta_agent_blob_cache_bytes").set(self.stores.cached_bytes() as f64);
    }
}

impl Drop for Driver {
    /// Whatever still runs when the driver ends is killed.
    fn drop(&mut self) {
        for (_, cancel) in self.slots.iter().filter_map(|slot| slot.lease.as_ref()) {
            cancel.cancel();
        }
    }
}

/// Waits until the report in flight has left.
async fn sent(outgoing: Option<&Outgoing>) -> ConnectionId {
    match outgoing {
        Some(outgoing) => {
            outgoing.sent.notified().await;
            outgoing.id
        }
        None => std::future::pending().await,
    }
}
