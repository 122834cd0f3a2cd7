//! The init's end of the control stream.

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::codec::{FRAME_HEADER_BYTES, frame_length};
use crate::message::{Request, Response};

/// Bytes taken from the stream at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// The stream with what has arrived and is not yet understood.
pub(crate) struct Connection {
    stream: UnixStream,
    buffer: Vec<u8>,
    descriptors: VecDeque<OwnedFd>,
}

/// The standard streams of a command.
pub(crate) struct Streams {
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
    pub(crate) stdin: Option<OwnedFd>,
}

impl Connection {
    /// Connects to the agent's socket.
    ///
    /// The path may be longer than a socket address: only its last part goes into one.
    pub(crate) fn open(socket: &Path) -> io::Result<Self> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
        std::env::set_current_dir(socket.parent().ok_or_else(invalid)?)?;
        let stream = UnixStream::connect(socket.file_name().ok_or_else(invalid)?)?;
        std::env::set_current_dir("/")?;
        Ok(Self {
            stream,
            buffer: Vec::new(),
            descriptors: VecDeque::new(),
        })
    }

    /// What to poll.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Sends a response.
    pub(crate) fn send(&mut self, response: &Response) -> io::Result<()> {
        let frame = response.encode().map_err(io::Error::other)?;
        io::Write::write_all(&mut self.stream, &frame)
    }

    /// Takes in what is there, waiting for at least a byte. `false` at the end of the stream.
    pub(crate) fn fill(&mut self) -> io::Result<bool> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let start = self.buffer.len();
        self.buffer.resize(start + CHUNK_BYTES, 0);
        let received = recvmsg(
            &self.stream,
            &mut [IoSliceMut::new(&mut self.buffer[start..])],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        );
        let bytes = received.as_ref().map_or(0, |received| received.bytes);
        self.buffer.truncate(start + bytes);
        received?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptors.extend(descriptors);
            }
        }
        Ok(bytes > 0)
    }

    /// The next whole request, if it has arrived.
    pub(crate) fn next_request(&mut self) -> io::Result<Option<Request>> {
        let Some(length) = frame_length(&self.buffer).map_err(io::Error::other)? else {
            return Ok(None);
        };
        let end = FRAME_HEADER_BYTES + length;
        if self.buffer.len() < end {
            return Ok(None);
        }
        let request = Request::decode(&self.buffer[FRAME_HEADER_BYTES..end]);
        self.buffer.drain(..end);
        request.map(Some).map_err(io::Error::other)
    }

    /// The descriptors that came with an execute request: two, and a third if it has a standard input.
    pub(crate) fn take_streams(&mut self, has_stdin: bool) -> Option<Streams> {
        Some(Streams {
            stdout: self.descriptors.pop_front()?,
            stderr: self.descriptors.pop_front()?,
            stdin: match has_stdin {
                true => Some(self.descriptors.pop_front()?),
                false => None,
            },
        })
    }
}
