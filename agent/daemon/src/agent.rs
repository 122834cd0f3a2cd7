//! An agent, put together.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use regatta_agent_core::{AgentCore, CoreConfig};
use regatta_cas::{DiskCache, DiskCacheSettings, ServerAddresses, for_blobs};
use regatta_model::{AgentId, SlotIndex};
use regatta_runtime::ContainerRuntime;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::Endpoint;

use crate::availability::Availability;
use crate::blobs::TenantStores;
use crate::clock::Clock;
use crate::config::AgentConfig;
use crate::connection::{ConnectionSettings, Offer, keep_connected};
use crate::disk_watch::DiskWatch;
use crate::driver::{Driver, QUEUED_COMMANDS, SlotHandle};
use crate::engine_watch::EngineWatch;
use crate::error::AgentError;
use crate::image_watch::ImageWatch;
use crate::input_tree::InputTreeCache;
use crate::lease_spec::LeaseDefaults;
use crate::live_output::{live_queue, send_live_output};
use crate::occurrence::occurrence_queue;
use crate::offered_properties::offered_properties;
use crate::slot::{SlotWorker, SpoolSettings, Workshop};
use crate::state_directory::{StateDirectory, hostname};

/// How long slots have to end their containers when the agent ends.
const END_LIMIT: Duration = Duration::from_secs(30);
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How often containers are looked for whose agents are gone.
const REAP_INTERVAL: Duration = Duration::from_secs(60);
/// The runtime that has no images.
const IMAGELESS_RUNTIME: &str = "process";

/// An agent that is ready to run, and holds its state directory.
#[derive(Debug)]
pub struct Agent {
    config: AgentConfig,
    runtime: Arc<dyn ContainerRuntime>,
    directory: StateDirectory,
    id: AgentId,
    coordinators: ServerAddresses,
    endpoint: Endpoint,
    defaults: LeaseDefaults,
}

impl Agent {
    /// Checks the settings and takes the state directory.
    ///
    /// # Errors
    /// See [`AgentError`]; nothing is left locked.
    pub fn new(
        config: AgentConfig,
        runtime: Arc<dyn ContainerRuntime>,
    ) -> Result<Self, AgentError> {
        check(&config)?;
        let coordinators = ServerAddresses::parse(&config.coordinator)
            .map_err(|source| AgentError::InvalidCoordinator { source })?;
        let endpoint = patient(coordinators.endpoint());
        let directory = StateDirectory::open(&config.state_directory)?;
        let id = match &config.agent_id {
            Some(id) => id.clone(),
            None => directory.agent_id()?,
        };
        let invalid = |source| AgentError::InvalidAgentId {
            path: config.state_directory.clone(),
            source,
        };
        let defaults = LeaseDefaults {
            has_images: runtime.name() != IMAGELESS_RUNTIME,
            can_change_root: runtime.can_change_root(),
            image: config.default_image.clone(),
            work_path: config.work_path.clone(),
            nobody: id.as_str().parse().map_err(invalid)?,
            nowhere: id.as_str().parse().map_err(invalid)?,
        };
        Ok(Self {
            config,
            runtime,
            directory,
            id,
            coordinators,
            endpoint,
            defaults,
        })
    }

    /// The agent's name.
    #[must_use]
    pub fn id(&self) -> &AgentId {
        &self.id
    }

    /// Takes part in the fleet until `shutdown` and then until what runs has ended, or until `kill`. In
    /// either case no container and no process is left.
    ///
    /// # Errors
    /// [`AgentError::Refused`], [`AgentError::Superseded`], or the machine is not usable.
    pub async fn run(
        self,
        shutdown: CancellationToken,
        kill: CancellationToken,
    ) -> Result<(), AgentError> {
        let reaped = self.runtime.reap().await?;
        if reaped > 0 {
            tracing::info!(reaped, "removed what an earlier process left behind");
        }
        let (driver_queue, occurrences) = occurrence_queue();
        let (live, live_chunks) = live_queue();
        let ending = CancellationToken::new();
        let channel = self.coordinators.connect_lazy(&self.endpoint);
        let caches = self.open_caches().await?;
        let cached = (caches.blobs, self.config.cache_quota_bytes / 2);
        let stores = TenantStores::new(channel.clone(), cached);
        let availability = Arc::new(Availability::new(driver_queue.clone()));
        let engine = EngineWatch::new(Arc::clone(&self.runtime), Arc::clone(&availability));
        let trees = Arc::new(caches.trees);
        let disk = DiskWatch::new(
            (self.directory.path(), self.config.minimum_free_bytes),
            (Arc::clone(&trees), stores.clone()),
            availability,
            driver_queue.clone(),
        );
        let workshop = Arc::new(Workshop {
            agent: self.id.clone(),
            runtime: Arc::clone(&self.runtime),
            trees,
            stores,
            spool: self.spool(),
            max_output_bytes: self.config.max_output_bytes,
            live,
            engine: Arc::clone(&engine),
            disk: Arc::clone(&disk),
            image_changes: Arc::default(),
            driver: driver_queue.clone(),
            ending: ending.clone(),
        });
        let mut around = JoinSet::new();
        around.spawn(send_live_output(channel, live_chunks));
        around.spawn(keep_connected(
            self.connection_settings(),
            driver_queue.clone(),
        ));
        around.spawn(ImageWatch::new(&workshop).run());
        around.spawn(reap_again(Arc::clone(&self.runtime)));
        around.spawn(engine.run());
        around.spawn(disk.run());
        let mut workers = JoinSet::new();
        let driver = self.driver(&workshop, &mut workers);
        if let Some(limit) = self.config.concurrency_limit() {
            tracing::warn!(agent = %self.id, "{limit}");
        }
        tracing::info!(agent = %self.id, slots = self.config.slots, "the agent is ready");
        let driving = AbortOnDropHandle::new(tokio::spawn(driver.run(occurrences, shutdown, kill)));
        let ended = unpanicked(driving.await);
        ending.cancel();
        around.shutdown().await;
        if tokio::time::timeout(END_LIMIT, wait_for_all(&mut workers))
            .await
            .is_err()
        {
            tracing::error!("slots did not end in time; their containers end with this process");
        }
        // Why the agent ends matters more than that scratch space is left, which the next one removes.
        let removed = self.directory.remove_scratch();
        if let (Err(_), Err(error)) = (&ended, &removed) {
            tracing::warn!(%error, "scratch space is left");
        }
        ended.and(removed)
    }

    /// Opens the caches, which finds what an earlier process left and takes as long as that is much.
    async fn open_caches(&self) -> Result<Caches, AgentError> {
        let (blobs, trees) = (self.directory.blobs(), self.directory.trees());
        // Half for blobs, half for trees: a tree keeps its blobs even if the blob cache has let them go.
        let quota_bytes = self.config.cache_quota_bytes / 2;
        let settings = DiskCacheSettings {
            directory: blobs.clone(),
            capacity_bytes: quota_bytes,
            min_free_bytes: self.config.minimum_free_bytes,
        };
        let opened = tokio::task::spawn_blocking(move || {
            let failed = |operation, path, source| AgentError::StateDirectory {
                operation,
                path,
                source,
            };
            let blobs = DiskCache::open(settings).map_err(|error| {
                failed("opening the blob cache", blobs, io::Error::other(error))
            })?;
            let trees = InputTreeCache::open(trees.clone(), quota_bytes)
                .map_err(|error| failed("opening the tree cache", trees, error))?;
            Ok(Caches { blobs, trees })
        });
        unpanicked(opened.await)
    }

    fn spool(&self) -> SpoolSettings {
        SpoolSettings {
            scratch: self.directory.scratch(),
            max_bytes: self.config.max_stream_bytes,
        }
    }

    fn connection_settings(&self) -> ConnectionSettings {
        ConnectionSettings {
            coordinators: self.coordinators.clone(),
            endpoint: self.endpoint.clone(),
            agent: self.id.clone(),
            defaults: self.defaults.clone(),
        }
    }

    fn driver(&self, workshop: &Arc<Workshop>, workers: &mut JoinSet<()>) -> Driver {
        let core = AgentCore::new(CoreConfig {
            slots: self.config.slots,
            default_shape: self.defaults.shape(),
            drain_timeout: self.config.drain_timeout,
        });
        let mut slots = Vec::new();
        for index in 0..self.config.slots {
            let (commands, queue) = mpsc::channel(QUEUED_COMMANDS);
            let worker = SlotWorker::new(SlotIndex(index), Arc::clone(workshop));
            workers.spawn(worker.run(queue));
            slots.push(SlotHandle {
                commands,
                lease: None,
            });
        }
        Driver {
            core,
            clock: Clock::new(),
            agent: self.id.clone(),
            incarnation: uuid::Uuid::new_v4().to_string(),
            offer: self.offer(),
            trees: Arc::clone(&workshop.trees),
            stores: workshop.stores.clone(),
            slots,
            outgoing: None,
        }
    }

    fn offer(&self) -> Offer {
        let hostname = hostname();
        let properties = offered_properties(&self.config, &*self.runtime, &hostname);
        Offer {
            hostname,
            runtime: self.runtime.name(),
            slots: self.config.slots,
            resources: self.config.resources,
            properties,
            images: Vec::new(),
            trees: Vec::new(),
        }
    }
}

/// What is kept between leases.
struct Caches {
    blobs: DiskCache,
    trees: InputTreeCache,
}

fn check(config: &AgentConfig) -> Result<(), AgentError> {
    let invalid = |setting, requirement| {
        Err(AgentError::InvalidSetting {
            setting,
            requirement,
        })
    };
    if config.slots == 0 {
        return invalid("slots", "at least 1");
    }
    if !config.work_path.starts_with('/') {
        return invalid("work path", "absolute");
    }
    Ok(())
}

/// Connections that are given up once nobody is there any more.
fn patient(endpoint: Endpoint) -> Endpoint {
    for_blobs(endpoint)
        .connect_timeout(CONNECT_LIMIT)
        .keep_alive_while_idle(true)
}

/// Removes what agents leave that are killed, as long as this one runs.
async fn reap_again(runtime: Arc<dyn ContainerRuntime>) {
    loop {
        tokio::time::sleep(REAP_INTERVAL).await;
        match runtime.reap().await {
            Ok(0) => {}
            Ok(reaped) => tracing::info!(reaped, "removed what agents left that are gone"),
            Err(error) => tracing::warn!(%error, "cannot look for what agents left behind"),
        }
    }
}

async fn wait_for_all(tasks: &mut JoinSet<()>) {
    while tasks.join_next().await.is_some() {}
}

/// What a task came to, which nobody cancels; its panic goes on here.
fn unpanicked<T>(joined: Result<T, JoinError>) -> T {
    joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}
