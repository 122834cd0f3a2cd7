//! Kills everything but the init.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::time::Duration;

use rustix::process::{
    Pid, PidfdFlags, Signal, getpid, kill_process, pidfd_open, pidfd_send_signal,
};

use crate::accounting::{Accounting, Waited};

/// How long to wait between two rounds of killing where a fork may have escaped a round.
const ROUND_PAUSE: Duration = Duration::from_millis(2);

/// How far the init's power reaches.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// It is the first process of a PID namespace: one call reaches everything, and misses nothing.
    Namespace,
    /// It is a subreaper: its descendants are found in `/proc`, over and over until none is left.
    Descendants,
}

impl Reach {
    pub(crate) fn of_this_process() -> Self {
        if getpid().is_init() {
            Self::Namespace
        } else {
            Self::Descendants
        }
    }

    /// Sends SIGKILL to everything but the init.
    pub(crate) fn kill_everything(self) {
        match self {
            Self::Namespace => kill_namespace(),
            Self::Descendants => descendants().into_iter().for_each(kill_descendant),
        }
    }

    /// Kills everything and reaps it, telling each child to `seen`.
    pub(crate) fn clear(
        self,
        accounting: &mut Accounting,
        mut seen: impl FnMut(crate::accounting::Reaped),
    ) -> io::Result<()> {
        self.kill_everything();
        loop {
            match accounting.wait(self == Self::Namespace)? {
                Waited::Reaped(reaped) => seen(reaped),
                Waited::NoChildren => return Ok(()),
                Waited::NoneYet => {
                    std::thread::sleep(ROUND_PAUSE);
                    self.kill_everything();
                }
            }
        }
    }
}

fn kill_namespace() {
    #[expect(unsafe_code, reason = "rustix has no kill(-1)")]
    // SAFETY: kill has no memory effects. The caller is the first process of its PID namespace, so this
    // reaches that namespace alone. No process to kill (ESRCH) is success.
    let _: i32 = unsafe { libc::kill(-1, libc::SIGKILL) };
}

fn kill_descendant(pid: Pid) {
    let Ok(handle) = pidfd_open(pid, PidfdFlags::empty()) else {
        // Without pidfds (before Linux 5.3) or without the process, which is the goal.
        kill_process(pid, Signal::KILL).ok();
        return;
    };
    // The number may have been reused since it was listed: look again now that the handle pins it.
    if descendants().contains(&pid) {
        pidfd_send_signal(&handle, Signal::KILL).ok();
    }
}

fn descendants() -> Vec<Pid> {
    let parents = parents();
    let own = getpid().as_raw_nonzero().get();
    let descends = |mut pid: i32| {
        // Bounded, because a listing taken over time may hold a cycle of reused numbers.
        for _ in 0..parents.len() {
            match parents.get(&pid) {
                Some(&parent) if parent == own => return true,
                Some(&parent) => pid = parent,
                None => return false,
            }
        }
        false
    };
    parents
        .keys()
        .filter(|pid| descends(**pid))
        .filter_map(|pid| Pid::from_raw(*pid))
        .collect()
}

fn parents() -> HashMap<i32, i32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return HashMap::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter_map(|pid| Some((pid, parent(pid)?)))
        .collect()
}

/// The parent of a process. The name before it may hold anything, parentheses included.
fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}
