//! Calls to the Docker engine, each with a bound.

use std::collections::HashMap;
use std::future::Future;
use std::path::Path;
use std::time::{Duration, SystemTime};

use bollard::Docker;
use bollard::errors::Error;
use bollard::models::{ContainerCreateBody, ContainerSummary, ImageInspect, ImageSummary};
use bollard::query_parameters::{
    CreateContainerOptions, CreateImageOptions, EventsOptions, InspectContainerOptions,
    ListContainersOptions, ListImagesOptions, RemoveContainerOptions, StartContainerOptions,
    WaitContainerOptions,
};
use futures::StreamExt;
use futures::stream::BoxStream;

use super::pull_failure::PullFailure;
use crate::port::RuntimeError;

/// How long the engine may take to answer a question.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(20);

/// How long the engine may take to create, start or remove a container on a machine under load.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a pull may go without news.
const PULL_STALL_TIMEOUT: Duration = Duration::from_secs(120);

/// What bollard itself may wait for, in seconds; longer than any bound above.
const CLIENT_TIMEOUT_SECONDS: u64 = 180;

/// Where Docker listens unless told otherwise.
const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";

/// No Docker engine can be used. The text names the fix.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// There is no socket.
    #[error(
        "there is no docker socket at {host}; start docker (`systemctl start docker`), or set DOCKER_HOST \
         if it listens elsewhere"
    )]
    NoSocket {
        /// Where it was looked for.
        host: String,
    },
    /// The socket is not for this user.
    #[error(
        "the docker socket at {host} is not open to this user; add the user to the group `docker` \
         (`usermod -aG docker $USER`, then log in again)"
    )]
    NotPermitted {
        /// Which socket.
        host: String,
    },
    /// The engine is on another machine, or spoken to in another way.
    #[error(
        "DOCKER_HOST={host} is no unix socket; an agent shares files with its containers, so it runs on the \
         engine's machine and uses unix:///path"
    )]
    NotLocal {
        /// What was given.
        host: String,
    },
    /// Something listens, and does not answer as Docker does.
    #[error("the docker engine at {host} does not answer; restart docker: {detail}")]
    NoAnswer {
        /// Which socket.
        host: String,
        /// What was seen.
        detail: String,
    },
    /// The run directory cannot be used.
    #[error("the run directory {directory} cannot be used; give the agent a directory of its own")]
    RunDirectory {
        /// Which one.
        directory: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

/// A Docker engine.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    docker: Docker,
}

impl Engine {
    /// Connects, and agrees on a version of the API.
    pub(crate) async fn connect(host: Option<&str>) -> Result<Self, ConnectError> {
        let host = host.map_or_else(default_host, str::to_owned);
        let Some(path) = host.strip_prefix("unix://") else {
            return Err(ConnectError::NotLocal { host });
        };
        check_socket(path, &host).await?;
        let no_answer = |detail: String| ConnectError::NoAnswer {
            host: host.clone(),
            detail,
        };
        let docker =
            Docker::connect_with_unix(&host, CLIENT_TIMEOUT_SECONDS, bollard::API_DEFAULT_VERSION)
                .map_err(|error| no_answer(error.to_string()))?;
        let negotiated = tokio::time::timeout(QUESTION_TIMEOUT, docker.negotiate_version()).await;
        let docker = negotiated
            .map_err(|_| no_answer("it took too long".to_owned()))?
            .map_err(|error| no_answer(error.to_string()))?;
        Ok(Self { docker })
    }

    pub(crate) async fn ping(&self) -> Result<(), RuntimeError> {
        let call = self.docker.ping();
        bounded("ping", QUESTION_TIMEOUT, call).await.map(drop)
    }

    pub(crate) async fn images(&self) -> Result<Vec<ImageSummary>, RuntimeError> {
        let call = self.docker.list_images(None::<ListImagesOptions>);
        bounded("list images", QUESTION_TIMEOUT, call).await
    }

    /// What the engine tells of its images from now on. It remembers what happens before it is first asked.
    pub(crate) fn image_changes(&self) -> BoxStream<'static, Result<(), RuntimeError>> {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let since = since.unwrap_or_default();
        let options = EventsOptions {
            since: Some(format!("{}.{:09}", since.as_secs(), since.subsec_nanos())),
            until: None,
            filters: Some(HashMap::from([(
                "type".to_owned(),
                vec!["image".to_owned()],
            )])),
        };
        let events = self.docker.events(Some(options));
        let told = events.map(|event| match event {
            Ok(_) => Ok(()),
            Err(error) => Err(RuntimeError::Engine {
                operation: "listen for changes of images",
                detail: words(&error),
            }),
        });
        told.boxed()
    }

    /// `None` if the engine does not have the image.
    pub(crate) async fn image(&self, name: &str) -> Result<Option<ImageInspect>, RuntimeError> {
        let call = async {
            match self.docker.inspect_image(name).await {
                Err(error) if status(&error) == Some(404) => Ok(None),
                outcome => outcome.map(Some),
            }
        };
        bounded("inspect an image", QUESTION_TIMEOUT, call).await
    }

    /// Pulls an image.
    pub(crate) async fn pull(&self, name: &str) -> Result<(), PullFailure> {
        let tag = if has_tag(name) {
            None
        } else {
            Some("latest".to_owned())
        };
        let options = CreateImageOptions {
            from_image: Some(name.to_owned()),
            tag,
            ..Default::default()
        };
        let broken = |words| PullFailure {
            status: None,
            words,
        };
        let mut progress = std::pin::pin!(self.docker.create_image(Some(options), None, None));
        loop {
            match tokio::time::timeout(PULL_STALL_TIMEOUT, progress.next()).await {
                Err(_) => return Err(broken("the pull made no progress".to_owned())),
                Ok(None) => return Ok(()),
                Ok(Some(Err(error))) => {
                    let (status, words) = (status(&error), words(&error));
                    return Err(PullFailure { status, words });
                }
                Ok(Some(Ok(step))) => {
                    if let Some(message) = step.error_detail.and_then(|detail| detail.message) {
                        return Err(broken(message));
                    }
                }
            }
        }
    }

    pub(crate) async fn create(
        &self,
        name: &str,
        body: ContainerCreateBody,
    ) -> Result<String, RuntimeError> {
        let options = CreateContainerOptions {
            name: Some(name.to_owned()),
            ..Default::default()
        };
        let call = self.docker.create_container(Some(options), body);
        Ok(bounded("create a container", CHANGE_TIMEOUT, call)
            .await?
            .id)
    }

    pub(crate) async fn start(&self, id: &str) -> Result<(), RuntimeError> {
        let call = self
            .docker
            .start_container(id, None::<StartContainerOptions>);
        bounded("start a container", CHANGE_TIMEOUT, call).await
    }

    /// Waits, without a bound, until a container stops, and tells its exit code if the engine does.
    pub(crate) async fn stopped(&self, id: &str) -> Option<i64> {
        let options = WaitContainerOptions {
            condition: "not-running".to_owned(),
        };
        let mut wait = std::pin::pin!(self.docker.wait_container(id, Some(options)));
        match wait.next().await? {
            Ok(response) => Some(response.status_code),
            Err(Error::DockerContainerWaitError { code, .. }) => Some(code),
            Err(_) => None,
        }
    }

    /// Whether the kernel killed a container for want of memory; `None` if the engine has forgotten it.
    pub(crate) async fn was_killed_for_memory(&self, id: &str) -> Option<bool> {
        let call = self
            .docker
            .inspect_container(id, None::<InspectContainerOptions>);
        let state = bounded("inspect a container", QUESTION_TIMEOUT, call)
            .await
            .ok()?
            .state?;
        state.oom_killed
    }

    /// Kills and removes a container, and returns when it is gone. One that is gone already is fine.
    pub(crate) async fn remove(&self, id: &str) -> Result<(), RuntimeError> {
        let call = async {
            let options = RemoveContainerOptions {
                force: true,
                v: true,
                ..Default::default()
            };
            match self.docker.remove_container(id, Some(options)).await {
                Ok(()) => Ok(()),
                Err(error) if status(&error) == Some(404) => Ok(()),
                // Somebody, such as the engine on behalf of AutoRemove, is at it.
                Err(error) if status(&error) == Some(409) => self.removed(id).await,
                Err(error) => Err(error),
            }
        };
        bounded("remove a container", CHANGE_TIMEOUT, call).await
    }

    async fn removed(&self, id: &str) -> Result<(), Error> {
        let options = WaitContainerOptions {
            condition: "removed".to_owned(),
        };
        let mut wait = std::pin::pin!(self.docker.wait_container(id, Some(options)));
        match wait.next().await {
            Some(Err(error)) if status(&error) == Some(404) => Ok(()),
            Some(Err(Error::DockerContainerWaitError { .. }) | Ok(_)) | None => Ok(()),
            Some(Err(error)) => Err(error),
        }
    }

    pub(crate) async fn labelled(
        &self,
        label: String,
    ) -> Result<Vec<ContainerSummary>, RuntimeError> {
        let filters = HashMap::from([("label".to_owned(), vec![label])]);
        let options = ListContainersOptions {
            all: true,
            filters: Some(filters),
            ..Default::default()
        };
        let call = self.docker.list_containers(Some(options));
        bounded("list containers", QUESTION_TIMEOUT, call).await
    }
}

fn default_host() -> String {
    if let Ok(host) = std::env::var("DOCKER_HOST")
        && !host.is_empty()
    {
        return host;
    }
    let rootless = std::env::var("XDG_RUNTIME_DIR").map(|run| format!("{run}/docker.sock"));
    match rootless {
        Ok(path) if Path::new(&path).exists() && !Path::new("/var/run/docker.sock").exists() => {
            format!("unix://{path}")
        }
        Ok(_) | Err(_) => DEFAULT_HOST.to_owned(),
    }
}

async fn check_socket(path: &str, host: &str) -> Result<(), ConnectError> {
    let host = host.to_owned();
    match tokio::net::UnixStream::connect(path).await {
        Ok(_) => Ok(()),
        Err(error) => match error.kind() {
            std::io::ErrorKind::PermissionDenied => Err(ConnectError::NotPermitted { host }),
            std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
                Err(ConnectError::NoSocket { host })
            }
            _ => Err(ConnectError::NoAnswer {
                host,
                detail: error.to_string(),
            }),
        },
    }
}

async fn bounded<T>(
    operation: &'static str,
    limit: Duration,
    call: impl Future<Output = Result<T, Error>>,
) -> Result<T, RuntimeError> {
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(RuntimeError::Engine {
            operation,
            detail: words(&error),
        }),
        Err(_) => {
            let detail = format!("the engine did not answer for {} s", limit.as_secs());
            Err(RuntimeError::Engine { operation, detail })
        }
    }
}

fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// The engine's own words, without the client's around them.
fn words(error: &Error) -> String {
    match error {
        Error::DockerResponseServerError { message, .. } => message.clone(),
        Error::DockerStreamError { error } => error.clone(),
        other => other.to_string(),
    }
}

/// Whether a reference names a tag or a digest. A colon before the last slash belongs to a port.
fn has_tag(reference: &str) -> bool {
    let name = reference.rsplit('/').next().unwrap_or(reference);
    name.contains(':') || name.contains('@')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_told_from_ports() {
        for (reference, expected) in [
            ("debian", false),
            ("debian:12", true),
            ("host:5000/debian", false),
            ("host:5000/debian:12", true),
            ("team/tool@sha256:00", true),
        ] {
            assert_eq!(has_tag(reference), expected, "{reference}");
        }
    }

    #[tokio::test]
    async fn connecting_fails_with_the_fix() {
        let directory = tempfile::tempdir().expect("a directory");
        let nowhere = format!("unix://{}", directory.path().join("none.sock").display());
        let dead = directory.path().join("dead.sock");
        drop(std::os::unix::net::UnixListener::bind(&dead).expect("bound"));
        let dead = format!("unix://{}", dead.display());
        for (host, expected) in [
            (nowhere.as_str(), "start docker"),
            (dead.as_str(), "start docker"),
            ("tcp://127.0.0.1:2375", "uses unix:///path"),
        ] {
            let error = Engine::connect(Some(host))
                .await
                .expect_err("no engine")
                .to_string();
            assert!(error.contains(expected), "{host}: {error}");
        }
    }
}
