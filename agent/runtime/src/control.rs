//! The agent's end of the stream to a container's init.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use regatta_init::{FRAME_HEADER_BYTES, Request, Response, VERSION, frame_length};
use rustix::fs::{Mode, OFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{UnixListener, UnixStream};

use crate::port::RuntimeError;

/// The socket's name in its directory.
pub(crate) const SOCKET_NAME: &str = "socket";

/// How long a started init may take to call back and greet.
const GREETING_TIMEOUT: Duration = Duration::from_secs(30);

/// Waits for the one call of an init.
pub(crate) struct ControlListener {
    listener: UnixListener,
    path: PathBuf,
}

impl ControlListener {
    /// Listens at [`SOCKET_NAME`] in a directory, whose path may be longer than a socket address.
    pub(crate) fn bind(directory: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let handle = rustix::fs::open(directory, flags, Mode::empty())?;
        let short = format!("/proc/self/fd/{}/{SOCKET_NAME}", handle.as_raw_fd());
        let listener = UnixListener::bind(short)?;
        let path = directory.join(SOCKET_NAME);
        // The directories above are the agent's alone; a container may run as another user.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666))?;
        Ok(Self { listener, path })
    }

    /// Accepts exactly one connection. After that, the socket is gone, so nothing that the init starts
    /// can ever connect.
    pub(crate) async fn accept(self) -> Result<InitConnection, RuntimeError> {
        let accepted = tokio::time::timeout(GREETING_TIMEOUT, self.listener.accept()).await;
        std::fs::remove_file(&self.path).ok();
        let (stream, _) = accepted
            .map_err(|_| {
                lost("its init did not call back; does the engine see this machine's files?")
            })?
            .map_err(|source| RuntimeError::Io {
                operation: "accept the init's call",
                source,
            })?;
        drop(self.listener);
        let mut connection = InitConnection {
            process: init_process(&stream),
            stream,
            buffer: Vec::new(),
        };
        let greeting = tokio::time::timeout(GREETING_TIMEOUT, connection.receive()).await;
        connection.check_greeting(greeting.map_err(|_| lost("its init did not greet"))??)?;
        Ok(connection)
    }
}

/// A live connection. Closing it makes the init kill everything and exit.
#[derive(Debug)]
pub(crate) struct InitConnection {
    stream: UnixStream,
    buffer: Vec<u8>,
    process: Option<InitProcess>,
}

/// The init as seen from the agent.
#[derive(Clone, Debug)]
pub(crate) struct InitProcess {
    /// Its number in the agent's PID namespace.
    pub(crate) pid: Pid,
    /// Pins that number.
    pub(crate) handle: Arc<OwnedFd>,
}

impl InitProcess {
    /// Kills the init, and with it its PID namespace; `false` without the privilege.
    pub(crate) fn kill(&self) -> bool {
        pidfd_send_signal(&self.handle, Signal::KILL).is_ok()
    }
}

impl InitConnection {
    /// The init's process, where the agent's PID namespace shows it.
    pub(crate) fn process(&self) -> Option<&InitProcess> {
        self.process.as_ref()
    }

    /// Sends a request, with descriptors at its first byte.
    pub(crate) async fn send(
        &mut self,
        request: &Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), RuntimeError> {
        let frame = request.encode().map_err(|error| lost(error.to_string()))?;
        let sent = if descriptors.is_empty() {
            0
        } else {
            self.send_first(&frame, descriptors).await?
        };
        self.stream.write_all(&frame[sent..]).await.map_err(broken)
    }

    async fn send_first(
        &self,
        frame: &[u8],
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<usize, RuntimeError> {
        let attempt = || {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            control.push(SendAncillaryMessage::ScmRights(descriptors));
            let flags = SendFlags::NOSIGNAL;
            sendmsg(&self.stream, &[IoSlice::new(frame)], &mut control, flags)
                .map_err(io::Error::from)
        };
        self.stream
            .async_io(Interest::WRITABLE, attempt)
            .await
            .map_err(broken)
    }

    /// The next response. Dropping the future loses nothing.
    pub(crate) async fn receive(&mut self) -> Result<Response, RuntimeError> {
        loop {
            if let Some(response) = self.take_response()? {
                return Ok(response);
            }
            if self
                .stream
                .read_buf(&mut self.buffer)
                .await
                .map_err(broken)?
                == 0
            {
                return Err(lost("its init ended"));
            }
        }
    }

    fn take_response(&mut self) -> Result<Option<Response>, RuntimeError> {
        let malformed = |error: regatta_init::DecodeError| lost(error.to_string());
        let Some(length) = frame_length(&self.buffer).map_err(malformed)? else {
            return Ok(None);
        };
        let end = FRAME_HEADER_BYTES + length;
        if self.buffer.len() < end {
            return Ok(None);
        }
        let response =
            Response::decode(&self.buffer[FRAME_HEADER_BYTES..end]).map_err(malformed)?;
        self.buffer.drain(..end);
        Ok(Some(response))
    }

    fn check_greeting(&self, response: Response) -> Result<(), RuntimeError> {
        match response {
            Response::Hello { version: VERSION } => Ok(()),
            Response::Hello { version } => Err(lost(format!(
                "its init speaks version {version}, the agent {VERSION}"
            ))),
            Response::Failed { operation, errno } => {
                let error = io::Error::from_raw_os_error(errno);
                Err(lost(format!("its init could not {operation}: {error}")))
            }
            other => Err(unexpected(&other)),
        }
    }
}

fn init_process(stream: &UnixStream) -> Option<InitProcess> {
    let pid = rustix::net::sockopt::socket_peercred(stream).ok()?.pid;
    let handle = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    Some(InitProcess {
        pid,
        handle: Arc::new(handle),
    })
}

/// The answer does not belong to the question.
pub(crate) fn unexpected(response: &Response) -> RuntimeError {
    lost(format!("its init answered {response:?} out of turn"))
}

/// The container is gone.
pub(crate) fn lost(detail: impl Into<String>) -> RuntimeError {
    RuntimeError::ContainerLost {
        detail: detail.into(),
    }
}

fn broken(error: io::Error) -> RuntimeError {
    lost(format!("the connection to its init broke: {error}"))
}
