//! Containers without a container engine: the init puts itself into namespaces of its own.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount, mount_change,
    move_mount, open_tree,
};
use rustix::thread::UnshareFlags;

use crate::connection::Connection;
use crate::message::Response;
use crate::server::{Habits, Server};

/// Directories that are private and empty in every container, where they exist.
const SCRATCH: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

/// IFF_UP, in the type of the request's field.
const INTERFACE_UP: libc::c_short = 1;

/// What a container without an engine looks like.
#[derive(Default)]
pub(crate) struct Enclosure {
    /// The agent's socket.
    pub(crate) socket: PathBuf,
    /// The directory that views replace; the same path inside.
    pub(crate) work: PathBuf,
    /// Directories that show nothing inside.
    pub(crate) hidden: Vec<PathBuf>,
    /// Loopback alone.
    pub(crate) isolate_network: bool,
}

impl Enclosure {
    /// Enters the namespaces, and serves as their first process. The process that called it stays
    /// outside and ends with the inner one.
    pub(crate) fn enter(self) -> io::Result<()> {
        let mut flags = UnshareFlags::NEWNS | UnshareFlags::NEWPID | UnshareFlags::NEWIPC;
        if self.isolate_network {
            flags |= UnshareFlags::NEWNET;
        }
        #[expect(
            unsafe_code,
            reason = "unshare can break descriptor tables, which are not touched"
        )]
        // SAFETY: FILES is not among the flags, and there is one thread.
        let unshared = unsafe { rustix::thread::unshare_unsafe(flags) };
        if let Err(errno) = unshared {
            return self.report("create namespaces", errno.into());
        }
        #[expect(
            unsafe_code,
            reason = "only a child becomes the first process of the namespace"
        )]
        // SAFETY: there is one thread, so the child may do anything.
        match unsafe { libc::fork() } {
            -1 => self.report("fork", io::Error::last_os_error()),
            0 => self.serve(),
            child => wait_for(child),
        }
    }

    fn serve(self) -> io::Result<()> {
        let mut connection = Connection::open(&self.socket)?;
        if let Err((operation, error)) = self.arrange() {
            return fail(&mut connection, operation, &error);
        }
        Server::new(
            connection,
            Habits {
                drop_capabilities: true,
                keep: Some(self.work),
            },
        )?
        .serve()
    }

    fn report(&self, operation: &str, error: io::Error) -> io::Result<()> {
        fail(&mut Connection::open(&self.socket)?, operation, &error)
    }

    /// Arranges mounts and network; the error names what failed.
    fn arrange(&self) -> Result<(), (&'static str, io::Error)> {
        let propagation = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", propagation).map_err(|e| ("make mounts private", e.into()))?;
        let proc_flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("proc", "/proc", "proc", proc_flags, None::<&CStr>)
            .map_err(|errno| ("mount /proc", errno.into()))?;
        // Scratch space may cover the work directory, which is therefore held and put back.
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let work = open_tree(CWD, &self.work, flags)
            .map_err(|errno| ("hold the work directory", errno.into()))?;
        for directory in SCRATCH.map(Path::new) {
            cover(directory, c"mode=1777").map_err(|error| ("mount scratch space", error))?;
        }
        for directory in &self.hidden {
            cover(directory, c"mode=0755").map_err(|error| ("hide a directory", error))?;
        }
        put_back(&work, &self.work).map_err(|error| ("mount the work directory", error))?;
        if self.isolate_network {
            raise_loopback().map_err(|error| ("raise loopback", error))?;
        }
        Ok(())
    }
}

fn fail(connection: &mut Connection, operation: &str, error: &io::Error) -> io::Result<()> {
    let errno = error.raw_os_error().unwrap_or(libc::EIO);
    connection.send(&Response::Failed {
        operation: operation.to_owned(),
        errno,
    })
}

fn cover(directory: &Path, options: &CStr) -> io::Result<()> {
    if !directory.is_dir() {
        return Ok(());
    }
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    Ok(mount("tmpfs", directory, "tmpfs", flags, Some(options))?)
}

fn put_back(tree: &OwnedFd, path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(move_mount(tree, c"", CWD, path, flags)?)
}

fn raise_loopback() -> io::Result<()> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    #[expect(unsafe_code, reason = "rustix has no interface requests")]
    // SAFETY: all-zero is a valid request, its name is NUL-terminated, and the kernel reads and writes
    // no more than the request.
    let outcome = unsafe {
        let mut request = MaybeUninit::<libc::ifreq>::zeroed().assume_init();
        for (target, source) in request.ifr_name.iter_mut().zip(*b"lo") {
            *target = source.cast_signed();
        }
        libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request);
        request.ifr_ifru.ifru_flags |= INTERFACE_UP;
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request)
    };
    if outcome == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn wait_for(child: i32) -> io::Result<()> {
    loop {
        let pid = rustix::process::Pid::from_raw(child);
        match rustix::process::waitpid(pid, rustix::process::WaitOptions::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
            Ok(_) => return Ok(()),
        }
    }
}
