//! `regatta up`, `regatta coordinator` and `regatta agent`.

use std::future::Future;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use regatta_agent::{Agent, AgentConfig, AgentError};
use regatta_model::{AgentId, Digest, Resources};
use regatta_runtime::docker::ConnectError;
use regatta_runtime::{
    ContainerRuntime, DockerOptions, DockerRuntime, ProcessIsolation, ProcessOptions,
    ProcessRuntime, RuntimeError,
};
use regatta_server::{
    AuditShare, Coordinator, CoordinatorConfig, Inheritance, MetricsServer, Standby, StartError,
};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::client::http_url;
use crate::directories;
use crate::exit_code::{ExitCode, Failure, OrExit};
use crate::files::write_atomically;
use crate::interrupts::Interrupts;
use crate::options::{
    AgentOptions, CoordinatorOptions, GlobalOptions, ListenOptions, RuntimeChoice, UpOptions,
    WorkOptions,
};
use crate::standard_output::standard_output;

pub(super) async fn up(global: &GlobalOptions, options: UpOptions) -> Result<ExitCode, Failure> {
    let directory = match options.state_dir {
        Some(directory) => directory,
        None => directories::state("up").or_exit(ExitCode::Local)?,
    };
    let mut config = CoordinatorConfig::new(directory.join("coordinator"));
    listen_on(&mut config, &options.listen);
    config.default_image.clone_from(&options.work.image);
    config.cache = options.cache.settings();
    config.keep_runs = options.cache.keep_runs(config.keep_runs);
    let coordinator = Coordinator::start(config).await.map_err(start_failure)?;
    let url = format!("http://{}", coordinator.grpc_address());
    let agent = make_agent(&url, &directory.join("agent"), None, &options.work).await?;
    announce(&options.listen, addresses(&coordinator))?;
    greet(global, &coordinator).or_exit(ExitCode::Local)?;
    let stop = Stop::on_interrupt(global)?;
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

pub(super) async fn coordinator(
    global: &GlobalOptions,
    options: CoordinatorOptions,
) -> Result<ExitCode, Failure> {
    let directory = match options.state_dir {
        Some(directory) => directory,
        None => directories::state("coordinator").or_exit(ExitCode::Local)?,
    };
    let mut config = CoordinatorConfig::new(directory);
    listen_on(&mut config, &options.listen);
    config.standby = options.standby;
    config.storage = options.storage;
    if options.adopt_ledger {
        config.inheritance = Inheritance::OfAnyone;
    }
    let ledger = options
        .ledger
        .map(|reference| reference.resolve(&|name| std::env::var_os(name)));
    config.ledger = ledger.transpose().or_exit(ExitCode::BadConfiguration)?;
    config.clients_may_write = options.clients_may_write.into_iter().collect();
    config.unwatched_grace = options.abandoned_grace.unwrap_or(config.unwatched_grace);
    config.audit_share =
        AuditShare::from_percent(options.audit_hits).or_exit(ExitCode::BadConfiguration)?;
    config.maximum_timeout = options.maximum_timeout.unwrap_or(config.maximum_timeout);
    config.default_image = options.image;
    config.cache = options.cache.settings();
    config.keep_runs = options.cache.keep_runs(config.keep_runs);
    config.verdict_key = options.verdict_key;
    config.tenant_weights = options.tenant_weights.into_iter().collect();
    for (tenant, name, value) in options.tenant_properties {
        let properties = config.tenant_properties.entry(tenant).or_default();
        properties.insert(name, value);
    }
    let (coordinator, stop) = match options.standby {
        true => {
            let stop = Stop::on_interrupt(global)?;
            match stand_by(config, &options.listen, &stop).await? {
                Some(coordinator) => (coordinator, stop),
                None => return Ok(ExitCode::Good),
            }
        }
        false => {
            let coordinator = Coordinator::start(config).await.map_err(start_failure)?;
            announce(&options.listen, addresses(&coordinator))?;
            (coordinator, Stop::on_interrupt(global)?)
        }
    };
    let served = until_killed(coordinator.serve_until(stop.drain.clone()), &stop.kill).await;
    served.unwrap_or(Ok(())).or_exit(ExitCode::Infrastructure)?;
    Ok(ExitCode::Good)
}

/// Waits until the ledger is this coordinator's; nothing if it is told to stop before.
async fn stand_by(
    config: CoordinatorConfig,
    options: &ListenOptions,
    stop: &Stop,
) -> Result<Option<Coordinator>, Failure> {
    let standby = Standby::start(config).await.map_err(start_failure)?;
    announce(options, (standby.grpc_address(), standby.http_address()))?;
    let taken_over = standby.take_over(stop.drain.clone()).await;
    taken_over.map_err(start_failure)
}

fn addresses(coordinator: &Coordinator) -> (SocketAddr, Option<SocketAddr>) {
    (coordinator.grpc_address(), coordinator.http_address())
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
    // Before anything is measured: what is recorded earlier counts nowhere.
    let http = serve_metrics(options.http_listen).await?;
    let agent = make_agent(&url, &directory, options.name, &options.work).await?;
    let stop = Stop::on_interrupt(global)?;
    let ran = agent.run(stop.drain.clone(), stop.kill.clone()).await;
    drop(http);
    ran.map_err(agent_failure)?;
    Ok(ExitCode::Good)
}

/// Serves an agent's metrics until what it answers is dropped.
async fn serve_metrics(
    address: Option<SocketAddr>,
) -> Result<Option<AbortOnDropHandle<()>>, Failure> {
    let Some(address) = address else {
        return Ok(None);
    };
    let server = MetricsServer::bind(address)
        .await
        .or_exit(ExitCode::Local)?;
    tracing::info!(address = %server.address(), "serving /metrics and /healthz");
    let serving = tokio::spawn(async move {
        if let Err(error) = server.serve_until(CancellationToken::new()).await {
            tracing::error!(%error, "metrics are no longer served");
        }
    });
    Ok(Some(AbortOnDropHandle::new(serving)))
}

fn listen_on(config: &mut CoordinatorConfig, options: &ListenOptions) {
    config.listen = options.listen;
    config.http_listen = Some(options.http_listen);
}

/// What scripts read to find a coordinator on free ports.
fn announce(
    options: &ListenOptions,
    (grpc, http): (SocketAddr, Option<SocketAddr>),
) -> Result<(), Failure> {
    let Some(file) = &options.announce else {
        return Ok(());
    };
    let text = announcement(grpc, http);
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
    let mut stdout = standard_output();
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
    fn on_interrupt(global: &GlobalOptions) -> Result<Self, Failure> {
        let interrupts = Interrupts::of_this_process(global.exit_with_stdin);
        let mut interrupts = interrupts.or_exit(ExitCode::Local)?;
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
    let config = agent_config(url, &directory, name, options);
    Agent::new(config, runtime).map_err(agent_failure)
}

/// The defaults of this machine, but for what the command line says.
fn agent_config(url: &str, directory: &Path, name: AgentId, options: &WorkOptions) -> AgentConfig {
    let defaults = AgentConfig::new(url, directory);
    let resources = Resources {
        cpu_milli: options.cpus.unwrap_or(defaults.resources.cpu_milli),
        memory_bytes: options.memory.unwrap_or(defaults.resources.memory_bytes),
    };
    AgentConfig {
        agent_id: Some(name),
        default_image: options.image.clone(),
        slots: options.slots.unwrap_or(defaults.slots),
        resources,
        properties: options.labels.clone(),
        cache_quota_bytes: options.cache_quota.unwrap_or(defaults.cache_quota_bytes),
        minimum_free_bytes: options.minimum_free.unwrap_or(defaults.minimum_free_bytes),
        drain_timeout: options.drain_timeout.unwrap_or(defaults.drain_timeout),
        max_output_bytes: options.max_output_size.unwrap_or(defaults.max_output_bytes),
        max_stream_bytes: options.max_log_size.unwrap_or(defaults.max_stream_bytes),
        ..defaults
    }
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

fn start_failure(error: StartError) -> Failure {
    let code = match error {
        StartError::NotLoopback { .. }
        | StartError::TenantProperties { .. }
        | StartError::OtherVerdictKey { .. }
        | StartError::OtherStorage { .. } => ExitCode::BadConfiguration,
        StartError::Ledger(ref error) if error.is_foreign() => ExitCode::BadConfiguration,
        _ => ExitCode::Local,
    };
    Failure {
        code,
        error: error.into(),
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
    fn what_the_command_line_says_of_an_agent_goes_into_its_settings() {
        use clap::Parser as _;
        let config = |line: &str| {
            let options = crate::options::Options::try_parse_from(line.split(' '));
            let Ok(crate::options::Command::Agent(options)) = options.map(|it| it.command) else {
                panic!("{line} is no agent's");
            };
            let name = "a".parse().expect("a name");
            agent_config("http://h:1", Path::new("/state"), name, &options.work)
        };
        let plain = config("regatta agent");
        let all = config(
            "regatta agent --label pool=large --label pool=fast --cpus 1.5 --memory 2GiB \
             --drain-timeout 90s --max-output-size 1GiB --max-log-size 1MiB --slots 3",
        );
        let labels = [("pool", "large"), ("pool", "fast")];
        assert_eq!(
            all.properties,
            labels.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
        assert_eq!(
            (all.resources.cpu_milli, all.resources.memory_bytes),
            (1500, 2 << 30)
        );
        assert_eq!(all.drain_timeout.as_secs(), 90);
        assert_eq!(
            (all.max_output_bytes, all.max_stream_bytes),
            (1 << 30, 1 << 20)
        );
        assert_eq!((all.slots, plain.drain_timeout.as_secs()), (3, 300));
        assert_eq!(
            (plain.max_output_bytes, plain.max_stream_bytes),
            (16 << 30, 64 << 20)
        );
    }

    #[test]
    fn an_agents_name_belongs_to_its_directory() {
        let name = |path: &str| default_name(Path::new(path)).expect("it is a name");
        assert_eq!(name("/a"), name("/a"));
        assert_ne!(name("/a"), name("/b"));
    }
}
