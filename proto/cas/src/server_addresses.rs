//! Where a server may be found: at one of several addresses.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::codegen::{Service, http::Uri};
use tonic::transport::{Channel, Endpoint};

/// How long one of several addresses may take to be connected to.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(2);
const DEFAULT_PORT: u16 = 80;

/// The addresses of servers any of which will do.
///
/// A connection is made to the first that accepts it, in their order from the beginning; the next one from the address
/// after that, for whoever connects again has lost a connection to it: it may hang, and accept others all the same.
#[derive(Debug, Clone)]
pub struct ServerAddresses {
    /// Never empty.
    hosts: Arc<[(String, u16)]>,
    first: Uri,
    /// The place of the address that is tried first.
    next: Arc<AtomicUsize>,
}

/// Why a text is no list of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no address like http://host:port")]
pub struct ParseServerAddressesError {
    /// The part of it that is none.
    pub text: String,
}

impl ServerAddresses {
    /// Those in a text, separated by commas: `http://host:port,http://host:port`.
    ///
    /// # Errors
    /// One of them is no URI of HTTP without a path.
    pub fn parse(text: &str) -> Result<Self, ParseServerAddressesError> {
        let uris = text.split(',').map(|part| {
            let part = part.trim();
            let invalid = || ParseServerAddressesError {
                text: part.to_owned(),
            };
            let uri: Uri = part.parse().map_err(|_| invalid())?;
            let is_plain = uri.scheme_str() == Some("http") && matches!(uri.path(), "" | "/");
            let host = uri.host().filter(|host| is_plain && !host.is_empty());
            let host = host.ok_or_else(invalid)?;
            // A resolver knows an IPv6 address without its brackets.
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let port = uri.port_u16().unwrap_or(DEFAULT_PORT);
            Ok((uri.clone(), (host.to_owned(), port)))
        });
        let uris: Vec<_> = uris.collect::<Result<_, _>>()?;
        let invalid = || ParseServerAddressesError {
            text: text.to_owned(),
        };
        let first = uris.first().map(|(uri, _)| uri.clone());
        Ok(Self {
            first: first.ok_or_else(invalid)?,
            hosts: uris.into_iter().map(|(_, host)| host).collect(),
            next: Arc::default(),
        })
    }

    /// What a channel may be told, before it is connected.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::from(self.first.clone())
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.hosts.len()
    }

    /// Connects to one that answers.
    ///
    /// # Errors
    /// None does.
    pub async fn connect(&self, endpoint: &Endpoint) -> Result<Channel, tonic::transport::Error> {
        endpoint.connect_with_connector(self.clone()).await
    }

    /// A channel that connects when it is used first.
    #[must_use]
    pub fn connect_lazy(&self, endpoint: &Endpoint) -> Channel {
        let next = Arc::default();
        endpoint.connect_with_connector_lazy(Self {
            next,
            ..self.clone()
        })
    }

    async fn one_that_answers(self) -> io::Result<TokioIo<TcpStream>> {
        let count = self.hosts.len();
        let first = self.next.load(Ordering::Relaxed);
        let mut troubles = Vec::new();
        for place in (first..first + count).map(|place| place % count) {
            let Some((host, port)) = self.hosts.get(place) else {
                continue;
            };
            // Whatever comes of it: whoever gives up waiting for this one comes to the next.
            self.next.store((place + 1) % count, Ordering::Relaxed);
            let connecting = timeout(ATTEMPT_LIMIT, TcpStream::connect((host.as_str(), *port)));
            let connected = match connecting.await {
                Ok(connected) => connected,
                Err(_) => Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("no answer in {ATTEMPT_LIMIT:?}"),
                )),
            };
            match connected {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(TokioIo::new(stream));
                }
                Err(error) if count == 1 => return Err(error),
                Err(error) => troubles.push(format!("{host}:{port}: {error}")),
            }
        }
        Err(io::Error::other(troubles.join("; ")))
    }
}

/// How tonic connects: whichever address it names, these are meant.
impl Service<Uri> for ServerAddresses {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().one_that_answers())
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn addresses_are_uris_without_a_path() {
        let hosts = |text: &str| ServerAddresses::parse(text).map(|it| it.hosts.to_vec());
        let host = |name: &str, port| (name.to_owned(), port);
        assert_eq!(hosts("http://a:1"), Ok(vec![host("a", 1)]));
        assert_eq!(
            hosts("http://a:1/, http://[::1]:2,http://c"),
            Ok(vec![host("a", 1), host("::1", 2), host("c", 80)])
        );
        for (text, part) in [
            ("", ""),
            ("http://a:1,", ""),
            ("http://a:1,b:2", "b:2"),
            ("http://a:1,https://b:2", "https://b:2"),
            ("http://a:1/path", "http://a:1/path"),
            ("http://:1", "http://:1"),
        ] {
            let expected = Err(ParseServerAddressesError {
                text: part.to_owned(),
            });
            assert_eq!(hosts(text), expected, "{text}");
        }
    }

    #[tokio::test]
    async fn each_is_tried_in_turn_and_none_is_told_of_in_full() {
        let bind = || async { TcpListener::bind("127.0.0.1:0").await.expect("a port") };
        let (gone, second, third) = (bind().await, bind().await, bind().await);
        let at = [&gone, &second, &third].map(|it| it.local_addr().expect("bound"));
        drop(gone);
        let all = at.map(|it| format!("http://{it}")).join(",");
        let all = ServerAddresses::parse(&all).expect("addresses");
        // One that has been lost is tried last.
        for expected in [at[1], at[2], at[1]] {
            let stream = all.clone().one_that_answers().await.expect("connects");
            assert_eq!(stream.inner().peer_addr().ok(), Some(expected));
        }
        drop((second, third));
        let error = all.one_that_answers().await.expect_err("nobody there");
        let text = error.to_string();
        let named = at.map(|it| text.contains(&it.to_string()));
        assert_eq!(named, [true; 3], "{text}");
    }
}
