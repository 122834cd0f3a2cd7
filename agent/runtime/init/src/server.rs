//! The init's loop: requests from the agent, ends of children.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::ptr;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{DumpableBehavior, set_child_subreaper, set_dumpable_behavior};

use crate::accounting::{Accounting, Reaped, Waited};
use crate::connection::Connection;
use crate::job::{self, Job, Surroundings};
use crate::message::{Ending, Execute, Exited, Request, Response, VERSION};
use crate::processes::Reach;
use crate::removal::empty_directory;

/// What distinguishes one kind of container from another, seen from its init.
pub(crate) struct Habits {
    /// Commands give up all capabilities.
    pub(crate) drop_capabilities: bool,
    /// A mount point that a wipe leaves alone, wherever it is.
    pub(crate) keep: Option<PathBuf>,
}

/// The init at work.
pub(crate) struct Server {
    connection: Connection,
    children: OwnedFd,
    null: OwnedFd,
    reach: Reach,
    habits: Habits,
    accounting: Accounting,
    job: Option<Job>,
}

impl Server {
    /// Prepares this process to be an init and greets the agent.
    pub(crate) fn new(mut connection: Connection, habits: Habits) -> io::Result<Self> {
        let reach = Reach::of_this_process();
        // A command of the same user could otherwise trace the init, or take its connection.
        set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
        rustix::thread::set_no_new_privs(true)?;
        if reach == Reach::Descendants {
            set_child_subreaper(Some(rustix::process::getpid()))?;
        }
        let children = watch_children()?;
        let null = OwnedFd::from(std::fs::File::open("/dev/null")?);
        connection.send(&Response::Hello { version: VERSION })?;
        let accounting = Accounting::default();
        Ok(Self {
            connection,
            children,
            null,
            reach,
            habits,
            accounting,
            job: None,
        })
    }

    /// Serves until the agent hangs up, and then kills everything.
    pub(crate) fn serve(mut self) -> io::Result<()> {
        let served = self.turn_until_hang_up();
        let cleared = self.reach.clear(&mut self.accounting, |_| {});
        served.and(cleared)
    }

    fn turn_until_hang_up(&mut self) -> io::Result<()> {
        loop {
            let (agent, child) = self.wait()?;
            if child {
                self.reap()?;
            }
            if agent {
                if !self.connection.fill()? {
                    return Ok(());
                }
                while let Some(request) = self.connection.next_request()? {
                    self.handle(request)?;
                }
            }
        }
    }

    /// Waits until the agent or a child wants attention.
    fn wait(&self) -> io::Result<(bool, bool)> {
        let mut sources = [
            PollFd::from_borrowed_fd(self.connection.descriptor(), PollFlags::IN),
            PollFd::new(&self.children, PollFlags::IN),
        ];
        match poll(&mut sources, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok((
            !sources[0].revents().is_empty(),
            !sources[1].revents().is_empty(),
        ))
    }

    fn handle(&mut self, request: Request) -> io::Result<()> {
        match request {
            Request::Execute(execute) => self.execute(&execute),
            Request::Kill => {
                self.reach.kill_everything();
                Ok(())
            }
            Request::Wipe { directories } => self.wipe(&directories),
            Request::Ping => self.connection.send(&Response::Pong),
        }
    }

    fn execute(&mut self, execute: &Execute) -> io::Result<()> {
        let streams = self.connection.take_streams(execute.has_stdin);
        let (Some(streams), None) = (streams, &self.job) else {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        };
        self.accounting = Accounting::default();
        let surroundings = Surroundings {
            stdin: streams.stdin.as_ref().unwrap_or(&self.null),
            outputs: [&streams.stdout, &streams.stderr],
            drop_capabilities: self.habits.drop_capabilities,
        };
        match job::start(execute, &surroundings) {
            Ok(job) => {
                self.job = Some(job);
                self.connection.send(&Response::Started)
            }
            Err(errno) => {
                self.reach.clear(&mut self.accounting, |_| {})?;
                self.connection.send(&Response::NotStarted { errno })
            }
        }
    }

    fn reap(&mut self) -> io::Result<()> {
        let mut information = [0; size_of::<libc::signalfd_siginfo>() * 8];
        match rustix::io::read(&self.children, &mut information) {
            Ok(_) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        while let Waited::Reaped(reaped) = self.accounting.wait(false)? {
            let Some(job) = self.job.take_if(|job| job.pid == reaped.pid) else {
                continue;
            };
            return self.finish(&job, &reaped);
        }
        Ok(())
    }

    /// The main process ended: its descendants may not outlive it.
    fn finish(&mut self, job: &Job, main: &Reaped) -> io::Result<()> {
        let wall_time = job.started.elapsed();
        self.reach.clear(&mut self.accounting, |_| {})?;
        let ending: Ending = main.ending;
        self.connection.send(&Response::Exited(Exited {
            ending,
            user_cpu: self.accounting.user_cpu,
            system_cpu: self.accounting.system_cpu,
            peak_memory_bytes: self.accounting.peak_memory_bytes,
            wall_time,
        }))
    }

    fn wipe(&mut self, directories: &[Vec<u8>]) -> io::Result<()> {
        self.job = None;
        self.reach.clear(&mut self.accounting, |_| {})?;
        if self.reach == Reach::Namespace {
            remove_ipc_objects();
        }
        let keep = self.habits.keep.as_deref();
        let failure = directories
            .iter()
            .find_map(|directory| empty_directory(path(directory), keep).err());
        self.connection.send(&match failure {
            None => Response::Wiped,
            Some(error) => Response::NotWiped {
                errno: error.raw_os_error().unwrap_or(libc::EIO),
            },
        })
    }
}

fn path(bytes: &[u8]) -> &Path {
    Path::new(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(bytes))
}

/// A descriptor that is readable when a child ended.
fn watch_children() -> io::Result<OwnedFd> {
    #[expect(unsafe_code, reason = "neither std nor rustix wraps signalfd")]
    // SAFETY: the set is initialised by sigemptyset before use, and a descriptor that signalfd answers
    // is owned by nobody else.
    unsafe {
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigemptyset(set.as_mut_ptr());
        libc::sigaddset(set.as_mut_ptr(), libc::SIGCHLD);
        if libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), ptr::null_mut()) == -1 {
            return Err(io::Error::last_os_error());
        }
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        let descriptor = libc::signalfd(-1, set.as_ptr(), flags);
        if descriptor == -1 {
            return Err(io::Error::last_os_error());
        }
        Ok(OwnedFd::from_raw_fd(descriptor))
    }
}

/// System V objects outlive their processes; the namespace holds nobody else's.
fn remove_ipc_objects() {
    for id in ipc_ids("/proc/sysvipc/shm") {
        #[expect(unsafe_code, reason = "rustix has no System V IPC")]
        // SAFETY: IPC_RMID ignores the buffer.
        let _: i32 = unsafe { libc::shmctl(id, libc::IPC_RMID, ptr::null_mut()) };
    }
    for id in ipc_ids("/proc/sysvipc/msg") {
        #[expect(unsafe_code, reason = "rustix has no System V IPC")]
        // SAFETY: IPC_RMID ignores the buffer.
        let _: i32 = unsafe { libc::msgctl(id, libc::IPC_RMID, ptr::null_mut()) };
    }
    for id in ipc_ids("/proc/sysvipc/sem") {
        #[expect(unsafe_code, reason = "rustix has no System V IPC")]
        // SAFETY: IPC_RMID takes no fourth argument.
        let _: i32 = unsafe { libc::semctl(id, 0, libc::IPC_RMID) };
    }
}

/// The second column of such a table, below its heading.
fn ipc_ids(table: &str) -> Vec<i32> {
    let text = std::fs::read_to_string(table).unwrap_or_default();
    let id = |line: &str| line.split_ascii_whitespace().nth(1)?.parse().ok();
    text.lines().skip(1).filter_map(id).collect()
}

/// Marks every descriptor above the standard three as not for commands.
pub(crate) fn seal_descriptors() {
    #[expect(unsafe_code, reason = "rustix does not wrap close_range")]
    // SAFETY: setting close-on-exec changes no memory. Before Linux 5.11 this fails, and what an agent
    // passes on is close-on-exec already.
    let _: libc::c_long = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            3_u32,
            u32::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
}

/// Makes sure that 0, 1 and 2 are open, so that nothing else ever gets these numbers.
pub(crate) fn occupy_standard_descriptors() -> io::Result<()> {
    loop {
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/null")?;
        if file.as_raw_fd() > 2 {
            return Ok(());
        }
        std::mem::forget(file);
    }
}
