//! A container between its creation and the first word of its init.

use bollard::models::ContainerCreateBody;
use tokio::runtime::Handle;

use super::engine::Engine;
use crate::engine_error::task_lost;
use crate::port::RuntimeError;

/// A container that nobody has taken over. Until it has run, `AutoRemove` does not remove it, so dropping
/// this does.
#[derive(Debug)]
pub(crate) struct Unclaimed {
    engine: Engine,
    /// None once it is somebody else's.
    id: Option<String>,
}

impl Unclaimed {
    /// Creates a container. The engine goes on with that even if nobody waits for it, so it is done in a
    /// task, which then drops what it made.
    pub(crate) async fn create(
        engine: &Engine,
        name: String,
        body: ContainerCreateBody,
    ) -> Result<Self, RuntimeError> {
        let engine = engine.clone();
        let creating = tokio::spawn(async move {
            let id = Some(engine.create(&name, body).await?);
            Ok(Self { engine, id })
        });
        creating
            .await
            .unwrap_or_else(|error| Err(task_lost("create a container", &error)))
    }

    pub(crate) fn id(&self) -> &str {
        self.id.as_deref().unwrap_or_default()
    }

    /// Takes it over: its processes end it from now on.
    pub(crate) fn claim(mut self) -> String {
        self.id.take().unwrap_or_default()
    }

    /// Removes it, now.
    pub(crate) async fn remove(mut self) {
        if let Some(id) = self.id.take() {
            remove(&self.engine, &id).await;
        }
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        // Without a runtime the process is ending, and the next one removes what it finds.
        if let (Some(id), Ok(runtime)) = (self.id.take(), Handle::try_current()) {
            let engine = self.engine.clone();
            runtime.spawn(async move { remove(&engine, &id).await });
        }
    }
}

async fn remove(engine: &Engine, id: &str) {
    if let Err(error) = engine.remove(id).await {
        tracing::warn!(container = %id, %error, "left a container behind");
    }
}
