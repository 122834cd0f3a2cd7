//! A process that stays for several leases, and what it is asked (Bazel's persistent workers,
//! <https://bazel.build/remote/creating>): a request on a line of its standard input, the response on a line
//! of its standard output, both in JSON.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use regatta_runtime::{Container, ContainerCommand, Exit, RuntimeError};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::io::{BufReader, ReadBuf};
use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::output_spool::output_pipe;
use super::program_message::Sought;
use super::view::View;
use crate::input_tree::PinnedTree;

/// The longest response that is read, in bytes: it holds what its command would print.
const MAX_RESPONSE_BYTES: u64 = 64 << 20;
/// How much of a log is still read once it is over, in bytes: more than a pipe holds by then.
const MAX_REST_BYTES: usize = 1 << 20;

/// How much of what is no response is told, in bytes.
const QUOTED_BYTES: usize = 200;

/// A request: the arguments of the command that the worker stands in for.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct WorkRequest<'a> {
    arguments: &'a [String],
    /// Counts from 1.
    request_id: i32,
}

/// A response; what is left out is as in protobuf. A line of a log may be JSON, too: what has other fields is none.
#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct WorkResponse {
    pub(super) exit_code: i32,
    pub(super) output: String,
    /// Of what it is the response; a worker that does not say so leaves it out, or has 0, which is the same.
    request_id: Option<i32>,
    /// Nobody asks for it.
    #[serde(rename = "wasCancelled")]
    _was_cancelled: bool,
}

/// What a worker has to say to a request.
#[derive(Debug)]
pub(super) enum Answer {
    Response(WorkResponse),
    /// It has ended, or does not read or write any more, which is the same.
    Gone,
    /// It wrote what is no response, and why.
    Malformed(String),
}

/// A container with what has become of the process in it, and the tree that its view is of.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) container: Box<dyn Container>,
    pub(super) exit: Result<Exit, RuntimeError>,
    pub(super) tree: PinnedTree,
}

/// A worker that runs in a container of its own. Dropped, it ends, and its container does.
#[derive(Debug)]
pub(crate) struct PersistentWorker {
    key: String,
    image_id: String,
    sought: Sought,
    view: View,
    requests: pipe::Sender,
    responses: BufReader<pipe::Receiver>,
    log: pipe::Receiver,
    /// How often it was asked.
    requests_made: i32,
    /// Ends the process.
    cancel: DropGuard,
    ended: JoinHandle<Ended>,
}

/// The streams of a command that is to be a worker, and the other ends of them.
#[derive(Debug)]
pub(super) struct Streams {
    pub(super) stdin: OwnedFd,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    pub(super) ends: Ends,
}

/// The agent's ends.
#[derive(Debug)]
pub(super) struct Ends {
    requests: pipe::Sender,
    responses: pipe::Receiver,
    log: pipe::Receiver,
}

impl Streams {
    pub(super) fn new() -> io::Result<Self> {
        let (stdout, responses) = output_pipe()?;
        let (stderr, log) = output_pipe()?;
        let (stdin, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let ends = Ends {
            requests: pipe::Sender::from_owned_fd(write)?,
            responses,
            log,
        };
        Ok(Self {
            stdin,
            stdout,
            stderr,
            ends,
        })
    }
}

impl PersistentWorker {
    /// Starts a command as a worker in a container that shows it a view of a tree.
    pub(super) fn start(
        mut container: Box<dyn Container>,
        (key, sought): (String, Sought),
        (view, tree): (View, PinnedTree),
        (command, ends): (ContainerCommand, Ends),
    ) -> Self {
        let cancel = CancellationToken::new();
        let image_id = container.image_id().to_owned();
        let token = cancel.clone();
        let ended = tokio::spawn(async move {
            let exit = container.execute(command, token).await;
            Ended {
                container,
                exit,
                tree,
            }
        });
        Self {
            key,
            image_id,
            sought,
            view,
            requests: ends.requests,
            responses: BufReader::new(ends.responses),
            log: ends.log,
            requests_made: 0,
            cancel: cancel.drop_guard(),
            ended,
        }
    }

    /// Whether it serves leases of this key, as far as can be seen.
    pub(super) fn serves(&self, key: &str) -> bool {
        self.key == key && !self.ended.is_finished()
    }

    /// Whether it has said nothing since its last answer, as whoever was not asked should.
    pub(super) fn is_quiet(&self) -> bool {
        is_quiet(&self.responses)
    }

    pub(super) fn image_id(&self) -> &str {
        &self.image_id
    }

    /// What was to be started.
    pub(super) const fn sought(&self) -> &Sought {
        &self.sought
    }

    pub(super) const fn view(&self) -> &View {
        &self.view
    }

    /// What to ask it with, and what it says beside its answers.
    pub(super) fn parts(&mut self) -> (Asking<'_>, &mut pipe::Receiver) {
        self.requests_made = self.requests_made.saturating_add(1);
        let asking = Asking {
            requests: &mut self.requests,
            responses: &mut self.responses,
            request_id: self.requests_made,
        };
        (asking, &mut self.log)
    }

    /// What ends its container without asking it.
    pub(super) fn abort_handle(&self) -> AbortHandle {
        self.ended.abort_handle()
    }

    /// What has become of it, once it has ended, for which it has some time.
    pub(super) async fn end(mut self, patience: Duration) -> Result<Ended, RuntimeError> {
        drop(self.requests);
        let ended = match tokio::time::timeout(patience, &mut self.ended).await {
            Ok(ended) => ended,
            Err(_) => {
                drop(self.cancel);
                self.ended.await
            }
        };
        ended.map_err(|error| RuntimeError::ContainerLost {
            detail: format!("what ran in it broke: {error}"),
        })
    }
}

fn is_quiet(responses: &BufReader<pipe::Receiver>) -> bool {
    let waiting = rustix::io::ioctl_fionread(responses.get_ref());
    responses.buffer().is_empty() && waiting.is_ok_and(|bytes| bytes == 0)
}

/// The two streams of the protocol, for one request.
#[derive(Debug)]
pub(super) struct Asking<'a> {
    requests: &'a mut pipe::Sender,
    responses: &'a mut BufReader<pipe::Receiver>,
    request_id: i32,
}

impl Asking<'_> {
    /// Asks for one thing. After any answer but a response the worker is of no more use.
    pub(super) async fn ask(self, arguments: &[String]) -> Answer {
        let request = WorkRequest {
            arguments,
            request_id: self.request_id,
        };
        let mut line = match serde_json::to_vec(&request) {
            Ok(line) => line,
            Err(error) => return Answer::Malformed(error.to_string()),
        };
        line.push(b'\n');
        // What another has said since its last answer is for whoever lends it to see.
        let speaks_first = self.request_id == 1 && !is_quiet(self.responses);
        if self.requests.write_all(&line).await.is_err() {
            return Answer::Gone;
        }
        self.answer(speaks_first).await
    }

    /// The answer to the request; those to earlier ones, which come too late, are passed over.
    async fn answer(self, speaks_first: bool) -> Answer {
        let mut bounded = self.responses.take(MAX_RESPONSE_BYTES);
        let mut line = Vec::new();
        loop {
            line.clear();
            match bounded.read_until(b'\n', &mut line).await {
                Ok(_) if line.ends_with(b"\n") => {}
                Ok(_) if bounded.limit() == 0 => {
                    let why = format!("it is longer than {MAX_RESPONSE_BYTES} bytes");
                    return malformed(&why, &line);
                }
                Ok(_) | Err(_) => return Answer::Gone,
            }
            let response: WorkResponse = match serde_json::from_slice(&line) {
                Ok(_) if speaks_first => return malformed("it had not been asked", &line),
                Ok(response) => response,
                Err(error) => return malformed(&error.to_string(), &line),
            };
            match response.request_id {
                Some(id @ 1..) if id < self.request_id => {}
                Some(id) if id != 0 && id != self.request_id => {
                    let why = format!("it was asked for {}, not for {id}", self.request_id);
                    return malformed(&why, &line);
                }
                Some(_) | None => return Answer::Response(response),
            }
        }
    }
}

fn malformed(why: &str, line: &[u8]) -> Answer {
    Answer::Malformed(format!("{why}: {}", quoted(line)))
}

/// What a process wrote or is called, cut off and without anything that moves a terminal's cursor.
pub(super) fn quoted(bytes: &[u8]) -> String {
    let shown = bytes.get(..QUOTED_BYTES).unwrap_or(bytes);
    let dots = if shown.len() < bytes.len() { "..." } else { "" };
    format!("`{}{dots}`", shown.trim_ascii_end().escape_ascii())
}

/// A stream that ends when it is told to: with what is there by then.
#[derive(Debug)]
pub(super) struct UntilTold<R> {
    inner: R,
    /// Dropping the other end tells, too.
    over: oneshot::Receiver<()>,
    is_over: bool,
    /// How much is read once it is over: whoever goes on writing is not waited for.
    rest_bytes: usize,
}

impl<R> UntilTold<R> {
    pub(super) const fn new(inner: R, over: oneshot::Receiver<()>) -> Self {
        Self {
            inner,
            over,
            is_over: false,
            rest_bytes: MAX_REST_BYTES,
        }
    }
}

impl<R: AsyncRead + AsFd + Unpin> AsyncRead for UntilTold<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        // Before the stream is looked at: what was written before the end was told is in it.
        if !this.is_over {
            this.is_over = Pin::new(&mut this.over).poll(context).is_ready();
        }
        if this.is_over && this.rest_bytes == 0 {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let polled = match Pin::new(&mut this.inner).poll_read(context, buffer) {
            // That something is there may not be known yet.
            Poll::Pending if this.is_over => {
                let read = rustix::io::read(&this.inner, buffer.initialize_unfilled());
                match read {
                    Ok(read) => buffer.advance(read),
                    Err(Errno::AGAIN) => {}
                    Err(error) => return Poll::Ready(Err(error.into())),
                }
                Poll::Ready(Ok(()))
            }
            polled => polled,
        };
        if this.is_over {
            let read = buffer.filled().len() - before;
            this.rest_bytes = this.rest_bytes.saturating_sub(read);
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read as _, Write as _};

    use super::*;

    /// Answers the third request with these bytes, and closes.
    async fn asked(answer: &'static [u8]) -> (String, Answer) {
        let Streams {
            stdin,
            stdout,
            ends,
            ..
        } = Streams::new().unwrap();
        let worker = tokio::task::spawn_blocking(move || {
            let (mut stdin, mut byte, mut line) = (File::from(stdin), [0], Vec::new());
            while byte != *b"\n" && stdin.read(&mut byte).unwrap() > 0 {
                line.push(byte[0]);
            }
            File::from(stdout).write_all(answer).unwrap();
            String::from_utf8(line).unwrap()
        });
        let Ends {
            mut requests,
            responses,
            ..
        } = ends;
        let asking = Asking {
            requests: &mut requests,
            responses: &mut BufReader::new(responses),
            request_id: 3,
        };
        let answer = asking.ask(&["a\n".to_owned(), "ü".to_owned()]).await;
        (worker.await.unwrap(), answer)
    }

    /// What is said of an answer that is no response.
    async fn refused(answer: &'static [u8]) -> String {
        match asked(answer).await.1 {
            Answer::Malformed(why) => why,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn requests_and_responses_are_lines() {
        let response = br#"{"exitCode":3,"output":"o\n","wasCancelled":false}
{"exitCode":4}
"#;
        let (request, answer) = asked(response).await;
        assert_eq!(
            request,
            "{\"arguments\":[\"a\\n\",\"ü\"],\"requestId\":3}\n"
        );
        let expected = WorkResponse {
            exit_code: 3,
            output: "o\n".to_owned(),
            ..WorkResponse::default()
        };
        assert!(
            matches!(&answer, Answer::Response(it) if *it == expected),
            "{answer:?}"
        );
        let (_, answer) = asked(b"{}\n").await;
        let empty = WorkResponse::default();
        assert!(matches!(&answer, Answer::Response(it) if *it == empty));
    }

    #[tokio::test]
    async fn the_answer_to_another_request_is_none_to_this_one() {
        for (answers, exit_code) in [
            (
                &br#"{"exitCode":5,"requestId":3}
"#[..],
                5,
            ),
            // Of those that know no such thing.
            (
                br#"{"exitCode":5,"requestId":0}
"#,
                5,
            ),
            (
                br#"{"exitCode":5,"requestId":null}
"#,
                5,
            ),
            // They were late.
            (
                br#"{"exitCode":5,"requestId":1}
{"exitCode":6,"requestId":2}
{"exitCode":7,"requestId":3}
"#,
                7,
            ),
        ] {
            let (_, answer) = asked(answers).await;
            assert!(
                matches!(&answer, Answer::Response(it) if it.exit_code == exit_code),
                "{answer:?}"
            );
        }
        let (_, answer) = asked(b"{\"requestId\":2}\n").await;
        assert!(matches!(answer, Answer::Gone), "{answer:?}");
        let why = refused(b"{\"requestId\":4}\n").await;
        assert!(why.contains("not for 4"), "{why}");
        refused(b"{\"requestId\":-1}\n").await;
    }

    #[tokio::test]
    async fn what_is_no_response_is_told_from_an_end() {
        for answer in [&b""[..], b"{", b"{\"exitCode\":0}"] {
            let (_, answer) = asked(answer).await;
            assert!(matches!(answer, Answer::Gone), "{answer:?}");
        }
        for (answer, told) in [
            (&b"\n"[..], "``"),
            (b"hello\n", "`hello`"),
            (b"{\"exitCode\":\"0\"}\n", "exitCode"),
            // A line of its log.
            (b"{\"level\":\"info\",\"output\":\"it works\"}\n", "level"),
            (b"\xff\x1b[2J\r\n", "`\\xff\\x1b[2J`"),
            (&[b'x'; 300], "xxx...`"),
        ] {
            let answer = [answer, b"\n"].concat().leak();
            let why = refused(answer).await;
            assert!(why.contains(told) && why.len() < 500, "{why}");
        }
    }

    #[tokio::test]
    async fn whoever_speaks_before_it_is_asked_has_not_answered() {
        for (said, told) in [("{}\n", "had not been asked"), ("ready\n", "`ready`")] {
            let Streams {
                stdin,
                stdout,
                ends,
                ..
            } = Streams::new().unwrap();
            File::from(stdout).write_all(said.as_bytes()).unwrap();
            let Ends {
                mut requests,
                responses,
                ..
            } = ends;
            let asking = Asking {
                requests: &mut requests,
                responses: &mut BufReader::new(responses),
                request_id: 1,
            };
            let answer = asking.ask(&[]).await;
            let Answer::Malformed(why) = answer else {
                panic!("{answer:?}");
            };
            assert!(why.contains(told), "{why}");
            drop(stdin);
        }
    }

    #[tokio::test]
    async fn a_stream_that_never_falls_silent_ends_all_the_same() {
        let (tell, over) = oneshot::channel();
        tell.send(()).unwrap();
        let endless = File::open("/dev/zero").unwrap();
        let endless = tokio::fs::File::from_std(endless);
        let mut bytes = Vec::new();
        // A reader that is ready at once, whenever it is asked.
        struct Endless(tokio::fs::File);
        impl AsFd for Endless {
            fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
                self.0.as_fd()
            }
        }
        impl AsyncRead for Endless {
            fn poll_read(
                self: Pin<&mut Self>,
                _: &mut Context<'_>,
                buffer: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                buffer.put_slice(&[b'x'; 16][..buffer.remaining().min(16)]);
                Poll::Ready(Ok(()))
            }
        }
        let mut until = UntilTold::new(Endless(endless), over);
        until.read_to_end(&mut bytes).await.unwrap();
        assert!(bytes.len() >= MAX_REST_BYTES && bytes.len() < 2 * MAX_REST_BYTES);
    }

    #[tokio::test]
    async fn a_stream_ends_with_what_was_written_before_its_end_was_told() {
        for length in [0, 1, 60_000] {
            let (write, mut read) = output_pipe().unwrap();
            let (tell, over) = oneshot::channel();
            let mut until = UntilTold::new(&mut read, over);
            let mut bytes = Vec::new();
            let reading = until.read_to_end(&mut bytes);
            let writing = async {
                tokio::task::yield_now().await;
                let mut write = File::from(write);
                write.write_all(&vec![b'x'; length]).unwrap();
                tell.send(()).unwrap();
                write
            };
            let (read_bytes, mut write) = tokio::join!(reading, writing);
            assert_eq!(read_bytes.unwrap(), length);
            // It is there for the next one.
            write.write_all(b"more").unwrap();
            drop(write);
            bytes.clear();
            read.read_to_end(&mut bytes).await.unwrap();
            assert_eq!(bytes, b"more");
        }
    }
}
