//! The runtime of Docker containers.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bollard::models::ImageInspect;
use futures::stream::BoxStream;
use regatta_model::ImageReference;

use super::container::{DockerContainer, Launched};
use super::engine::{ConnectError, Engine};
use super::options::DockerOptions;
use super::owner::Owner;
use super::pull_failure::{replaced, unavailable};
use super::specification::{AGENT_LABEL, INSTANCE_LABEL, OWNER_LABEL, Specification};
use super::unclaimed::Unclaimed;
use crate::control::{ControlListener, InitConnection, lost};
use crate::engine_error::io_error;
use crate::own_user::own_user;
use crate::port::{Container, ContainerRuntime, ContainerShape, RuntimeError};
use crate::run_directory::{ContainerDirectory, RunDirectory};
use crate::view::{ViewStrategy, Views, probe};

/// Containers of the Docker engine on this machine.
#[derive(Debug)]
pub struct DockerRuntime {
    engine: Engine,
    options: DockerOptions,
    owner: Option<Owner>,
    run_directory: Arc<RunDirectory>,
    views: Views,
}

impl DockerRuntime {
    /// Connects to the engine and finds out how views can be made.
    ///
    /// # Errors
    /// There is no engine that this process can use; the error names the fix.
    pub async fn connect(options: DockerOptions) -> Result<Self, ConnectError> {
        let engine = Engine::connect(options.host.as_deref()).await?;
        let run_directory = RunDirectory::create(&options.run_directory).map_err(|source| {
            let directory = options.run_directory.display().to_string();
            ConnectError::RunDirectory { directory, source }
        })?;
        let views = probe(&run_directory.path());
        let owner = Owner::this_process()
            .inspect_err(|error| {
                tracing::warn!(%error, "other agents cannot tell when this one is gone");
            })
            .ok();
        Ok(Self {
            engine,
            options,
            owner,
            run_directory,
            views,
        })
    }

    /// How views are made here, and why not better.
    #[must_use]
    pub fn view_strategy(&self) -> ViewStrategy {
        self.views.strategy()
    }

    /// The image of that content if one is asked for, even if the name means another one now: whoever asks has begun
    /// with it.
    async fn image_of(
        &self,
        image: &ImageReference,
        id: Option<&str>,
    ) -> Result<ImageInspect, RuntimeError> {
        let Some(id) = id else {
            return self.image(image).await;
        };
        if let Some(found) = self.engine.image(id).await? {
            return Ok(found);
        }
        let found = self.image(image).await?;
        match &found.id {
            Some(there) if there != id => Err(replaced(image, (id, there))),
            Some(_) | None => Ok(found),
        }
    }

    async fn image(&self, image: &ImageReference) -> Result<ImageInspect, RuntimeError> {
        if let Some(found) = self.engine.image(image.as_str()).await? {
            return Ok(found);
        }
        tracing::info!(%image, "pulling");
        let pulled = self.engine.pull(image.as_str()).await;
        pulled.map_err(|failure| failure.into_error(image))?;
        let pulled = self.engine.image(image.as_str()).await?;
        pulled.ok_or_else(|| unavailable(image, "the engine pulled it and does not have it"))
    }

    async fn launch(
        &self,
        specification: &Specification<'_>,
        listener: ControlListener,
    ) -> Result<(String, InitConnection), RuntimeError> {
        let name = format!("regatta-{}", specification.directory.name());
        let created = Unclaimed::create(&self.engine, name, specification.body()).await?;
        let connected = async {
            let id = created.id();
            self.engine.start(id).await?;
            tokio::select! {
                connection = listener.accept() => connection,
                code = self.engine.stopped(id) => {
                    let code = code.map_or_else(|| "an unknown code".to_owned(), |c| c.to_string());
                    Err(lost(format!("its init exited with {code} before it called back")))
                }
            }
        };
        match connected.await {
            // From now on it ends when its connection does, and AutoRemove removes it.
            Ok(connection) => Ok((created.claim(), connection)),
            Err(error) => {
                created.remove().await;
                Err(error)
            }
        }
    }

    fn directory(&self) -> Result<(ContainerDirectory, ControlListener), RuntimeError> {
        let directory = self
            .run_directory
            .container()
            .map_err(io_error("make a container's directory"))?;
        let listener =
            ControlListener::bind(&directory.control()).map_err(io_error("listen for the init"))?;
        Ok((directory, listener))
    }

    /// A container that is killed between its creation and its start stays for ever; one that has started
    /// ends by itself when its agent does.
    async fn remove_strangers(&self) -> Result<usize, RuntimeError> {
        let mut removed = 0;
        for container in self.engine.labelled(AGENT_LABEL.to_owned()).await? {
            let labels = container.labels.unwrap_or_default();
            if let (true, Some(id)) = (self.is_abandoned(&labels), container.id) {
                self.engine.remove(&id).await?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Whether a container belongs to an earlier life of this agent, or to an agent that is gone.
    fn is_abandoned(&self, labels: &HashMap<String, String>) -> bool {
        let label = |name| labels.get(name).map(String::as_str);
        let is_this_agents = label(AGENT_LABEL) == Some(self.options.agent.as_str());
        let instance = label(INSTANCE_LABEL).unwrap_or_default();
        if is_this_agents && self.run_directory.is_earlier(instance) {
            return true;
        }
        let owner = label(OWNER_LABEL).and_then(Owner::from_label);
        let both = owner.as_ref().zip(self.owner.as_ref());
        both.is_some_and(|(owner, observer)| owner.is_gone(observer))
    }
}

/// The `PATH` in an image's environment.
fn search_path(environment: &[String]) -> Option<String> {
    let path = environment
        .iter()
        .find_map(|variable| variable.strip_prefix("PATH="));
    path.map(str::to_owned)
}

#[async_trait]
impl ContainerRuntime for DockerRuntime {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn user(&self) -> (u32, u32) {
        self.options.user.unwrap_or_else(own_user)
    }

    /// Docker gives capabilities to root alone, and mounts need an overlay's namespace.
    fn can_change_root(&self) -> bool {
        matches!(self.views, Views::Overlay(_)) && self.user().0 == 0
    }

    async fn ping(&self) -> Result<(), RuntimeError> {
        self.engine.ping().await
    }

    async fn images(&self) -> Result<Vec<(ImageReference, String)>, RuntimeError> {
        let mut images = Vec::new();
        for image in self.engine.images().await? {
            let names = image.repo_tags.iter().chain(&image.repo_digests);
            // Images without a name are listed as `<none>`.
            let names = names.filter(|name| !name.contains("<none>"));
            images.extend(names.filter_map(|name| Some((name.parse().ok()?, image.id.clone()))));
        }
        Ok(images)
    }

    fn image_changes(&self) -> BoxStream<'static, Result<(), RuntimeError>> {
        self.engine.image_changes()
    }

    async fn ensure_image(
        &self,
        image: &ImageReference,
        id: Option<&str>,
    ) -> Result<String, RuntimeError> {
        Ok(self.image_of(image, id).await?.id.unwrap_or_default())
    }

    async fn start(&self, shape: &ContainerShape) -> Result<Box<dyn Container>, RuntimeError> {
        let image = shape
            .image
            .as_ref()
            .ok_or_else(|| RuntimeError::ImageUnavailable {
                image: "(none)".to_owned(),
                detail: "docker runs nothing without an image; name one".to_owned(),
            })?;
        let inspected = self.image_of(image, shape.image_id.as_deref()).await?;
        let image_id = inspected.id.unwrap_or_default();
        let config = inspected.config.unwrap_or_default();
        let search_path = search_path(config.env.as_deref().unwrap_or_default());
        let volumes: Vec<String> = config.volumes.unwrap_or_default().into_iter().collect();
        let (directory, listener) = self.directory()?;
        let specification = Specification {
            options: &self.options,
            shape,
            image_id: &image_id,
            volumes: &volumes,
            directory: &directory,
            instance: self.run_directory.instance(),
            owner: self.owner.as_ref(),
            user: self.user(),
        };
        let scratch = specification.scratch();
        let (id, connection) = self.launch(&specification, listener).await?;
        let engine = self.engine.clone();
        let launched = Launched {
            engine,
            id,
            image_id,
            search_path,
            connection,
            directory,
        };
        let user = self.user();
        Ok(Box::new(
            DockerContainer::adopt(launched, &self.views, shape, scratch, user).await?,
        ))
    }

    async fn reap(&self) -> Result<usize, RuntimeError> {
        let containers = self.remove_strangers().await?;
        let run_directory = Arc::clone(&self.run_directory);
        let directories = tokio::task::spawn_blocking(move || run_directory.remove_stale());
        let directories = directories
            .await
            .unwrap_or_else(|error| Err(std::io::Error::other(error)));
        let directories = directories.map_err(io_error("remove stale directories"))?;
        tracing::debug!(containers, directories, "reaped");
        Ok(containers)
    }
}
