//! Forks and executes a command.

use std::ffi::{CString, c_char};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::ptr;
use std::time::Instant;

use rustix::pipe::{PipeFlags, pipe_with};

use crate::message::Execute;

/// Where `execvp` looks when there is no `PATH`.
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin";

/// Capability numbers end before this; unknown ones are refused by the kernel and need no dropping.
const CAPABILITY_COUNT: libc::c_ulong = 64;

/// The kernel's signals, real-time ones included.
const SIGNAL_COUNT: libc::c_int = 64;

/// The size of the kernel's signal sets.
const SIGNAL_SET_BYTES: usize = 8;

/// A running command.
pub(crate) struct Job {
    pub(crate) pid: i32,
    pub(crate) started: Instant,
}

/// What a command is started with besides its description.
pub(crate) struct Surroundings<'a> {
    /// Where its input comes from.
    pub(crate) stdin: &'a OwnedFd,
    /// Where its output goes.
    pub(crate) outputs: [&'a OwnedFd; 2],
    /// Whether to give up all capabilities; a container has none to begin with.
    pub(crate) drop_capabilities: bool,
}

/// Everything that the child needs, made before the fork: after it, nothing may allocate.
struct Image {
    candidates: Vec<CString>,
    arguments: Strings,
    environment: Strings,
    working_directory: CString,
    root: Option<CString>,
}

struct Strings {
    pointers: Vec<*const c_char>,
    /// Owns what `pointers` points to.
    _strings: Vec<CString>,
}

impl Strings {
    fn new(strings: &[Vec<u8>]) -> Result<Self, i32> {
        let strings = strings
            .iter()
            .map(|bytes| c_string(bytes))
            .collect::<Result<Vec<_>, _>>()?;
        let pointers = strings
            .iter()
            .map(|string| string.as_ptr())
            .chain([ptr::null()])
            .collect();
        Ok(Self {
            pointers,
            _strings: strings,
        })
    }
}

impl Image {
    fn new(execute: &Execute) -> Result<Self, i32> {
        let program = execute.arguments.first().ok_or(libc::EINVAL)?;
        let root = Some(&execute.root).filter(|root| !root.is_empty());
        Ok(Self {
            root: root.map(|root| c_string(root)).transpose()?,
            candidates: candidates(program, &execute.environment)?,
            arguments: Strings::new(&execute.arguments)?,
            environment: Strings::new(&execute.environment)?,
            working_directory: c_string(&execute.working_directory)?,
        })
    }
}

/// Starts a command; the error is the errno of what failed.
pub(crate) fn start(execute: &Execute, surroundings: &Surroundings<'_>) -> Result<Job, i32> {
    let image = Image::new(execute)?;
    let (failure, report) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| errno.raw_os_error())?;
    #[expect(
        unsafe_code,
        reason = "std's Command cannot be told to leave ENOEXEC alone"
    )]
    // SAFETY: this process has one thread, and the child calls only async-signal-safe functions.
    let pid = unsafe { libc::fork() };
    match pid {
        -1 => Err(last_errno()),
        0 => become_command(&image, surroundings, report.as_raw_fd()),
        pid => {
            drop(report);
            match read_failure(&failure) {
                Some(errno) => Err(errno),
                None => Ok(Job {
                    pid,
                    started: Instant::now(),
                }),
            }
        }
    }
}

/// The end of file means that the exec closed the pipe: success.
fn read_failure(failure: &OwnedFd) -> Option<i32> {
    let mut bytes = [0; 4];
    loop {
        match rustix::io::read(failure, &mut bytes) {
            Ok(4) => return Some(i32::from_le_bytes(bytes)),
            Ok(_) => return None,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Some(errno.raw_os_error()),
        }
    }
}

/// In the child: never returns.
fn become_command(image: &Image, surroundings: &Surroundings<'_>, report: RawFd) -> ! {
    let descriptors = [
        surroundings.stdin.as_raw_fd(),
        surroundings.outputs[0].as_raw_fd(),
        surroundings.outputs[1].as_raw_fd(),
    ];
    #[expect(unsafe_code, reason = "between fork and exec only raw calls are safe")]
    // SAFETY: every call is async-signal-safe, every pointer comes from `image` and outlives the call,
    // and the process ends here if no exec succeeds.
    unsafe {
        let errno = match prepare(image, &descriptors, surroundings.drop_capabilities) {
            0 => execute_first(image),
            errno => errno,
        };
        let bytes = errno.to_le_bytes();
        libc::write(report, bytes.as_ptr().cast(), bytes.len());
        libc::_exit(127)
    }
}

#[expect(unsafe_code, reason = "between fork and exec only raw calls are safe")]
/// SAFETY: for the child of a single-threaded fork alone. Answers 0 or an errno.
unsafe fn prepare(image: &Image, descriptors: &[RawFd; 3], drop_capabilities: bool) -> i32 {
    // SAFETY: raw calls on owned descriptors and valid pointers; see `become_command`.
    unsafe {
        libc::setsid();
        for (target, source) in (0..).zip(descriptors) {
            if libc::dup2(*source, target) == -1 {
                return last_errno();
            }
        }
        restore_signals();
        libc::umask(0o022);
        if let Some(root) = &image.root
            && libc::chroot(root.as_ptr()) == -1
        {
            return last_errno();
        }
        // What changing the root took could undo it.
        if (drop_capabilities || image.root.is_some()) && forget_capabilities() == -1 {
            return last_errno();
        }
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == -1 {
            return last_errno();
        }
        if libc::chdir(image.working_directory.as_ptr()) == -1 {
            return last_errno();
        }
    }
    0
}

#[expect(unsafe_code, reason = "between fork and exec only raw calls are safe")]
/// SAFETY: as `prepare`.
unsafe fn restore_signals() {
    // glibc keeps two signals to itself, and refuses to reset them when they are inherited as ignored: the
    // kernel is asked directly. All-zero is the default action, whatever the order of its fields.
    let default = [0_u64; 4];
    let nowhere = ptr::null_mut::<u64>();
    // SAFETY: the action is as long as the kernel's longest, a null old action and an initialised set are
    // valid arguments, and the signals that cannot be changed answer an error, which is fine.
    unsafe {
        for signal in 1..=SIGNAL_COUNT {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                nowhere,
                SIGNAL_SET_BYTES,
            );
        }
        let mut none = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
    }
}

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

#[expect(unsafe_code, reason = "between fork and exec only raw calls are safe")]
/// SAFETY: as `prepare`.
unsafe fn forget_capabilities() -> libc::c_long {
    // _LINUX_CAPABILITY_VERSION_3, whose sets take two words each.
    let header = CapabilityHeader {
        version: 0x2008_0522,
        pid: 0,
    };
    let sets = [0_u32; 6];
    // SAFETY: the kernel reads a header and six words through these pointers, which are valid.
    unsafe {
        for capability in 0..CAPABILITY_COUNT {
            libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0);
        }
        libc::syscall(libc::SYS_capset, &raw const header, sets.as_ptr())
    }
}

#[expect(unsafe_code, reason = "between fork and exec only raw calls are safe")]
/// SAFETY: as `prepare`. Tries the candidates as `execvp` does, and answers the errno if none will do.
unsafe fn execute_first(image: &Image) -> i32 {
    let mut verdict = libc::ENOENT;
    for candidate in &image.candidates {
        // SAFETY: both arrays end with a null pointer and point to strings that `image` owns.
        unsafe {
            libc::execve(
                candidate.as_ptr(),
                image.arguments.pointers.as_ptr(),
                image.environment.pointers.as_ptr(),
            );
        }
        match last_errno() {
            libc::ENOENT | libc::ENOTDIR => {}
            libc::EACCES => verdict = libc::EACCES,
            errno => return errno,
        }
    }
    verdict
}

/// Where a program may be.
fn candidates(program: &[u8], environment: &[Vec<u8>]) -> Result<Vec<CString>, i32> {
    if program.is_empty() || program.contains(&b'/') {
        return Ok(vec![c_string(program)?]);
    }
    let path = environment
        .iter()
        .find_map(|entry| entry.strip_prefix(b"PATH="));
    let directories = path.unwrap_or(DEFAULT_PATH).split(|byte| *byte == b':');
    directories
        .map(|directory| {
            let directory = if directory.is_empty() {
                b".".as_slice()
            } else {
                directory
            };
            c_string(&[directory, b"/", program].concat())
        })
        .collect()
}

fn c_string(bytes: &[u8]) -> Result<CString, i32> {
    CString::new(bytes).map_err(|_| libc::EINVAL)
}

fn last_errno() -> i32 {
    // `Error::last_os_error` reads errno and allocates nothing.
    std::io::Error::last_os_error()
        .raw_os_error()
        .unwrap_or(libc::EIO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_up_in_the_given_path() {
        let check = |program: &str, environment: &[&str], expected: &[&str]| {
            let environment: Vec<_> = environment.iter().map(|e| e.as_bytes().to_vec()).collect();
            let found = candidates(program.as_bytes(), &environment).expect("no NUL");
            let found: Vec<_> = found.iter().map(|c| c.to_str().expect("text")).collect();
            assert_eq!(found, expected, "{program} in {environment:?}");
        };
        check("ls", &["HOME=/", "PATH=/a:/b/c"], &["/a/ls", "/b/c/ls"]);
        check("ls", &["PATH=:/a"], &["./ls", "/a/ls"]);
        check("ls", &[], &["/bin/ls", "/usr/bin/ls"]);
        check("./ls", &["PATH=/a"], &["./ls"]);
        check("/x/ls", &["PATH=/a"], &["/x/ls"]);
        check("", &["PATH=/a"], &[""]);
        assert_eq!(candidates(b"l\0s", &[]), Err(libc::EINVAL));
    }
}
