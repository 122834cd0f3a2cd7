//! What processes use, from `/proc`.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};

/// Ticks a second of the counters in `/proc/PID/stat` (`USER_HZ`): 100 on every Linux that Rust runs on.
const TICKS_PER_SECOND: f64 = 100.0;
/// How Docker's own processes are called: the daemon, what it runs containers with, and that one's
/// process beside each container.
const DOCKER: &[&str] = &["dockerd", "containerd", "containerd-shim"];

/// Resident memory of a process.
pub(super) fn resident_mib(pid: u32) -> Result<f64> {
    memory_mib(pid, "VmRSS:")
}

/// How many threads a process has.
pub(super) fn threads(pid: u32) -> Result<f64> {
    status_field(pid, "Threads:")
}

/// How many files, sockets among them, a process has open.
pub(super) fn open_files(pid: u32) -> Result<f64> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count() as f64)
}

/// Seconds of processor time that a process has used, without its children.
pub(super) fn processor_seconds(pid: u32) -> Result<f64> {
    Ok(Stat::read(pid)?.seconds)
}

/// The same with those of its children that have ended.
pub(super) fn processor_seconds_with_children(pid: u32) -> Result<f64> {
    let stat = Stat::read(pid)?;
    Ok(stat.seconds + stat.children_seconds)
}

/// The most resident memory that a process has had.
pub(super) fn peak_mib(pid: u32) -> Result<f64> {
    memory_mib(pid, "VmHWM:")
}

fn memory_mib(pid: u32, kind: &str) -> Result<f64> {
    Ok(status_field(pid, kind)? / 1024.0)
}

fn status_field(pid: u32, kind: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(kind));
    let number = line
        .and_then(|line| line.split_whitespace().next())
        .with_context(|| format!("no {kind} in the status of process {pid}"))?;
    Ok(number.parse()?)
}

/// Adds up what the members of a fleet, and Docker, use from now on.
pub(super) struct Meter {
    members: Vec<(&'static str, u32, f64)>,
    docker: BTreeMap<u32, f64>,
}

impl Meter {
    pub(super) fn start(members: &[(&'static str, u32)]) -> Result<Self> {
        let used = |(name, pid): &(&'static str, u32)| Ok((*name, *pid, Stat::read(*pid)?.seconds));
        Ok(Self {
            members: members.iter().map(used).collect::<Result<_>>()?,
            docker: docker_seconds()?,
        })
    }

    /// Seconds of processor time since the start, by name: the members', and `docker` if its daemon is
    /// on this machine. What a process beside a container used is lost if that has ended meanwhile.
    pub(super) fn stop(self) -> Result<BTreeMap<&'static str, f64>> {
        let mut used = BTreeMap::new();
        for (name, pid, before) in &self.members {
            used.insert(*name, Stat::read(*pid)?.seconds - before);
        }
        let docker = docker_seconds()?;
        if !docker.is_empty() {
            let before = |pid| self.docker.get(pid).copied().unwrap_or_default();
            let since = docker.iter().map(|(pid, seconds)| seconds - before(pid));
            used.insert("docker", since.sum());
        }
        Ok(used)
    }
}

fn docker_seconds() -> Result<BTreeMap<u32, f64>> {
    let mut seconds = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let pid = entry?.file_name().to_str().and_then(|it| it.parse().ok());
        // One that cannot be read has just ended.
        let stat = pid.and_then(|pid| Some((pid, Stat::read(pid).ok()?)));
        if let Some((pid, stat)) = stat.filter(|(_, stat)| DOCKER.contains(&stat.name.as_str())) {
            seconds.insert(pid, stat.seconds);
        }
    }
    Ok(seconds)
}

/// A process as `/proc/PID/stat` has it.
#[derive(Debug, PartialEq)]
struct Stat {
    /// Its program's name, cut off after 15 bytes.
    name: String,
    /// The processor time of all its threads, but not of its children.
    seconds: f64,
    /// That of its children that it has waited for.
    children_seconds: f64,
}

impl Stat {
    fn read(pid: u32) -> Result<Self> {
        let file = format!("/proc/{pid}/stat");
        Self::parse(&fs::read_to_string(&file)?).with_context(|| format!("reading {file}"))
    }

    fn parse(text: &str) -> Result<Self> {
        // The second field is the name in parentheses, which may hold anything; user and system time
        // are fields 14 and 15, those of children 16 and 17 (proc_pid_stat(5)).
        let (before, after) = text.rsplit_once(')').context("no name")?;
        let (_, name) = before.split_once('(').context("no name")?;
        let fields: Vec<_> = after.split_whitespace().collect();
        let ticks =
            |index: usize| -> Result<f64> { Ok(fields.get(index).context("too short")?.parse()?) };
        Ok(Self {
            name: name.to_owned(),
            seconds: (ticks(11)? + ticks(12)?) / TICKS_PER_SECOND,
            children_seconds: (ticks(13)? + ticks(14)?) / TICKS_PER_SECOND,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let text = "7 (a) (b) S 1 7 7 0 -1 4194560 1 2 3 4 150 25 900 800 20 0 1 0 5 6 7";
        let expected = Stat {
            name: "a) (b".to_owned(),
            seconds: 1.75,
            children_seconds: 17.0,
        };
        assert_eq!(Stat::parse(text).unwrap(), expected);
        assert!(Stat::parse("7 (a) S 1").is_err());
        assert!(Stat::parse("").is_err());
    }
}
