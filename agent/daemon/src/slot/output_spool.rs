//! The output of a command, kept as it comes: in memory while it is small, then in a file without a
//! name, and no more of it than is allowed, but always its end: that is where runners say how tests ended.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use bytes::{Bytes, BytesMut};
use regatta_model::{Digest, DigestHasher, FencingToken, LeaseId, Truncation, UnitIndex};
use regatta_wire::v1;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::time::Instant;

use crate::live_output::LiveSender;

/// How much of a stream stays in memory.
const MEMORY_BYTES: usize = 64 << 10;
/// How much of the end is kept of a stream that is too long, in addition.
const END_BYTES: usize = 64 << 10;
/// How much is read at once.
const READ_BYTES: usize = 16 << 10;

/// Where and how much to keep.
#[derive(Clone, Debug)]
pub(crate) struct SpoolSettings {
    /// A directory for the file.
    pub(crate) scratch: PathBuf,
    /// How much of the stream is kept from its beginning on, in bytes.
    pub(crate) max_bytes: u64,
}

/// Sends a stream on as it comes, from some moment on.
#[derive(Clone, Debug)]
pub(crate) struct LiveStream {
    pub(crate) sender: LiveSender,
    pub(crate) lease: LeaseId,
    pub(crate) token: FencingToken,
    pub(crate) unit: UnitIndex,
    pub(crate) stream: v1::OutputStream,
    /// Most executions are over before; those are not worth a message.
    pub(crate) begins_at: Instant,
}

/// A stream that has ended.
#[derive(Debug)]
pub(crate) struct Captured {
    pub(crate) digest: Digest,
    pub(crate) body: CapturedBody,
}

/// Where its bytes are.
#[derive(Debug)]
pub(crate) enum CapturedBody {
    Memory(Bytes),
    File(File),
}

impl Captured {
    pub(crate) fn of(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self {
            digest: Digest::of(&bytes),
            body: CapturedBody::Memory(bytes),
        }
    }
}

/// A pipe for a command's output: the end to hand out, and the end to read.
pub(crate) fn output_pipe() -> io::Result<(OwnedFd, pipe::Receiver)> {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    Ok((write, pipe::Receiver::from_owned_fd(read)?))
}

/// Reads a stream to its end.
pub(crate) async fn spool(
    mut reader: impl AsyncRead + Unpin,
    settings: &SpoolSettings,
    live: Option<LiveStream>,
) -> io::Result<Captured> {
    let mut spool = Spool::new(settings);
    let mut live = live.map(Tail::new);
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(READ_BYTES);
        let begins_at = live.as_ref().and_then(Tail::waits_until);
        tokio::select! {
            read = reader.read_buf(&mut buffer) => {
                if read? == 0 {
                    return spool.finish().await;
                }
                let piece = buffer.split().freeze();
                if let Some(tail) = live.as_mut() {
                    tail.take(&piece);
                }
                spool.take(piece).await?;
            }
            () = sleep_until(begins_at) => {
                if let Some(tail) = live.as_mut() {
                    tail.begin(spool.head());
                }
            }
        }
    }
}

async fn sleep_until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// What is kept so far.
struct Spool<'a> {
    settings: &'a SpoolSettings,
    hasher: DigestHasher,
    head: BytesMut,
    file: Option<tokio::fs::File>,
    /// The last of what there is no room for.
    end: BytesMut,
    total_bytes: u64,
}

impl<'a> Spool<'a> {
    fn new(settings: &'a SpoolSettings) -> Self {
        Self {
            settings,
            hasher: DigestHasher::new(),
            head: BytesMut::new(),
            file: None,
            end: BytesMut::new(),
            total_bytes: 0,
        }
    }

    fn head(&self) -> &[u8] {
        &self.head
    }

    async fn take(&mut self, mut piece: Bytes) -> io::Result<()> {
        self.total_bytes += piece.len() as u64;
        let room = self
            .settings
            .max_bytes
            .saturating_sub(self.hasher.size_bytes());
        let kept = piece.split_to(piece.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
        if !piece.is_empty() {
            self.end.extend_from_slice(&piece);
            // Now and then: each time would move all of it.
            if self.end.len() > 2 * END_BYTES {
                self.trim_end();
            }
        }
        self.keep(&kept).await
    }

    fn trim_end(&mut self) {
        let too_much = self.end.len().saturating_sub(END_BYTES);
        self.end = BytesMut::from(&self.end[too_much..]);
    }

    async fn keep(&mut self, piece: &[u8]) -> io::Result<()> {
        self.hasher.update(piece);
        if self.file.is_none() && self.head.len() + piece.len() <= MEMORY_BYTES {
            self.head.extend_from_slice(piece);
            return Ok(());
        }
        if self.file.is_none() {
            let mut file =
                tokio::fs::File::from_std(tempfile::tempfile_in(&self.settings.scratch)?);
            file.write_all(&self.head).await?;
            self.file = Some(file);
        }
        match self.file.as_mut() {
            Some(file) => file.write_all(piece).await,
            None => Ok(()),
        }
    }

    async fn finish(mut self) -> io::Result<Captured> {
        let kept = self.hasher.size_bytes();
        if kept < self.total_bytes {
            self.trim_end();
            let end = std::mem::take(&mut self.end);
            let truncation = Truncation {
                first: kept,
                last: end.len() as u64,
                total: self.total_bytes,
            };
            self.keep(truncation.to_string().as_bytes()).await?;
            self.keep(&end).await?;
        }
        let body = match self.file {
            Some(mut file) => {
                file.flush().await?;
                CapturedBody::File(file.into_std().await)
            }
            None => CapturedBody::Memory(self.head.freeze()),
        };
        Ok(Captured {
            digest: self.hasher.finish(),
            body,
        })
    }
}

/// A stream that is sent on.
struct Tail {
    live: LiveStream,
    begun: bool,
    offset: u64,
}

impl Tail {
    fn new(live: LiveStream) -> Self {
        Self {
            live,
            begun: false,
            offset: 0,
        }
    }

    fn waits_until(&self) -> Option<Instant> {
        (!self.begun).then_some(self.live.begins_at)
    }

    /// Sends what is there already, as far as it is in memory.
    fn begin(&mut self, head: &[u8]) {
        self.begun = true;
        if !head.is_empty() {
            self.send(0, Bytes::copy_from_slice(head));
        }
    }

    fn take(&mut self, piece: &Bytes) {
        if self.begun {
            self.send(self.offset, piece.clone());
        }
        self.offset += piece.len() as u64;
    }

    fn send(&self, offset: u64, data: Bytes) {
        let chunk = v1::OutputChunk {
            lease_id: self.live.lease.0,
            fencing_token: self.live.token.0,
            unit: self.live.unit.0,
            stream: self.live.stream.into(),
            offset,
            data,
        };
        if self.live.sender.try_send(chunk).is_err() {
            metrics::counter!("regatta_agent_live_chunks_dropped_total").increment(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _, Write as _};
    use std::time::Duration;

    use super::*;
    use crate::live_output::live_queue;

    async fn captured(written: Vec<u8>, max_bytes: u64) -> (Digest, Vec<u8>) {
        let scratch = tempfile::tempdir().unwrap();
        let settings = SpoolSettings {
            scratch: scratch.path().to_owned(),
            max_bytes,
        };
        let (write, read) = output_pipe().unwrap();
        let writer = tokio::task::spawn_blocking(move || File::from(write).write_all(&written));
        let captured = spool(read, &settings, None).await.unwrap();
        writer.await.unwrap().unwrap();
        let bytes = match captured.body {
            CapturedBody::Memory(bytes) => bytes.to_vec(),
            CapturedBody::File(mut file) => {
                let mut bytes = Vec::new();
                file.rewind().unwrap();
                file.read_to_end(&mut bytes).unwrap();
                bytes
            }
        };
        (captured.digest, bytes)
    }

    #[tokio::test]
    async fn small_and_large_output_is_kept_whole() {
        for length in [0, 1, MEMORY_BYTES, MEMORY_BYTES + 1, 1 << 20] {
            let written = vec![b'x'; length];
            let (digest, bytes) = captured(written.clone(), 1 << 30).await;
            assert_eq!(bytes, written);
            assert_eq!(digest, Digest::of(&written));
        }
    }

    #[tokio::test]
    async fn what_is_too_much_is_cut_off_and_says_so() {
        let written: String = (0..200_000).map(|line| format!("{line}\n")).collect();
        for max_bytes in [0, 100, written.len() as u64 - 7] {
            let (digest, bytes) = captured(written.clone().into_bytes(), max_bytes).await;
            let text = String::from_utf8(bytes).unwrap();
            let kept = usize::try_from(max_bytes).unwrap();
            let end = END_BYTES.min(written.len() - kept);
            let notice = format!(
                "\n[regatta: output truncated: the first {kept} and the last {end} of {} bytes are kept]\n",
                written.len()
            );
            let (first, last) = (&written[..kept], &written[written.len() - end..]);
            assert!(text == format!("{first}{notice}{last}"), "{max_bytes}");
            let found = Truncation::find(text.as_bytes()).expect("it says so");
            assert_eq!(found.to_string(), notice);
            assert_eq!(digest, Digest::of(text.as_bytes()));
        }
    }

    #[tokio::test]
    async fn what_came_before_the_beginning_is_sent_with_it() {
        let scratch = tempfile::tempdir().unwrap();
        let settings = SpoolSettings {
            scratch: scratch.path().to_owned(),
            max_bytes: 1000,
        };
        let (sender, mut queue) = live_queue();
        let live = LiveStream {
            sender,
            lease: LeaseId(1),
            token: FencingToken(2),
            unit: UnitIndex(3),
            stream: v1::OutputStream::Stdout,
            begins_at: Instant::now() + Duration::from_millis(20),
        };
        let (write, read) = output_pipe().unwrap();
        let mut write = File::from(write);
        write.write_all(b"early").unwrap();
        let reading = tokio::spawn(async move { spool(read, &settings, Some(live)).await });
        let first = queue.recv().await.unwrap();
        assert_eq!((first.offset, &first.data[..]), (0, &b"early"[..]));
        write.write_all(b"late").unwrap();
        let second = queue.recv().await.unwrap();
        assert_eq!((second.offset, &second.data[..]), (5, &b"late"[..]));
        drop(write);
        assert_eq!(
            reading.await.unwrap().unwrap().digest,
            Digest::of(b"earlylate")
        );
    }
}
