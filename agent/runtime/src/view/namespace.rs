//! Work in a container's mount namespace, on threads that never come back from there.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{MountFlags, MoveMountFlags, UnmountFlags, mount_remount, move_mount, unmount};
use rustix::thread::{ThreadNameSpaceType, UnshareFlags, move_into_thread_name_spaces};

/// The stack of a thread that makes system calls and walks trees without recursion.
const STACK_BYTES: usize = 256 * 1024;

/// Runs something on a thread of its own. A thread that entered another mount namespace is good for
/// nothing else, and must never be one of a pool.
pub(crate) async fn on_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (answer, receiver) = tokio::sync::oneshot::channel();
    let body = move || {
        // Nobody waits any more if the caller was dropped.
        answer.send(work()).ok();
    };
    spawn(body)?;
    receiver.await.unwrap_or_else(|_| Err(ended_early()))
}

/// As [`on_thread`], and then does what nobody needs to wait for.
pub(crate) async fn on_thread_and_after<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
    after: impl FnOnce(T) + Send + 'static,
) -> io::Result<()> {
    let (answer, receiver) = tokio::sync::oneshot::channel();
    let body = move || match work() {
        Ok(value) => {
            answer.send(Ok(())).ok();
            after(value);
        }
        Err(error) => {
            answer.send(Err(error)).ok();
        }
    };
    spawn(body)?;
    receiver.await.unwrap_or_else(|_| Err(ended_early()))
}

fn spawn(body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let thread = std::thread::Builder::new()
        .name("view".to_owned())
        .stack_size(STACK_BYTES);
    thread.spawn(body).map(|_| ())
}

fn ended_early() -> io::Error {
    io::Error::other("the thread of a view ended early")
}

/// Enters the mount namespace of a process, for the rest of this thread's life.
pub(crate) fn enter(process: BorrowedFd<'_>) -> Result<(), Errno> {
    #[expect(
        unsafe_code,
        reason = "unshare can break descriptor tables, which are not touched"
    )]
    // SAFETY: FILES is not among the flags.
    unsafe {
        rustix::thread::unshare_unsafe(UnshareFlags::FS)?;
    }
    move_into_thread_name_spaces(process, ThreadNameSpaceType::MOUNT)
}

/// Attaches a detached mount in the namespace that this thread has entered.
pub(crate) fn attach(mount: impl AsFd, target: &Path) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
    move_mount(mount, c"", CWD, target, flags)
}

/// Detaches what [`attach`] attached.
pub(crate) fn detach(target: &Path) -> Result<(), Errno> {
    unmount(target, UnmountFlags::DETACH)
}

/// Makes a mount of the entered namespace read-only.
pub(crate) fn make_read_only(target: &Path) -> Result<(), Errno> {
    let flags =
        MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::STRICTATIME;
    mount_remount(target, flags, c"")
}
