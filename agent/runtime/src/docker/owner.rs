//! Which process made a container, so that any agent of the same machine can tell when it is gone.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

/// The place of a process's start time in `/proc/PID/stat`, counted from the state (proc(5), field 22).
const START_TIME_AFTER_STATE: usize = 19;
/// The states of processes that have ended and are still listed.
const ENDED_STATES: [&str; 2] = ["Z", "X"];

/// A process of this machine, told from every other before and after it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Owner {
    /// Which boot of which machine.
    boot: String,
    /// The PID namespace in which `pid` means something.
    namespace: u64,
    pid: i32,
    /// In clock ticks since the boot: a number is given to another process one day.
    started: u64,
}

/// What the kernel says of a process number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sighting {
    /// There is a process, started then, in clock ticks since the boot.
    Started(u64),
    /// There is none that still runs.
    Nobody,
    /// There is one that this process may not look at.
    Hidden,
}

impl Owner {
    /// This process.
    pub(crate) fn this_process() -> io::Result<Self> {
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        let Sighting::Started(started) = look_at(pid) else {
            return Err(io::Error::other("/proc does not show this process"));
        };
        Ok(Self {
            boot: fs::read_to_string("/proc/sys/kernel/random/boot_id")?
                .trim()
                .to_owned(),
            namespace: fs::metadata("/proc/self/ns/pid")?.ino(),
            pid,
            started,
        })
    }

    /// As a label's value.
    pub(crate) fn label(&self) -> String {
        let Self {
            boot,
            namespace,
            pid,
            started,
        } = self;
        format!("{boot}/{namespace}/{pid}/{started}")
    }

    /// Reads a label's value; `None` if it is not one.
    pub(crate) fn from_label(label: &str) -> Option<Self> {
        let mut parts = label.split('/');
        let owner = Self {
            boot: parts.next()?.to_owned(),
            namespace: parts.next()?.parse().ok()?,
            pid: parts.next()?.parse().ok()?,
            started: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(owner)
    }

    /// Whether the process has certainly ended, as far as `observer`, this process, can tell: one in
    /// another PID namespace may live.
    pub(crate) fn is_gone(&self, observer: &Self) -> bool {
        if self.boot != observer.boot {
            return true;
        }
        if self.namespace != observer.namespace {
            return false;
        }
        match look_at(self.pid) {
            Sighting::Started(started) => started != self.started,
            Sighting::Nobody => true,
            Sighting::Hidden => false,
        }
    }
}

fn look_at(pid: i32) -> Sighting {
    if let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) {
        return read_stat(&stat).unwrap_or(Sighting::Hidden);
    }
    // Other users' processes may be hidden in /proc, yet not from this question.
    match Pid::from_raw(pid).map(test_kill_process) {
        Some(Err(Errno::SRCH)) | None => Sighting::Nobody,
        Some(Ok(()) | Err(_)) => Sighting::Hidden,
    }
}

fn read_stat(stat: &str) -> Option<Sighting> {
    // The program's name is in parentheses and may hold anything, parentheses included.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_whitespace();
    let state = fields.next()?;
    if ENDED_STATES.contains(&state) {
        return Some(Sighting::Nobody);
    }
    let started = fields.nth(START_TIME_AFTER_STATE - 1)?;
    Some(Sighting::Started(started.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_read_back_and_others_do_not() {
        let owner = Owner::this_process().expect("/proc");
        assert_eq!(Owner::from_label(&owner.label()), Some(owner));
        for label in ["", "boot/1/2", "boot/1/2/x", "boot/1/2/3/4"] {
            assert_eq!(Owner::from_label(label), None, "{label}");
        }
    }

    #[test]
    fn the_living_are_told_from_the_dead_and_from_strangers() {
        let observer = Owner::this_process().expect("/proc");
        assert!(!observer.is_gone(&observer));
        let mut child = std::process::Command::new("true").spawn().expect("started");
        let pid = i32::try_from(child.id()).expect("a number");
        let ended = Owner {
            pid,
            ..observer.clone()
        };
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while look_at(pid) != Sighting::Nobody {
            assert!(std::time::Instant::now() < deadline, "it does not end");
        }
        assert!(ended.is_gone(&observer), "it has not been waited for");
        child.wait().expect("reaped");
        assert!(ended.is_gone(&observer));
        let reused = Owner {
            started: observer.started + 1,
            ..observer.clone()
        };
        assert!(reused.is_gone(&observer));
        let before_the_boot = Owner {
            boot: "another".to_owned(),
            ..observer.clone()
        };
        assert!(before_the_boot.is_gone(&observer));
        let elsewhere = Owner {
            namespace: observer.namespace + 1,
            ..ended
        };
        assert!(!elsewhere.is_gone(&observer));
    }

    #[test]
    fn names_with_parentheses_do_not_confuse() {
        let fields = (4..=22).map(|field| field.to_string()).collect::<Vec<_>>();
        let stat = format!("7 (a) b) (c) S {} more", fields.join(" "));
        assert_eq!(read_stat(&stat), Some(Sighting::Started(22)));
    }
}
