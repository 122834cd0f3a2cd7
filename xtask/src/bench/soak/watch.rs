//! What a fleet has in memory, open and on the disk, from `/proc`, its metrics and its directories.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::figures::{self, Sample};
use crate::bench::processes;

const MIB: f64 = 1024.0 * 1024.0;
/// How long a page may take.
const PAGE_LIMIT: Duration = Duration::from_secs(30);
/// Where a coordinator keeps bytes of uploads that have not ended.
const UPLOADS: &str = "uploads";
/// What its other files are called.
const USE_LOG: &str = "uses.log";
const LEDGER: &str = "ledger";

/// What is watched.
pub(super) struct Watch {
    pub(super) coordinator: u32,
    pub(super) agent: u32,
    /// Their state directories.
    pub(super) state: PathBuf,
    pub(super) agent_state: PathBuf,
    /// Those of all agents.
    pub(super) agents: Vec<PathBuf>,
    /// The URL of the coordinator's pages.
    pub(super) pages: String,
}

impl Watch {
    /// Everything as it is now.
    pub(super) fn look(&self) -> Result<Sample> {
        let metrics = Metrics::get(&self.pages)?;
        let files = files_in(&self.state)?;
        let bytes_of = |prefix: &str| {
            let named = files.iter().filter(|(name, _)| name.starts_with(prefix));
            named.map(|(_, bytes)| *bytes).sum::<f64>()
        };
        let (coordinator, agent) = (self.coordinator, self.agent);
        Ok(Sample::from([
            (
                figures::COORDINATOR_MIB,
                processes::resident_mib(coordinator)?,
            ),
            (
                figures::COORDINATOR_FILES,
                processes::open_files(coordinator)?,
            ),
            (
                figures::COORDINATOR_THREADS,
                processes::threads(coordinator)?,
            ),
            (
                figures::COORDINATOR_SECONDS,
                processes::processor_seconds(coordinator)?,
            ),
            (figures::AGENT_MIB, processes::resident_mib(agent)?),
            (figures::AGENT_FILES, processes::open_files(agent)?),
            (figures::AGENT_THREADS, processes::threads(agent)?),
            (figures::AGENT_STATE_MIB, size_of(&self.agent_state) / MIB),
            (
                figures::STORED_MIB,
                metrics.value("regatta_stored_bytes")? / MIB,
            ),
            (
                figures::STORED_OBJECTS,
                metrics.value("regatta_stored_objects")?,
            ),
            (figures::USE_LOG_MIB, bytes_of(USE_LOG) / MIB),
            (figures::LEDGER_MIB, bytes_of(LEDGER) / MIB),
            (
                figures::UPLOADS,
                files_in(&self.state.join(UPLOADS))?.len() as f64,
            ),
            (figures::QUEUED, metrics.value("regatta_queued_units")?),
            (figures::LEASED, metrics.value("regatta_leased_units")?),
            (
                figures::OPERATIONS,
                metrics.value(r#"regatta_operations{state="active"}"#)?,
            ),
            (
                figures::ENDED_OPERATIONS,
                metrics.value(r#"regatta_operations{state="ended"}"#)?,
            ),
            (
                figures::WATCHERS,
                metrics.value("regatta_operation_watchers")?,
            ),
            (figures::RUNS, metrics.value("regatta_active_runs")?),
            (figures::METRICS, metrics.0.len() as f64),
        ]))
    }

    /// What is under way, and what is missing of so many slots.
    pub(super) fn left(&self, slots: usize) -> Result<Vec<String>> {
        let metrics = Metrics::get(&self.pages)?;
        let mut left = Vec::new();
        for name in [
            "regatta_queued_units",
            "regatta_leased_units",
            r#"regatta_operations{state="active"}"#,
            "regatta_operation_watchers",
            "regatta_active_runs",
        ] {
            let value = metrics.value(name)?;
            if value > 0.0 {
                left.push(format!("{name} {value}"));
            }
        }
        let free = metrics.value(r#"regatta_slots{state="free"}"#)?;
        if free < slots as f64 {
            left.push(format!("{free} free slots of {slots}"));
        }
        let containers = self.agents.iter().map(|agent| containers_of(agent));
        let containers: usize = containers.sum();
        if containers > slots {
            left.push(format!("{containers} containers for {slots} slots"));
        }
        Ok(left)
    }
}

/// Values by name and labels.
struct Metrics(HashMap<String, f64>);

impl Metrics {
    fn get(pages: &str) -> Result<Self> {
        let page = page(pages, "/metrics");
        Ok(Self::parse(&page.with_context(|| {
            format!("the coordinator's metrics at {pages}")
        })?))
    }

    fn parse(page: &str) -> Self {
        let lines = page.lines().filter(|line| !line.starts_with('#'));
        let value = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Self(lines.filter_map(value).collect())
    }

    fn value(&self, name: &str) -> Result<f64> {
        let value = self.0.get(name).copied();
        value.with_context(|| format!("the coordinator has no metric {name}"))
    }
}

fn page(url: &str, path: &str) -> Result<String> {
    let address = url.strip_prefix("http://").context("no HTTP URL")?;
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PAGE_LIMIT))?;
    // Of HTTP 1.0, so that what comes is the page and nothing else.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.lines().next().unwrap_or_default();
    ensure!(status.contains(" 200 "), "{status}");
    Ok(body.to_owned())
}

/// The files in a directory, with their sizes in bytes.
fn files_in(directory: &Path) -> Result<Vec<(String, f64)>> {
    let entries = fs::read_dir(directory);
    let entries = entries.with_context(|| format!("reading {}", directory.display()))?;
    let file = |entry: io::Result<fs::DirEntry>| {
        let entry = entry.ok()?;
        // One that is gone by now is none.
        let metadata = entry.metadata().ok().filter(fs::Metadata::is_file)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        Some((name, metadata.len() as f64))
    };
    Ok(entries.filter_map(file).collect())
}

/// How many directories of containers an agent has, each of which is called by a number.
fn containers_of(agent: &Path) -> usize {
    let entries = |directory: PathBuf| fs::read_dir(directory).into_iter().flatten().flatten();
    let instances = entries(agent.join("run"));
    let all = instances.flat_map(|instance| entries(instance.path()));
    let is_number = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
    let containers = all.filter(|entry| entry.file_name().to_str().is_some_and(is_number));
    containers.count()
}

/// The bytes of all that is below a directory. What comes and goes meanwhile may count or not.
fn size_of(directory: &Path) -> f64 {
    let mut size = 0.0;
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => size += size_of(&entry.path()),
            Ok(_) => size += entry.metadata().map_or(0.0, |it| it.len() as f64),
            Err(_) => {}
        }
    }
    size
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_what_is_called_by_a_number() {
        let agent = tempfile::tempdir().unwrap();
        assert_eq!(containers_of(agent.path()), 0);
        for directory in ["run/5f-1-0/12/views", "run/5f-1-0/7", "run/5f-1-0/init"] {
            fs::create_dir_all(agent.path().join(directory)).unwrap();
        }
        assert_eq!(containers_of(agent.path()), 2);
    }

    #[test]
    fn metrics_are_found_by_name_and_labels() {
        let page = "# TYPE a gauge\na{state=\"x y\"} 3\nb 2.5\n\nc{le=\"+Inf\"} 1e3\n";
        let metrics = Metrics::parse(page);
        assert_eq!(metrics.0.len(), 3);
        assert!((metrics.value(r#"a{state="x y"}"#).unwrap() - 3.0).abs() < f64::EPSILON);
        assert!((metrics.value("b").unwrap() - 2.5).abs() < f64::EPSILON);
        assert!(metrics.value("a").is_err());
    }
}
