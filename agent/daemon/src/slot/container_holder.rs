//! The container of a slot, with a bound on everything asked of it.

use std::future::Future;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use regatta_agent_core::ContainerPlan;
use regatta_model::RootDirectory;
use regatta_runtime::{
    Container, ContainerCommand, ContainerRuntime, ContainerShape, Exit, RuntimeError,
};
use tokio_util::sync::CancellationToken;

use super::persistent_worker::{Ended, PersistentWorker};
use crate::engine_watch::EngineWatch;
use crate::image_watch::ImageChanges;
use crate::input_tree::PinnedTree;

/// How long an image may take to arrive.
const IMAGE_LIMIT: Duration = Duration::from_secs(900);
const START_LIMIT: Duration = Duration::from_secs(120);
const MOUNT_LIMIT: Duration = Duration::from_secs(60);
const WIPE_LIMIT: Duration = Duration::from_secs(15);
const STOP_LIMIT: Duration = Duration::from_secs(15);
/// How much longer than a command's timeout the runtime may take to say how it ended.
const EXECUTE_GRACE: Duration = Duration::from_secs(30);

/// A slot's container, if it has one.
#[derive(Debug)]
pub(crate) struct ContainerHolder {
    runtime: Arc<dyn ContainerRuntime>,
    engine: Arc<EngineWatch>,
    held: Option<(ContainerShape, Box<dyn Container>)>,
    /// A worker that has the container instead.
    worker: Option<(ContainerShape, PersistentWorker)>,
    /// What the view in the container is of, if a worker has left it.
    tree: Option<PinnedTree>,
    image_changes: Arc<ImageChanges>,
    /// How many there had been when the container was last known to have the image that its name means.
    current_at: Option<u64>,
    /// Ends every wait.
    ending: CancellationToken,
}

impl ContainerHolder {
    pub(crate) fn new(
        runtime: Arc<dyn ContainerRuntime>,
        engine: Arc<EngineWatch>,
        image_changes: Arc<ImageChanges>,
        ending: CancellationToken,
    ) -> Self {
        Self {
            runtime,
            engine,
            held: None,
            worker: None,
            tree: None,
            image_changes,
            current_at: None,
            ending,
        }
    }

    pub(crate) fn is_held(&self) -> bool {
        self.held.is_some() || self.worker.is_some()
    }

    pub(crate) fn image_id(&self) -> &str {
        match (&self.held, &self.worker) {
            (Some((_, container)), _) => container.image_id(),
            (None, Some((_, worker))) => worker.image_id(),
            (None, None) => "",
        }
    }

    /// Whether there is a worker in a container of the shape that serves leases of this key.
    pub(crate) fn serves(&self, shape: &ContainerShape, key: &str) -> bool {
        let mut worker = self.worker.iter();
        let is_current = || self.current_at == Some(self.image_changes.count());
        worker.any(|(held, worker)| {
            let has_image = has_image(shape, (held, worker.image_id()));
            held.is_like(shape) && worker.serves(key) && has_image.unwrap_or_else(is_current)
        })
    }

    pub(crate) fn worker_mut(&mut self) -> Option<&mut PersistentWorker> {
        self.worker.as_mut().map(|(_, worker)| worker)
    }

    /// Gives the container to a worker.
    pub(crate) fn lend(
        &mut self,
        shape: &ContainerShape,
        start: impl FnOnce(Box<dyn Container>) -> PersistentWorker,
    ) -> Result<(), RuntimeError> {
        let (_, container) = self.held.take().ok_or_else(no_container)?;
        self.worker = Some((shape.clone(), start(container)));
        Ok(())
    }

    /// Takes the container back from a worker once it has ended, for which it has some time, and tells how it did.
    /// After an error the container is gone.
    pub(crate) async fn take_back(&mut self, patience: Duration) -> Result<Exit, RuntimeError> {
        let (shape, worker) = self.worker.take().ok_or_else(no_container)?;
        let abort = worker.abort_handle();
        let limit = patience.saturating_add(EXECUTE_GRACE);
        let ended = bounded(limit, "ending a persistent worker", worker.end(patience)).await;
        // Its container ends with it.
        let ended = ended.inspect_err(|_| abort.abort())?;
        let Ended {
            container,
            exit,
            tree,
        } = ended;
        match exit {
            Ok(exit) => {
                self.held = Some((shape, container));
                self.tree = Some(tree);
                Ok(exit)
            }
            Err(error) => {
                // As after any command: nothing more is to be lost the same way.
                self.engine.is_away().await;
                bounded(STOP_LIMIT, "stopping a container", container.stop())
                    .await
                    .ok();
                Err(error)
            }
        }
    }

    /// Ends a worker, if there is one; its container is as good as new, or gone.
    pub(crate) async fn end_worker(&mut self) {
        if self.worker.is_none() {
            return;
        }
        match self.take_back(Duration::ZERO).await {
            Ok(_) => self.wipe().await,
            Err(error) => tracing::warn!(%error, "a persistent worker could not be ended"),
        }
    }

    /// The `PATH` that the image gives, if that is what commands see.
    pub(crate) fn search_path(&self) -> Option<&str> {
        match self.held.as_ref()? {
            (shape, container) if shape.root == RootDirectory::Image => container.search_path(),
            // There is nothing of the image where the command runs.
            _ => None,
        }
    }

    /// Has a container of the shape: the one that is there, if the plan allows it, or else a new one. An engine that
    /// is away is waited for.
    pub(crate) async fn prepare(
        &mut self,
        shape: &ContainerShape,
        plan: ContainerPlan,
    ) -> Result<(), RuntimeError> {
        self.end_worker().await;
        if plan == ContainerPlan::Reuse && self.fits(shape).await {
            return Ok(());
        }
        self.discard().await;
        let ending = self.ending.clone();
        let container = tokio::select! {
            container = self.start_patiently(shape) => container?,
            () = ending.cancelled() => {
                let detail = "the agent ends".to_owned();
                return Err(RuntimeError::ContainerLost { detail });
            }
        };
        self.held = Some((shape.clone(), container));
        Ok(())
    }

    /// Whether the container is of the shape, with the image that it is to have.
    async fn fits(&mut self, shape: &ContainerShape) -> bool {
        let Some((held, container)) = &self.held else {
            return false;
        };
        if !held.is_like(shape) {
            return false;
        }
        if let Some(known) = has_image(shape, (held, container.image_id())) {
            return known;
        }
        let held_id = container.image_id().to_owned();
        let changes = Some(self.image_changes.count());
        if let Some(image) = &shape.image
            && self.current_at != changes
        {
            let meant = self.runtime.ensure_image(image, None);
            match bounded(IMAGE_LIMIT, "getting the image", meant).await {
                Ok(id) if id == held_id => self.current_at = changes,
                Ok(_) | Err(_) => return false,
            }
        }
        true
    }

    async fn start_patiently(
        &mut self,
        shape: &ContainerShape,
    ) -> Result<Box<dyn Container>, RuntimeError> {
        match self.start(shape).await {
            Err(error @ RuntimeError::Engine { .. }) => match self.engine.returns().await {
                true => self.start(shape).await,
                false => Err(error),
            },
            started => started,
        }
    }

    async fn start(&mut self, shape: &ContainerShape) -> Result<Box<dyn Container>, RuntimeError> {
        let is_current = shape.image_id.is_none();
        self.current_at = is_current.then(|| self.image_changes.count());
        if let Some(image) = &shape.image {
            let had = self.runtime.ensure_image(image, shape.image_id.as_deref());
            bounded(IMAGE_LIMIT, "getting the image", had).await?;
        }
        let started = self.runtime.start(shape);
        bounded(START_LIMIT, "starting a container", started).await
    }

    /// Ends the container. That it would not end is the engine's trouble, and in the log.
    pub(crate) async fn discard(&mut self) {
        self.end_worker().await;
        self.stop().await;
    }

    async fn stop(&mut self) {
        if let Some((_, container)) = self.held.take() {
            let stopped = bounded(STOP_LIMIT, "stopping a container", container.stop()).await;
            if let Err(error) = stopped {
                tracing::warn!(%error, "a container did not stop");
            }
        }
        self.tree = None;
    }

    /// A fresh view of a tree. A container that died while it was idle is replaced once.
    pub(crate) async fn mount(
        &mut self,
        shape: &ContainerShape,
        lower: &Path,
    ) -> Result<Arc<OwnedFd>, RuntimeError> {
        self.prepare(shape, ContainerPlan::Reuse).await?;
        match self.try_mount(lower).await {
            Ok(view) => Ok(view),
            // Another container would not change the tree.
            Err(error @ RuntimeError::UnfitTree { .. }) => Err(error),
            Err(error) => {
                tracing::info!(%error, "the container is of no use; starting another");
                self.prepare(shape, ContainerPlan::Replace).await?;
                self.try_mount(lower).await
            }
        }
    }

    async fn try_mount(&mut self, lower: &Path) -> Result<Arc<OwnedFd>, RuntimeError> {
        let (_, container) = self.held.as_mut().ok_or_else(no_container)?;
        bounded(
            MOUNT_LIMIT,
            "showing the input tree",
            container.mount(lower),
        )
        .await
    }

    /// Runs a command. After an error the container is gone.
    pub(crate) async fn execute(
        &mut self,
        command: ContainerCommand,
        cancel: CancellationToken,
    ) -> Result<Exit, RuntimeError> {
        let (_, container) = self.held.as_mut().ok_or_else(no_container)?;
        let limit = command.timeout.saturating_add(EXECUTE_GRACE);
        let ended = container.execute(command, cancel);
        let ended = bounded(limit, "waiting for the command to end", ended).await;
        if ended.is_err() {
            // Before anyone hears of it: nothing more is to be lost the same way.
            self.engine.is_away().await;
            self.discard().await;
        }
        ended
    }

    /// Makes the container as good as new, or ends it; one that a worker has is left to it.
    pub(crate) async fn wipe(&mut self) {
        // A wipe that is given up takes its container with it.
        let Some((shape, mut container)) = self.held.take() else {
            return;
        };
        let wiped = bounded(WIPE_LIMIT, "wiping a container", container.wipe()).await;
        self.held = Some((shape, container));
        self.tree = None;
        if let Err(error) = wiped {
            tracing::warn!(%error, "a container could not be wiped; it is ended");
            self.stop().await;
        }
    }
}

/// Whether what is held has the image that a shape wants; `None` if it wants what the name means now.
fn has_image(wanted: &ContainerShape, held: (&ContainerShape, &str)) -> Option<bool> {
    let (held, image_id) = held;
    let wanted = wanted.image_id.as_ref()?;
    // An engine may call the content by another id than it was asked for by.
    Some(wanted == image_id || held.image_id.as_ref() == Some(wanted))
}

fn no_container() -> RuntimeError {
    RuntimeError::ContainerLost {
        detail: "the slot has none".to_owned(),
    }
}

async fn bounded<T>(
    limit: Duration,
    operation: &'static str,
    work: impl Future<Output = Result<T, RuntimeError>>,
) -> Result<T, RuntimeError> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
        let detail = format!("it took more than {} s", limit.as_secs());
        Err(RuntimeError::Engine { operation, detail })
    })
}

#[cfg(test)]
mod tests {
    use regatta_model::{NetworkAccess, Resources};
    use regatta_runtime::fake::{FakeRun, FakeRuntime};

    use super::*;
    use crate::availability::Availability;
    use crate::occurrence::occurrence_queue;

    #[tokio::test]
    async fn a_wipe_that_is_given_up_takes_its_container_with_it() {
        let directory = tempfile::tempdir().unwrap();
        let fake = FakeRuntime::new(directory.path().to_owned(), |_| FakeRun::exit(0));
        let runtime: Arc<dyn ContainerRuntime> = Arc::new(fake.clone());
        let availability = Arc::new(Availability::new(occurrence_queue().0));
        let engine = EngineWatch::new(Arc::clone(&runtime), availability);
        let mut holder =
            ContainerHolder::new(runtime, engine, Arc::default(), CancellationToken::new());
        let shape = ContainerShape {
            image: None,
            image_id: None,
            work_path: "/work".into(),
            root: RootDirectory::Image,
            resources: Resources::default(),
            network: NetworkAccess::Off,
        };
        let prepared = holder.prepare(&shape, ContainerPlan::Replace).await;
        prepared.unwrap();
        holder.wipe().await;
        assert!(holder.is_held());
        fake.hang_wipes(1);
        {
            let mut wipe = std::pin::pin!(holder.wipe());
            assert!(futures::poll!(&mut wipe).is_pending());
            assert_eq!((fake.hanging(), fake.live()), (1, 1));
        }
        assert!(!holder.is_held());
        assert_eq!(fake.live(), 0);
    }
}
