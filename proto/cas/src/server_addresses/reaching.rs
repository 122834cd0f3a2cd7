//! Which of several servers is connected to: the first that says something.
//!
//! A process that hangs accepts connections, for the system does that for it, and so does whoever passes connections on
//! to one that hangs. A server of HTTP/2 that lives sends its settings at once (RFC 9113, section 3.4). So a connection
//! is not believed in while it is silent: the next address is tried as well after a moment (RFC 8305, section 5), and one
//! that has failed is tried again.

use std::io;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::Host;

/// How long an address may take to accept a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// How long it is waited in all until some server says something. Then the first silent connection will do: what stands
/// between may speak only when it is spoken to.
const SILENCE_LIMIT: Duration = Duration::from_secs(4);
/// How long after one attempt the next begins, if that one has not come to anything.
const STAGGER: Duration = Duration::from_millis(250);

/// What is known of an address.
#[derive(Debug, Clone)]
enum Known {
    Nothing,
    /// It is being tried, or is silent.
    Tried,
    Failed(String),
}

/// A connection that was accepted.
#[derive(Debug)]
struct Accepted {
    stream: TcpStream,
    has_spoken: bool,
}

/// Connects to one of several servers, in their order from `first`; `begins` is told of each attempt. With the stream
/// comes its server's place.
///
/// # Errors
/// None accepts connections, or each ends them at once.
pub(super) async fn one_that_speaks(
    hosts: &[Host],
    first: usize,
    begins: impl Fn(usize),
) -> io::Result<(usize, TcpStream)> {
    let deadline = Instant::now() + SILENCE_LIMIT;
    let mut known = vec![Known::Nothing; hosts.len()];
    let mut order = (first..first + hosts.len())
        .map(|place| place % hosts.len())
        .cycle();
    let mut attempts = FuturesUnordered::new();
    let mut silent: Vec<(Instant, usize, TcpStream)> = Vec::new();
    let mut due = Instant::now();
    while !known.iter().all(|it| matches!(it, Known::Failed(_))) {
        let is_over = Instant::now() >= deadline;
        let may_begin = !is_over && !known.iter().all(|it| matches!(it, Known::Tried));
        tokio::select! {
            Some((place, since, ended)) = attempts.next() => match ended {
                Ok(Accepted { stream, has_spoken: true }) => return Ok((place, stream)),
                Ok(Accepted { stream, .. }) => silent.push((since, place, stream)),
                Err(error) => {
                    let (host, port) = &hosts[place];
                    known[place] = Known::Failed(format!("{host}:{port}: {error}"));
                    if known.iter().any(|it| matches!(it, Known::Nothing)) {
                        due = Instant::now();
                    }
                }
            },
            () = sleep_until(due), if may_begin => {
                let since = Instant::now();
                if let Some(place) = order.find(|it| !matches!(known[*it], Known::Tried)) {
                    begins(place);
                    known[place] = Known::Tried;
                    let attempt = attempt(&hosts[place], deadline);
                    attempts.push(async move { (place, since, attempt.await) });
                }
                due = since + STAGGER;
            }
            else => break,
        }
    }
    let first = silent.into_iter().min_by_key(|(since, ..)| *since);
    let first = first.map(|(_, place, stream)| (place, stream));
    first.ok_or_else(|| troubles(known))
}

/// Connects to an address, and waits until the server says something or until a time.
async fn attempt(host: &Host, until: Instant) -> io::Result<Accepted> {
    let stream = connect(host).await?;
    let has_spoken = match timeout_at(until, stream.peek(&mut [0])).await {
        Ok(heard) => heard? > 0,
        Err(_) => {
            return Ok(Accepted {
                stream,
                has_spoken: false,
            });
        }
    };
    if !has_spoken {
        let what = "it has ended the connection before it said anything";
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, what));
    }
    Ok(Accepted { stream, has_spoken })
}

/// Connects to an address, whatever comes of it.
///
/// # Errors
/// It accepts no connection.
pub(super) async fn connect((host, port): &Host) -> io::Result<TcpStream> {
    let connecting = TcpStream::connect((host.as_str(), *port));
    let connected = timeout(CONNECT_LIMIT, connecting).await;
    let stream = connected.map_err(|_| {
        let what = format!("no answer in {CONNECT_LIMIT:?}");
        io::Error::new(io::ErrorKind::TimedOut, what)
    })??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn troubles(known: Vec<Known>) -> io::Error {
    let known = known.into_iter().filter_map(|it| match it {
        Known::Failed(why) => Some(why),
        Known::Nothing | Known::Tried => None,
    });
    io::Error::other(known.collect::<Vec<_>>().join("; "))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;
    use tokio_stream::wrappers::TcpListenerStream;

    use super::*;

    /// What a server does with connections.
    #[derive(Clone, Copy, PartialEq)]
    enum Conduct {
        Speaks,
        /// The system accepts them, and nobody else does.
        Hangs,
        Refuses,
        /// It ends the first ones, and speaks then.
        SpeaksAfterEnding(usize),
        /// It ends them.
        Ends,
    }

    /// A server, and its address.
    async fn server(conduct: Conduct) -> (Option<TcpListener>, Host) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let at = listener.local_addr().expect("it is bound");
        let host = (at.ip().to_string(), at.port());
        let ends = match conduct {
            Conduct::Hangs => return (Some(listener), host),
            Conduct::Refuses => return (None, host),
            Conduct::Speaks => 0,
            Conduct::SpeaksAfterEnding(ends) => ends,
            Conduct::Ends => usize::MAX,
        };
        tokio::spawn(async move {
            let mut kept = Vec::new();
            let mut accepted = TcpListenerStream::new(listener).enumerate();
            while let Some((number, Ok(mut stream))) = accepted.next().await {
                if number >= ends {
                    stream.write_all(b"settings").await.expect("is taken");
                    kept.push(stream);
                }
            }
        });
        (None, host)
    }

    /// Which of some servers is connected to first, as a place, and in which order they are tried.
    async fn reached(conducts: &[Conduct], first: usize) -> (Result<usize, String>, Vec<usize>) {
        let mut listeners = Vec::new();
        let mut hosts = Vec::new();
        for conduct in conducts {
            let (listener, host) = server(*conduct).await;
            listeners.push(listener);
            hosts.push(host);
        }
        let begun = Mutex::new(Vec::new());
        let begins = |place| begun.lock().expect("nobody panics").push(place);
        let reached = one_that_speaks(&hosts, first, begins).await;
        let place = reached.map(|(place, stream)| {
            let port = stream.peer_addr().map(|it| it.port()).ok();
            assert_eq!(port, Some(hosts[place].1));
            place
        });
        let begun = begun.into_inner().expect("nobody panics");
        (place.map_err(|error| error.to_string()), begun)
    }

    #[tokio::test]
    async fn whoever_speaks_is_taken_and_who_hangs_is_not() {
        use Conduct::{Ends, Hangs, Refuses, Speaks, SpeaksAfterEnding};
        for (conducts, first, expected) in [
            (vec![Speaks, Hangs], 0, 0),
            (vec![Hangs, Speaks], 0, 1),
            (vec![Hangs, Speaks, Hangs], 2, 1),
            (vec![Refuses, Ends, Speaks], 0, 2),
            // As when one that has passed connections on to one that hangs takes over.
            (vec![SpeaksAfterEnding(1), Hangs], 0, 0),
            (vec![SpeaksAfterEnding(3), Hangs], 1, 0),
        ] {
            let (place, begun) = reached(&conducts, first).await;
            assert_eq!(place, Ok(expected), "{begun:?}");
            assert_eq!(begun.first(), Some(&first));
        }
    }

    #[tokio::test]
    async fn of_those_that_are_silent_the_first_is_taken_in_the_end() {
        let (place, begun) = reached(&[Conduct::Hangs, Conduct::Hangs], 1).await;
        assert_eq!(place, Ok(1));
        assert_eq!(begun, [1, 0]);
    }

    #[tokio::test]
    async fn where_nobody_is_each_address_is_tried_once_and_told_of() {
        let (place, begun) = reached(&[Conduct::Refuses, Conduct::Ends], 1).await;
        let error = place.expect_err("nobody is there");
        assert!(error.contains("; 127.0.0.1:"), "{error}");
        assert_eq!(begun, [1, 0]);
    }
}
