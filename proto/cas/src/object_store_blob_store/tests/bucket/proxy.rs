//! Stands between a client and an HTTP server on loopback, and spoils what passes.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

/// The longest head of a message, in bytes.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// In how many pieces an answer comes that crawls, and how long each takes.
const PIECES: usize = 10;
const PAUSE: Duration = Duration::from_millis(100);

/// What becomes of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fault {
    /// It is answered with this status; the server never sees it.
    Status(u16),
    /// Nobody ever answers; the server never sees it.
    Hang,
    /// The connection is reset, after half of what is sent; the server sees that half.
    Reset,
    /// The server gets all of it; its answer is lost.
    LoseAnswer,
    /// The server gets other bytes than were sent.
    CorruptRequest,
    /// Half of the answer's body comes, and nothing more; the next time, nothing of it.
    HangInAnswer,
    /// The same, and the connection ends.
    CutAnswer,
    /// All of the answer's body comes, but for one bit.
    CorruptAnswer,
    /// The answer comes piece by piece, and slowly.
    Crawl,
}

/// Which requests a fault concerns: their method, and a part of their path and query.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Concerned {
    pub(crate) method: &'static str,
    pub(crate) path_has: &'static str,
}

impl Concerned {
    pub(crate) const ALL: Self = Self {
        method: "",
        path_has: "",
    };
}

#[derive(Debug, Default)]
struct Rule {
    fault: Option<(Fault, Concerned)>,
    times: usize,
    applied: usize,
}

pub(crate) struct FaultyProxy {
    address: SocketAddr,
    rule: Arc<Mutex<Rule>>,
    accepting: AbortHandle,
}

impl FaultyProxy {
    pub(crate) async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let rule = Arc::default();
        let accepting = tokio::spawn(accept(listener, server, Arc::clone(&rule)));
        Self {
            address,
            rule,
            accepting: accepting.abort_handle(),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Spoils the next so many requests that are concerned.
    pub(crate) fn spoil(&self, fault: Fault, concerned: Concerned, times: usize) {
        *self.rule.lock().expect("no panic") = Rule {
            fault: Some((fault, concerned)),
            times,
            applied: 0,
        };
    }

    /// How many requests have been spoilt.
    pub(crate) fn applied(&self) -> usize {
        self.rule.lock().expect("no panic").applied
    }

    /// Lets everything pass.
    pub(crate) fn heal(&self) {
        *self.rule.lock().expect("no panic") = Rule::default();
    }
}

impl Drop for FaultyProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, rule: Arc<Mutex<Rule>>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let rule = Arc::clone(&rule);
        // Connections that break are what this is for.
        connections.spawn(async move { drop(pass_on(client, server, &rule).await) });
    }
}

/// What becomes of a request, and how often that happened before.
fn fault_of(rule: &Mutex<Rule>, request: &str) -> Option<(Fault, usize)> {
    let mut rule = rule.lock().expect("no panic");
    let (fault, concerned) = rule.fault?;
    let mut words = request.split(' ');
    let (method, path) = (words.next()?, words.next()?);
    let is_concerned = method.contains(concerned.method) && path.contains(concerned.path_has);
    if !is_concerned || rule.applied >= rule.times {
        return None;
    }
    rule.applied += 1;
    Some((fault, rule.applied - 1))
}

/// Passes one request and its answer on. Each connection has one, so that bodies end where it does.
async fn pass_on(mut client: TcpStream, server: SocketAddr, rule: &Mutex<Rule>) -> io::Result<()> {
    let (head, read) = head_of(&mut client).await?;
    let (fault, before) = fault_of(rule, &head).unzip();
    let mut body = body_of(&mut client, &head, read).await?;
    match fault {
        Some(Fault::Status(status)) => {
            let text = "<Error><Code>SlowDown</Code><Message>spoilt</Message></Error>";
            let answer = format!(
                "HTTP/1.1 {status} Spoilt\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{text}",
                text.len()
            );
            return client.write_all(answer.as_bytes()).await;
        }
        Some(Fault::Hang) => return until_gone(&mut client).await,
        Some(Fault::CorruptRequest) => flip(&mut body),
        _ => {}
    }
    let mut upstream = TcpStream::connect(server).await?;
    upstream.write_all(closing(&head).as_bytes()).await?;
    if fault == Some(Fault::Reset) {
        upstream.write_all(&body[..body.len() / 2]).await?;
        return client.set_zero_linger();
    }
    upstream.write_all(&body).await?;
    let mut answer = Vec::new();
    upstream.read_to_end(&mut answer).await?;
    let body = end_of_head(&answer).unwrap_or(answer.len());
    let middle = match before {
        None | Some(0) => body + (answer.len() - body) / 2,
        Some(_) => body,
    };
    match fault {
        Some(Fault::LoseAnswer) => Ok(()),
        Some(Fault::HangInAnswer) => {
            client.write_all(&answer[..middle]).await?;
            until_gone(&mut client).await
        }
        Some(Fault::CutAnswer) => client.write_all(&answer[..middle]).await,
        Some(Fault::CorruptAnswer) => {
            flip(&mut answer[body..]);
            client.write_all(&answer).await
        }
        Some(Fault::Crawl) => {
            for piece in answer.chunks(answer.len().div_ceil(PIECES)) {
                tokio::time::sleep(PAUSE).await;
                client.write_all(piece).await?;
            }
            Ok(())
        }
        _ => client.write_all(&answer).await,
    }
}

fn flip(bytes: &mut [u8]) {
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 1;
    }
}

async fn until_gone(client: &mut TcpStream) -> io::Result<()> {
    let mut ignored = [0; 1024];
    while client.read(&mut ignored).await? > 0 {}
    Ok(())
}

fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    Some(end + 4)
}

/// The head of a request, and what was read after it.
async fn head_of(client: &mut TcpStream) -> io::Result<(String, Vec<u8>)> {
    let (mut read, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        if let Some(end) = end_of_head(&read) {
            let rest = read.split_off(end);
            return Ok((String::from_utf8_lossy(&read).into_owned(), rest));
        }
        let length = client.read(&mut piece).await?;
        if length == 0 || read.len() > MAX_HEAD_BYTES {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        read.extend_from_slice(&piece[..length]);
    }
}

async fn body_of(client: &mut TcpStream, head: &str, mut body: Vec<u8>) -> io::Result<Vec<u8>> {
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    let length = lines
        .filter(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .find_map(|(_, value)| value.trim().parse().ok());
    let read = body.len();
    body.resize(length.unwrap_or(read), 0);
    client.read_exact(&mut body[read..]).await?;
    Ok(body)
}

/// A head that asks for the connection to end with the answer.
fn closing(head: &str) -> String {
    let lines = head.trim_end().lines();
    let kept = lines.filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
    let mut closing: String = kept.flat_map(|line| [line, "\r\n"]).collect();
    closing.push_str("Connection: close\r\n\r\n");
    closing
}
