//! `regatta up`, `regatta coordinator` and `regatta agent`.

use std::future::Future;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use regatta_agent::{Agent, AgentConfig, AgentError};
use regatta_model::{AgentId, Digest};
use regatta_runtime::docker::ConnectError;
use regatta_runtime::{
    ContainerRuntime, DockerOptions, DockerRuntime, ProcessIsolation, ProcessOptions,
    ProcessRuntime, RuntimeError,
};
use regatta_server::{Coordinator, CoordinatorConfig};
use tokio_util::sync::CancellationToken;

use crate::client::http_url;
use crate::directories;
use crate::exit_code::{ExitCode, Failure, OrExit};
use crate::files::write_atomically;
use crate::interrupts::Interrupts;
use crate::options::{
    AgentOptions, CoordinatorOptions, GlobalOptions, ListenOptions, RuntimeChoice, UpOptions,
    WorkOptions,
};

pub(super) async fn up(global: &GlobalOptions, options: UpOptions) -> Result<ExitCode, Failure> {
    let directory = match options.state_dir {
        Some(directory) => directory,
        None => directories::state("up").or_exit(ExitCode::Local)?,
    };
    let mut config = CoordinatorConfig::new(directory.join("coordinator"));
    listen_on(&mut config, &options.listen);
    config.default_image.clone_from(&options.work.image);
    let coordinator = Coordinator::start(config).await.or_exit(ExitCode::Local)?;
    let url = format!("http://{}", coordinator.grpc_address());
    let agent = make_agent(&url, &directory.join("agent"), None, &options.work).await?;
    announce(&options.listen, &coordinator)?;
    greet(global, &coordinator).or_exit(ExitCode::Local)?;
    let stop = Stop::on_interrupt()?;
    let coordinator_ends = CancellationToken::new();
    let serving = coordinator.serve_until(coordinator_ends.clone());
    let serving = async {
        let served = serving.await;
        // An agent without its coordinator has nothing to wait for.
        stop.kill.cancel();
        served.or_exit(ExitCode::Infrastructure)
    };
    let working = async {
        let ran = agent.run(stop.drain.clone(), stop.kill.clone()).await;
        coordinator_ends.cancel();
        ran.map_err(agent_failure)
    };
    let (served, worked) = tokio::join!(serving, working);
    served.and(worked).map(|()| ExitCode::Good)
}

pub(super) async fn coordinator(options: CoordinatorOptions) -> Result<ExitCode, Failure> {
    let directory = match options.state_dir {
        Some(directory) => directory,
        None => directories::state("coordinator").or_exit(ExitCode::Local)?,
    };
    let mut config = CoordinatorConfig::new(directory);
    listen_on(&mut config, &options.listen);
    config.storage = options.storage;
    config.default_image = options.image;
    let coordinator = Coordinator::start(config).await.or_exit(ExitCode::Local)?;
    announce(&options.listen, &coordinator)?;
    let stop = Stop::on_interrupt()?;
    let served = until_killed(coordinator.serve_until(stop.drain.clone()), &stop.kill).await;
    served.unwrap_or(Ok(())).or_exit(ExitCode::Infrastructure)?;
    Ok(ExitCode::Good)
}

pub(super) async fn agent(
    global: &GlobalOptions,
    options: AgentOptions,
) -> Result<ExitCode, Failure> {
    let directory = match options.state_dir {
        Some(directory) => directory,
        None => directories::state("agent").or_exit(ExitCode::Local)?,
    };
    let url = http_url(&global.coordinator)?;
    let agent = make_agent(&url, &directory, options.name, &options.work).await?;
    let stop = Stop::on_interrupt()?;
    let ran = agent.run(stop.drain.clone(), stop.kill.clone()).await;
    ran.map_err(agent_failure)?;
    Ok(ExitCode::Good)
}

fn listen_on(config: &mut CoordinatorConfig, options: &ListenOptions) {
    config.listen = options.listen;
    config.http_listen = Some(options.http_listen);
}

/// What scripts read to find a coordinator on free ports.
fn announce(options: &ListenOptions, coordinator: &Coordinator) -> Result<(), Failure> {
    let Some(file) = &options.announce else {
        return Ok(());
    };
    let text = announcement(coordinator.grpc_address(), coordinator.http_address());
    write_atomically(file, text.as_bytes()).map_err(|error| {
        let message = format!("--announce {}: {error}", file.display());
        Failure::new(ExitCode::Local, message)
    })
}

/// `{"version":1,"grpc":"grpc://…","http":"http://…"}`
fn announcement(grpc: SocketAddr, http: Option<SocketAddr>) -> String {
    let object = serde_json::json!({
        "version": 1,
        "grpc": format!("grpc://{grpc}"),
        "http": http.map(|address| format!("http://{address}")),
    });
    format!("{object}\n")
}

fn greet(global: &GlobalOptions, coordinator: &Coordinator) -> std::io::Result<()> {
    let address = coordinator.grpc_address();
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "Regatta is up at grpc://{address}.")?;
    if global.coordinator != format!("grpc://{address}") {
        writeln!(
            stdout,
            "  regatta:  export REGATTA_COORDINATOR=grpc://{address}"
        )?;
    }
    writeln!(stdout, "  Bazel:    --remote_executor=grpc://{address}")?;
    if let Some(http) = coordinator.http_address() {
        writeln!(stdout, "  metrics:  http://{http}/metrics")?;
    }
    writeln!(
        stdout,
        "Ctrl-C lets running work end; twice leaves at once."
    )?;
    stdout.flush()
}

/// How a daemon is told to stop.
#[derive(Clone, Debug)]
struct Stop {
    /// Finish what runs, take nothing new.
    drain: CancellationToken,
    /// Stop what runs.
    kill: CancellationToken,
}

impl Stop {
    /// The first interrupt drains, the second kills.
    fn on_interrupt() -> Result<Self, Failure> {
        let mut interrupts = Interrupts::of_this_process().or_exit(ExitCode::Local)?;
        let stop = Self {
            drain: CancellationToken::new(),
            kill: CancellationToken::new(),
        };
        let told = stop.clone();
        tokio::spawn(async move {
            interrupts.next().await;
            tracing::info!("draining; interrupt again to leave at once");
            told.drain.cancel();
            interrupts.next().await;
            told.kill.cancel();
        });
        Ok(stop)
    }
}

async fn until_killed<T>(work: impl Future<Output = T>, kill: &CancellationToken) -> Option<T> {
    tokio::select! {
        output = work => Some(output),
        () = kill.cancelled() => None,
    }
}

async fn make_agent(
    url: &str,
    directory: &Path,
    name: Option<AgentId>,
    options: &WorkOptions,
) -> Result<Agent, Failure> {
    let directory = std::path::absolute(directory).or_exit(ExitCode::Local)?;
    std::fs::create_dir_all(&directory).or_exit(ExitCode::Local)?;
    let name = match name {
        Some(name) => name,
        None => default_name(&directory)?,
    };
    let runtime = runtime(options.runtime, &directory, &name).await?;
    let mut config = AgentConfig::new(url, &directory);
    config.agent_id = Some(name);
    config.default_image.clone_from(&options.image);
    if let Some(slots) = options.slots {
        config.slots = slots;
    }
    if let Some(quota) = options.cache_quota {
        config.cache_quota_bytes = quota;
    }
    if let Some(minimum) = options.minimum_free {
        config.minimum_free_bytes = minimum;
    }
    Agent::new(config, runtime).map_err(agent_failure)
}

/// The same for the life of a state directory, and another for every other on this machine: it labels the
/// agent's containers before the agent itself exists.
fn default_name(directory: &Path) -> Result<AgentId, Failure> {
    /// Enough to tell a machine's agents apart.
    const HASH_DIGITS: usize = 8;
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let hash = Digest::of(directory.as_os_str().as_encoded_bytes()).hash_hex();
    let host = Some(host.trim())
        .filter(|host| !host.is_empty())
        .unwrap_or("agent");
    format!("{host}-{}", &hash[..HASH_DIGITS])
        .parse()
        .or_exit(ExitCode::Local)
}

async fn runtime(
    choice: RuntimeChoice,
    directory: &Path,
    agent: &AgentId,
) -> Result<Arc<dyn ContainerRuntime>, Failure> {
    let run_directory = directory.join("run");
    match choice {
        RuntimeChoice::Process => process_runtime(directory, run_directory).await,
        RuntimeChoice::Auto | RuntimeChoice::Docker => {
            let options = DockerOptions::new(agent.clone(), run_directory);
            let docker = DockerRuntime::connect(options).await.map_err(no_docker)?;
            tracing::info!(views = %docker.view_strategy(), "using Docker");
            Ok(Arc::new(docker))
        }
    }
}

async fn process_runtime(
    directory: &Path,
    run_directory: PathBuf,
) -> Result<Arc<dyn ContainerRuntime>, Failure> {
    let options = ProcessOptions {
        run_directory,
        hidden: vec![directory.to_owned()],
    };
    let runtime = ProcessRuntime::new(options)
        .await
        .map_err(runtime_failure)?;
    match runtime.isolation() {
        ProcessIsolation::Namespaces => {
            tracing::warn!("commands run as processes of this machine: images mean nothing");
        }
        ProcessIsolation::Nothing { reason } => {
            tracing::warn!(
                reason,
                "commands run as processes of this machine, isolated by nothing"
            );
        }
    }
    Ok(Arc::new(runtime))
}

fn runtime_failure(error: RuntimeError) -> Failure {
    Failure {
        code: ExitCode::Local,
        error: error.into(),
    }
}

fn no_docker(error: ConnectError) -> Failure {
    Failure {
        code: ExitCode::Local,
        error: anyhow::Error::new(error)
            .context("Docker cannot be used; `--runtime process` does without it"),
    }
}

fn agent_failure(error: AgentError) -> Failure {
    let code = match error {
        AgentError::InvalidCoordinator { .. } | AgentError::InvalidSetting { .. } => {
            ExitCode::BadConfiguration
        }
        _ => ExitCode::Local,
    };
    Failure {
        code,
        error: error.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announcement_is_what_scripts_need() {
        let address: SocketAddr = "127.0.0.1:8980".parse().expect("an address");
        assert_eq!(
            announcement(address, None),
            "{\"grpc\":\"grpc://127.0.0.1:8980\",\"http\":null,\"version\":1}\n"
        );
    }

    #[test]
    fn an_agents_name_belongs_to_its_directory() {
        let name = |path: &str| default_name(Path::new(path)).expect("it is a name");
        assert_eq!(name("/a"), name("/a"));
        assert_ne!(name("/a"), name("/b"));
    }
}
