//! Waits for children and adds up what they used.

use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

use crate::message::Ending;

/// What the children of one command used.
#[derive(Clone, Copy, Default)]
pub(crate) struct Accounting {
    pub(crate) user_cpu: Duration,
    pub(crate) system_cpu: Duration,
    pub(crate) peak_memory_bytes: u64,
}

/// A child that ended.
pub(crate) struct Reaped {
    pub(crate) pid: i32,
    pub(crate) ending: Ending,
}

/// The answer of one wait.
pub(crate) enum Waited {
    Reaped(Reaped),
    NoneYet,
    NoChildren,
}

impl Accounting {
    /// Waits for any child; each child's usage includes that of the children it waited for itself.
    pub(crate) fn wait(&mut self, block: bool) -> io::Result<Waited> {
        let options = if block { 0 } else { libc::WNOHANG };
        let mut status = 0;
        let mut usage = MaybeUninit::<libc::rusage>::zeroed();
        #[expect(
            unsafe_code,
            reason = "neither std nor rustix wraps wait4, the only source of rusage"
        )]
        // SAFETY: both pointers are valid for writes for the whole call.
        let pid = unsafe { libc::wait4(-1, &raw mut status, options, usage.as_mut_ptr()) };
        match pid {
            0 => Ok(Waited::NoneYet),
            -1 => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ECHILD) => Ok(Waited::NoChildren),
                error if error.kind() == io::ErrorKind::Interrupted => Ok(Waited::NoneYet),
                error => Err(error),
            },
            pid => {
                #[expect(unsafe_code, reason = "see above")]
                // SAFETY: it was zeroed, and all-zero is a valid rusage.
                self.add(&unsafe { usage.assume_init() });
                Ok(Waited::Reaped(Reaped {
                    pid,
                    ending: ending(status),
                }))
            }
        }
    }

    fn add(&mut self, usage: &libc::rusage) {
        self.user_cpu += duration(usage.ru_utime);
        self.system_cpu += duration(usage.ru_stime);
        // The kernel counts this in KiB.
        let peak = u64::try_from(usage.ru_maxrss)
            .unwrap_or(0)
            .saturating_mul(1024);
        self.peak_memory_bytes = self.peak_memory_bytes.max(peak);
    }
}

fn ending(status: i32) -> Ending {
    if libc::WIFSIGNALED(status) {
        Ending::Signal(libc::WTERMSIG(status))
    } else {
        Ending::Code(libc::WEXITSTATUS(status))
    }
}

fn duration(time: libc::timeval) -> Duration {
    let microseconds = u64::try_from(time.tv_usec).unwrap_or(0);
    Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0))
        + Duration::from_micros(microseconds)
}
