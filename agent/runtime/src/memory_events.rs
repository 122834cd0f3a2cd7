//! Tells whether the kernel killed something in a container for want of memory.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Pid;

/// The control groups' file system.
const CONTROL_GROUPS: &str = "/sys/fs/cgroup";

/// The counter of one container's control group.
#[derive(Debug)]
pub(crate) struct MemoryEvents {
    /// `memory.oom_control` (version 1) or `memory.events` (version 2), where it can be seen.
    file: Option<PathBuf>,
    seen: u64,
}

impl MemoryEvents {
    /// A counter that never counts.
    pub(crate) fn unknown() -> Self {
        Self {
            file: None,
            seen: 0,
        }
    }

    /// The counter of the control group that a process is in.
    pub(crate) fn of_process(pid: Pid) -> Self {
        let table = format!("/proc/{}/cgroup", pid.as_raw_nonzero());
        let table = fs::read_to_string(table).unwrap_or_default();
        let file = counter_file(Path::new(CONTROL_GROUPS), &table).filter(|file| file.exists());
        let mut events = Self { file, seen: 0 };
        events.has_killed();
        events
    }

    /// Whether the kernel has killed since the last call.
    pub(crate) fn has_killed(&mut self) -> bool {
        let text = self
            .file
            .as_ref()
            .and_then(|file| fs::read_to_string(file).ok());
        let count = text.as_deref().and_then(kills).unwrap_or(self.seen);
        let more = count > self.seen;
        self.seen = count;
        more
    }
}

/// The lines of a process's `cgroup` file are `id:controllers:path`; version 2 has no controllers. Where
/// both are mounted, the one that holds the memory controller counts.
fn counter_file(root: &Path, table: &str) -> Option<PathBuf> {
    let mut unified = None;
    for line in table.lines() {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let path = path.trim_start_matches('/');
        if controllers
            .split(',')
            .any(|controller| controller == "memory")
        {
            return Some(root.join("memory").join(path).join("memory.oom_control"));
        }
        if controllers.is_empty() {
            unified = Some(root.join(path).join("memory.events"));
        }
    }
    unified
}

/// The count in either file's `oom_kill` line.
fn kills(text: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_is_found_in_both_versions() {
        let check = |table: &str, expected: Option<&str>| {
            let found = counter_file(Path::new("/cg"), table);
            assert_eq!(found.as_deref(), expected.map(Path::new), "{table}");
        };
        check("0::/a/b\n", Some("/cg/a/b/memory.events"));
        check(
            "9:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n0::/system.slice\n",
            Some("/cg/memory/docker/x/memory.oom_control"),
        );
        check("3:name=systemd:/x:y\n", None);
        check("garbage\n", None);
        check("", None);
    }

    #[test]
    fn kills_are_counted_in_both_versions() {
        assert_eq!(
            kills("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"),
            Some(3)
        );
        assert_eq!(kills("low 0\nhigh 0\nmax 8\noom 2\noom_kill 1\n"), Some(1));
        assert_eq!(kills("oom_kill_disable 0\n"), None);
    }

    #[test]
    fn only_new_kills_are_told() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("memory.events");
        let mut events = MemoryEvents {
            file: Some(file.clone()),
            seen: 0,
        };
        for (text, expected) in [
            ("oom_kill 0\n", false),
            ("oom_kill 2\n", true),
            ("oom_kill 2\n", false),
            ("gibberish", false),
            ("oom_kill 3\n", true),
        ] {
            fs::write(&file, text).expect("written");
            assert_eq!(events.has_killed(), expected, "{text}");
        }
        assert!(!MemoryEvents::unknown().has_killed());
    }
}
