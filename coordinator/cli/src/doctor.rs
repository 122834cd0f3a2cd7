//! What can be wrong with a machine and its coordinator, and how to fix it.

mod docker_info;

use std::path::Path;
use std::time::{Duration, SystemTime};

use regatta_model::AgentId;
use regatta_runtime::{ContainerRuntime, DockerOptions, DockerRuntime, ViewStrategy};
use regatta_wire::{reapi, v1};

use crate::client::Client;
use crate::directories;
use crate::watch::Paint;
use docker_info::DockerInfo;

/// Less free space than this makes agents refuse work sooner or later.
const LITTLE_SPACE_BYTES: u64 = 5 << 30;
/// Agents refuse work below this.
const NO_SPACE_BYTES: u64 = 1 << 30;
/// This program is younger than this: a clock before it is wrong (2026-01-01).
const EARLIEST: Duration = Duration::from_secs(1_767_225_600);

/// How well something is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    /// As it should be.
    Ok,
    /// It works, though not well.
    Warn,
    /// It does not work.
    Fail,
}

/// Something that was looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Check {
    /// How well it is.
    pub level: Level,
    /// What was looked at.
    pub name: &'static str,
    /// What was found, and the fix if it is not as it should be.
    pub detail: String,
}

impl Check {
    fn new(level: Level, name: &'static str, detail: impl Into<String>) -> Self {
        Self {
            level,
            name,
            detail: detail.into(),
        }
    }

    /// `  ok  docker      20.10.24 …`
    #[must_use]
    pub fn line(&self, paint: Paint) -> String {
        let (word, code) = match self.level {
            Level::Ok => ("ok", "32;1"),
            Level::Warn => ("warn", "33;1"),
            Level::Fail => ("fail", "31;1"),
        };
        let word = match paint {
            Paint::Coloured => format!("\x1b[{code}m{word:>4}\x1b[0m"),
            Paint::Plain => format!("{word:>4}"),
        };
        format!("{word}  {:<12} {}", self.name, self.detail)
    }
}

/// Looks at everything.
pub async fn check_all(coordinator: &str, image: Option<&str>) -> Vec<Check> {
    let mut checks = check_docker(image).await;
    checks.push(check_space());
    checks.push(check_clock(SystemTime::now()));
    checks.extend(check_coordinator(coordinator).await);
    checks
}

async fn check_docker(image: Option<&str>) -> Vec<Check> {
    const NAME: &str = "docker";
    let directory = match tempfile::tempdir() {
        Ok(directory) => directory,
        Err(error) => {
            let detail = format!("no temporary directory can be made: {error}");
            return vec![Check::new(Level::Fail, NAME, detail)];
        }
    };
    let runtime = match connect(directory.path()).await {
        Ok(runtime) => runtime,
        Err(detail) => {
            let detail = format!("{detail}; without Docker, use `regatta up --runtime process`");
            return vec![Check::new(Level::Fail, NAME, detail)];
        }
    };
    let mut checks = match tokio::task::spawn_blocking(DockerInfo::read).await {
        Ok(Ok(info)) => info.checks(),
        Ok(Err(error)) => vec![Check::new(
            Level::Warn,
            NAME,
            format!("it says nothing of itself: {error}"),
        )],
        Err(_) => Vec::new(),
    };
    checks.push(check_views(&runtime.view_strategy()));
    checks.push(check_images(&runtime, image).await);
    checks
}

async fn connect(directory: &Path) -> Result<DockerRuntime, String> {
    let agent: AgentId = "doctor".parse().map_err(|error| format!("{error}"))?;
    let options = DockerOptions::new(agent, directory.join("run"));
    DockerRuntime::connect(options)
        .await
        .map_err(|error| error.to_string())
}

fn check_views(strategy: &ViewStrategy) -> Check {
    const NAME: &str = "views";
    match strategy {
        ViewStrategy::Overlay => Check::new(Level::Ok, NAME, strategy.to_string()),
        ViewStrategy::Copy { .. } => {
            let detail = format!(
                "{strategy}: every task copies its inputs; run agents as root, with their state on ext4 or xfs"
            );
            Check::new(Level::Warn, NAME, detail)
        }
    }
}

async fn check_images(runtime: &DockerRuntime, image: Option<&str>) -> Check {
    const NAME: &str = "image";
    let images = match runtime.images().await {
        Ok(images) => images,
        Err(error) => return Check::new(Level::Fail, NAME, error.to_string()),
    };
    let is_here = |wanted: &str| {
        images.iter().any(|(name, id)| {
            let name = name.as_str();
            name == wanted || id == wanted || name.strip_suffix(":latest") == Some(wanted)
        })
    };
    match image {
        Some(image) if is_here(image) => Check::new(Level::Ok, NAME, format!("{image} is here")),
        Some(image) => {
            let detail =
                format!("{image} is not here; `docker pull {image}`, or `docker import` one");
            Check::new(Level::Fail, NAME, detail)
        }
        None if images.is_empty() => {
            let detail = "there is none; pull one, or make one with `docker import`";
            Check::new(Level::Warn, NAME, detail)
        }
        None => Check::new(Level::Ok, NAME, format!("{} are here", images.len())),
    }
}

fn check_space() -> Check {
    const NAME: &str = "disk";
    let directory = match directories::state("up") {
        Ok(directory) => directory,
        Err(error) => return Check::new(Level::Fail, NAME, error.to_string()),
    };
    // The directory may not exist yet; its nearest ancestor that does is on the same file system.
    let existing = directory
        .ancestors()
        .find_map(|path| rustix::fs::statvfs(path).ok());
    let Some(system) = existing else {
        return Check::new(
            Level::Warn,
            NAME,
            format!("{} cannot be looked at", directory.display()),
        );
    };
    let free = system.f_bavail.saturating_mul(system.f_frsize);
    space(free, &directory)
}

fn space(free_bytes: u64, directory: &Path) -> Check {
    const NAME: &str = "disk";
    let gib = free_bytes >> 30;
    let place = directory.display();
    match free_bytes {
        0..NO_SPACE_BYTES => Check::new(
            Level::Fail,
            NAME,
            format!(
                "less than 1 GiB is free at {place}: agents take no work; free some, or use --state-dir"
            ),
        ),
        NO_SPACE_BYTES..LITTLE_SPACE_BYTES => Check::new(
            Level::Warn,
            NAME,
            format!("only {gib} GiB are free at {place}; free some, or use --state-dir"),
        ),
        _ => Check::new(Level::Ok, NAME, format!("{gib} GiB are free at {place}")),
    }
}

fn check_clock(now: SystemTime) -> Check {
    const NAME: &str = "clock";
    match now.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(time) if time >= EARLIEST => {
            let time = jiff::Timestamp::try_from(now).map(|time| time.round(jiff::Unit::Second));
            let text = time.ok().and_then(Result::ok).map(|time| time.to_string());
            Check::new(Level::Ok, NAME, text.unwrap_or_default())
        }
        Ok(_) | Err(_) => {
            let detail = "it is years behind; set it (`timedatectl set-ntp true`)";
            Check::new(Level::Fail, NAME, detail)
        }
    }
}

async fn check_coordinator(url: &str) -> Vec<Check> {
    const NAME: &str = "coordinator";
    let client = match Client::connect(url, "").await {
        Ok(client) => client,
        Err(error) => return vec![Check::new(Level::Fail, NAME, error.to_string())],
    };
    let request = reapi::GetCapabilitiesRequest::default();
    let reached = match client.capabilities().get_capabilities(request).await {
        Ok(capabilities) => {
            let version = capabilities
                .into_inner()
                .high_api_version
                .unwrap_or_default();
            let api = format!("{}.{}", version.major, version.minor);
            Check::new(
                Level::Ok,
                NAME,
                format!("{url} speaks the Remote Execution API up to {api}"),
            )
        }
        Err(status) => {
            let detail = format!(
                "{url} is no coordinator: {}; check --coordinator",
                status.message()
            );
            return vec![Check::new(Level::Fail, NAME, detail)];
        }
    };
    vec![reached, check_agents(&client).await]
}

async fn check_agents(client: &Client) -> Check {
    const NAME: &str = "agents";
    match client.fleet().list_agents(v1::ListAgentsRequest {}).await {
        Ok(agents) => agents_of(&agents.into_inner().agents),
        Err(status) => Check::new(Level::Fail, NAME, status.message()),
    }
}

fn agents_of(agents: &[v1::AgentStatus]) -> Check {
    const NAME: &str = "agents";
    let connected: Vec<_> = agents.iter().filter(|agent| agent.connected).collect();
    let ours = env!("CARGO_PKG_VERSION");
    let version = |agent: &v1::AgentStatus| agent.offer.clone().unwrap_or_default().version;
    if connected.is_empty() {
        let detail = "none is connected: nothing can run; start one with `regatta agent`";
        return Check::new(Level::Fail, NAME, detail);
    }
    let refuses =
        |agent: &&&v1::AgentStatus| agent.draining || !agent.unavailable_reason.is_empty();
    let refusing: Vec<_> = connected.iter().filter(refuses).collect();
    if let Some(first) = refusing.first() {
        let name = &first.agent_id;
        let why = match first.unavailable_reason.as_str() {
            "" => format!("it is drained; `regatta drain {name} --undo` ends that"),
            reason => reason.to_owned(),
        };
        let count = refusing.len();
        return match count == connected.len() {
            true => Check::new(Level::Fail, NAME, format!("none takes work: {name}: {why}")),
            false => Check::new(
                Level::Warn,
                NAME,
                format!("{count} of {} take no work: {name}: {why}", connected.len()),
            ),
        };
    }
    if let Some(other) = connected.iter().find(|agent| version(agent) != ours) {
        let detail = format!(
            "{} is version {}, this is {ours}; upgrade the older one",
            other.agent_id,
            version(other)
        );
        return Check::new(Level::Warn, NAME, detail);
    }
    Check::new(
        Level::Ok,
        NAME,
        format!("{} of {} are connected", connected.len(), agents.len()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_begin_with_the_level() {
        let check = Check::new(Level::Warn, "disk", "little");
        assert_eq!(check.line(Paint::Plain), "warn  disk         little");
    }

    #[test]
    fn space_and_clock_are_judged() {
        let level = |gib: u64| space(gib << 30, Path::new("/x")).level;
        assert_eq!(
            [level(0), level(2), level(100)],
            [Level::Fail, Level::Warn, Level::Ok]
        );
        assert_eq!(check_clock(SystemTime::UNIX_EPOCH).level, Level::Fail);
        assert_eq!(
            check_clock(SystemTime::UNIX_EPOCH + EARLIEST).detail,
            "2026-01-01T00:00:00Z"
        );
    }

    #[test]
    fn a_fleet_of_nobody_fails() {
        assert_eq!(agents_of(&[]).level, Level::Fail);
        let offer = |version: &str| v1::AgentOffer {
            version: version.to_owned(),
            ..v1::AgentOffer::default()
        };
        let agent = |version| v1::AgentStatus {
            connected: true,
            offer: Some(offer(version)),
            ..v1::AgentStatus::default()
        };
        assert_eq!(
            agents_of(&[agent(env!("CARGO_PKG_VERSION"))]).level,
            Level::Ok
        );
        assert_eq!(agents_of(&[agent("0.0.0")]).level, Level::Warn);
        let full = v1::AgentStatus {
            unavailable_reason: "disk full".to_owned(),
            ..agent(env!("CARGO_PKG_VERSION"))
        };
        let fit = agent(env!("CARGO_PKG_VERSION"));
        let some = agents_of(&[full.clone(), fit]);
        assert_eq!(some.level, Level::Warn);
        let none = agents_of(&[full]);
        assert_eq!(none.level, Level::Fail);
        assert!(none.detail.ends_with("disk full"), "{}", none.detail);
    }

    #[tokio::test]
    async fn a_coordinator_that_is_not_there_fails() {
        let checks = check_coordinator("grpc://127.0.0.1:1").await;
        assert_eq!(checks[0].level, Level::Fail);
    }
}
