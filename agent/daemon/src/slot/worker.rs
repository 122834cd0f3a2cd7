//! The task of a slot: does what it is told, one thing after the other.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use regatta_agent_core::{ContainerFate, ContainerPlan, Event, LeaseKey};
use regatta_model::{AgentId, SlotIndex};
use regatta_runtime::{ContainerRuntime, ContainerShape};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::SpoolSettings;
use super::container_holder::ContainerHolder;
use super::lease_run::LeaseRun;
use crate::blobs::TenantStores;
use crate::disk_watch::DiskWatch;
use crate::engine_watch::EngineWatch;
use crate::image_watch::ImageChanges;
use crate::input_tree::InputTreeCache;
use crate::lease_spec::{Assignment, LeaseSpec};
use crate::live_output::LiveSender;
use crate::occurrence::{CoreEvent, Occurrence, OccurrenceSender};
use crate::outcome::Refusal;

/// How long a persistent worker waits for its next lease.
const WORKER_IDLE_LIMIT: Duration = Duration::from_secs(10);

/// What all slots share.
#[derive(Debug)]
pub(crate) struct Workshop {
    pub(crate) agent: AgentId,
    pub(crate) runtime: Arc<dyn ContainerRuntime>,
    pub(crate) trees: Arc<InputTreeCache>,
    pub(crate) stores: TenantStores,
    pub(crate) spool: SpoolSettings,
    /// How large the outputs of one execution may be together.
    pub(crate) max_output_bytes: u64,
    pub(crate) live: LiveSender,
    pub(crate) engine: Arc<EngineWatch>,
    pub(crate) disk: Arc<DiskWatch>,
    pub(crate) image_changes: Arc<ImageChanges>,
    pub(crate) driver: OccurrenceSender,
    /// Ends every wait when the agent ends.
    pub(crate) ending: CancellationToken,
}

/// What a slot is told.
#[derive(Debug)]
pub(crate) enum SlotCommand {
    /// Run a lease.
    Start {
        key: LeaseKey,
        assignment: Arc<Assignment>,
        plan: ContainerPlan,
        cancel: CancellationToken,
    },
    /// Start a container ahead, in place of what is there.
    Warm(ContainerShape),
    /// End the container.
    Evict,
}

impl SlotCommand {
    /// If it is a lease that a container of this shape is being started for: what ends its wait.
    fn waits_for(&self, shape: &ContainerShape) -> Option<&CancellationToken> {
        match self {
            Self::Start {
                assignment,
                plan: ContainerPlan::Reuse,
                cancel,
                ..
            } => match &**assignment {
                Assignment::Valid(spec) if spec.shape.is_like(shape) => Some(cancel),
                Assignment::Valid(_) | Assignment::Invalid { .. } => None,
            },
            Self::Start { .. } | Self::Warm(_) | Self::Evict => None,
        }
    }
}

/// The worker of one slot.
#[derive(Debug)]
pub(crate) struct SlotWorker {
    slot: SlotIndex,
    workshop: Arc<Workshop>,
    holder: ContainerHolder,
}

impl SlotWorker {
    pub(crate) fn new(slot: SlotIndex, workshop: Arc<Workshop>) -> Self {
        let holder = ContainerHolder::new(
            Arc::clone(&workshop.runtime),
            Arc::clone(&workshop.engine),
            Arc::clone(&workshop.image_changes),
            workshop.ending.clone(),
        );
        Self {
            slot,
            workshop,
            holder,
        }
    }

    /// Does what it is told until nobody is left to tell it anything; then ends the container.
    pub(crate) async fn run(mut self, mut commands: mpsc::Receiver<SlotCommand>) {
        let mut next = commands.recv().await;
        while let Some(command) = next {
            next = match command {
                SlotCommand::Start {
                    key,
                    assignment,
                    plan,
                    cancel,
                } => {
                    self.start(key, &assignment, plan, &cancel).await;
                    self.next(&mut commands).await
                }
                SlotCommand::Warm(shape) => self.warm(&shape, &mut commands).await,
                SlotCommand::Evict => {
                    self.holder.discard().await;
                    commands.recv().await
                }
            };
        }
        self.holder.discard().await;
    }

    /// The next command. A persistent worker waits for it for a while, and is ended then.
    async fn next(&mut self, commands: &mut mpsc::Receiver<SlotCommand>) -> Option<SlotCommand> {
        if self.holder.worker_mut().is_some() {
            match tokio::time::timeout(WORKER_IDLE_LIMIT, commands.recv()).await {
                Ok(next) => return next,
                Err(_) => self.holder.end_worker().await,
            }
            if !self.holder.is_held() {
                self.workshop.tell(Event::ContainerLost(self.slot)).await;
            }
        }
        commands.recv().await
    }

    /// Runs a lease. A panic costs the lease and its container, not the slot.
    async fn start(
        &mut self,
        key: LeaseKey,
        assignment: &Assignment,
        plan: ContainerPlan,
        cancel: &CancellationToken,
    ) {
        let work = self.assignment(key, assignment, plan, cancel).boxed();
        let event = match AssertUnwindSafe(work).catch_unwind().await {
            Ok(()) => {
                let kept = self.holder.is_held();
                let fate = if kept {
                    ContainerFate::Kept
                } else {
                    ContainerFate::Gone
                };
                Event::LeaseFinished(self.slot, key, fate)
            }
            Err(_) => {
                tracing::error!(lease = %key.lease, slot = %self.slot, "a lease broke its slot");
                self.holder.discard().await;
                Event::SlotFailed(self.slot, key)
            }
        };
        self.workshop.tell(event).await;
    }

    async fn assignment(
        &mut self,
        key: LeaseKey,
        assignment: &Assignment,
        plan: ContainerPlan,
        cancel: &CancellationToken,
    ) {
        match assignment {
            Assignment::Valid(spec) => self.lease(key, spec, plan, cancel).await,
            Assignment::Invalid { units, message } => {
                for unit in units {
                    let outcome = Refusal::rejected(message.clone()).outcome(*unit, self.slot);
                    self.workshop
                        .tell(Event::UnitFinished(self.slot, key, outcome))
                        .await;
                }
            }
        }
    }

    async fn lease(
        &mut self,
        key: LeaseKey,
        spec: &LeaseSpec,
        plan: ContainerPlan,
        cancel: &CancellationToken,
    ) {
        let span = tracing::info_span!(
            "lease",
            agent = %self.workshop.agent,
            slot = %self.slot,
            lease = %key.lease,
            run = %spec.run,
            task = %spec.task,
            description = spec.description,
        );
        let run = LeaseRun {
            workshop: &self.workshop,
            slot: self.slot,
            key,
            spec,
            cancel,
        };
        run.run(&mut self.holder, plan).instrument(span).await;
    }

    /// Starts a container ahead, and waits for the next command. Nothing waits for a container that it has
    /// no use for: the start, which may be a pull of many minutes, is given up.
    async fn warm(
        &mut self,
        shape: &ContainerShape,
        commands: &mut mpsc::Receiver<SlotCommand>,
    ) -> Option<SlotCommand> {
        let warming = self.holder.prepare(shape, ContainerPlan::Replace);
        let mut warming = std::pin::pin!(warming);
        let (warmed, next) = tokio::select! {
            biased;
            warmed = &mut warming => (Some(warmed), None),
            next = commands.recv() => match next.as_ref().and_then(|next| next.waits_for(shape)) {
                Some(cancel) => tokio::select! {
                    warmed = &mut warming => (Some(warmed), Some(next)),
                    () = cancel.cancelled() => (None, Some(next)),
                },
                None => (None, Some(next)),
            },
        };
        if let Some(Err(error)) = warmed {
            tracing::warn!(%error, slot = %self.slot, "no container could be started ahead");
            self.workshop.tell(Event::ContainerLost(self.slot)).await;
        }
        match next {
            Some(next) => next,
            None => commands.recv().await,
        }
    }
}

impl Workshop {
    /// Tells the driver. If it is gone, so is everyone who wants to know.
    pub(crate) async fn tell(&self, event: CoreEvent) {
        self.driver.send(Occurrence::Core(event)).await.ok();
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use regatta_cas::{DiskCache, DiskCacheSettings};
    use regatta_model::{Digest, NetworkAccess, Resources, RootDirectory, TenantId};
    use regatta_runtime::ContainerCommand;
    use regatta_runtime::fake::{FakeRun, FakeRuntime};
    use tonic::transport::Endpoint;

    use super::super::persistent_worker::{PersistentWorker, Streams};
    use super::super::program_message::Sought;
    use super::super::view::View;
    use super::*;
    use crate::availability::Availability;
    use crate::input_tree::TreeKey;
    use crate::live_output::live_queue;
    use crate::occurrence::occurrence_queue;

    fn workshop(directory: &Path, fake: FakeRuntime, driver: OccurrenceSender) -> Workshop {
        let runtime: Arc<dyn ContainerRuntime> = Arc::new(fake);
        // Nothing asks it for anything.
        let channel = Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
        let blobs = DiskCache::open(DiskCacheSettings {
            directory: directory.join("blobs"),
            capacity_bytes: 1 << 20,
            min_free_bytes: 0,
        });
        let trees = InputTreeCache::open(directory.join("trees"), 1 << 20).unwrap();
        let availability = Arc::new(Availability::new(driver.clone()));
        let (trees, stores) = (
            Arc::new(trees),
            TenantStores::new(channel, (blobs.unwrap(), 1 << 20)),
        );
        Workshop {
            agent: "agent".parse().unwrap(),
            engine: EngineWatch::new(Arc::clone(&runtime), Arc::clone(&availability)),
            disk: DiskWatch::new(
                (directory, 0),
                (Arc::clone(&trees), stores.clone()),
                availability,
                driver.clone(),
            ),
            runtime,
            trees,
            stores,
            spool: SpoolSettings {
                scratch: directory.to_owned(),
                max_bytes: 0,
            },
            max_output_bytes: 0,
            live: live_queue().0,
            driver,
            image_changes: Arc::default(),
            ending: CancellationToken::new(),
        }
    }

    /// Gives the container to a worker.
    async fn lend(slot: &mut SlotWorker) {
        let shape = ContainerShape {
            image: None,
            image_id: None,
            work_path: "/work".into(),
            root: RootDirectory::Image,
            resources: Resources::default(),
            network: NetworkAccess::Off,
        };
        let tenant: TenantId = "tenant".parse().unwrap();
        let store = slot.workshop.stores.of(&tenant);
        let root = Digest::EMPTY;
        let key = TreeKey { tenant, root };
        let tree = slot.workshop.trees.acquire(key, &store).await.unwrap();
        let view = slot.holder.mount(&shape, tree.path()).await.unwrap();
        let view = View::new(view, RootDirectory::Image);
        let streams = Streams::new().unwrap();
        let command = ContainerCommand {
            arguments: vec!["worker".to_owned()],
            environment: std::collections::BTreeMap::new(),
            working_directory: "".into(),
            stdout: streams.stdout,
            stderr: streams.stderr,
            stdin: Some(streams.stdin),
            timeout: Duration::MAX,
        };
        let named = ("key".to_owned(), Sought::new(&command, &shape));
        let lent = slot.holder.lend(&shape, |container| {
            PersistentWorker::start(container, named, (view, tree), (command, streams.ends))
        });
        lent.unwrap();
    }

    #[tokio::test]
    async fn an_idle_worker_is_ended_after_a_while_and_told_if_its_container_is_lost() {
        for is_lost in [false, true] {
            let directory = tempfile::tempdir().unwrap();
            let fake = FakeRuntime::new(directory.path().join("views"), move |_| match is_lost {
                false => FakeRun::Hang,
                true => FakeRun::Lose,
            });
            let (driver, mut occurrences) = occurrence_queue();
            let workshop = workshop(directory.path(), fake.clone(), driver);
            let mut slot = SlotWorker::new(SlotIndex(3), Arc::new(workshop));
            lend(&mut slot).await;
            let (commands, mut told) = mpsc::channel(1);
            tokio::time::pause();
            {
                let begun = tokio::time::Instant::now();
                let mut next = std::pin::pin!(slot.next(&mut told));
                let waiting = tokio::time::timeout(WORKER_IDLE_LIMIT * 2, occurrences.recv());
                let occurrence = tokio::select! {
                    _ = &mut next => panic!("nobody commands anything"),
                    occurrence = waiting => occurrence.ok().flatten(),
                };
                assert!(begun.elapsed() >= WORKER_IDLE_LIMIT);
                let told_lost = matches!(
                    occurrence,
                    Some(Occurrence::Core(Event::ContainerLost(SlotIndex(3))))
                );
                assert_eq!(told_lost, is_lost, "{occurrence:?}");
            }
            tokio::time::resume();
            assert!(slot.holder.worker_mut().is_none());
            assert_eq!(slot.holder.is_held(), !is_lost);
            assert_eq!(fake.live(), usize::from(!is_lost));
            drop(commands);
        }
    }
}
