//! Where a server may be found: at one of several addresses.

mod reaching;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::codegen::{Service, http::Uri};
use tonic::transport::{Channel, Endpoint};

use self::reaching::{connect, one_that_speaks};

const DEFAULT_PORT: u16 = 80;
/// After which silence one of several servers is asked whether it is there, and how long it may take to answer: a
/// coordinator that hangs is given up no later than another may take its place, and none that would not lose it.
/// Coordinators take any number of such questions; other servers of gRPC may not.
const SILENCE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(4));
/// The same for the only one: there is no other to go to.
const SILENCE_OF_THE_ONLY_ONE: (Duration, Duration) =
    (Duration::from_secs(5), Duration::from_secs(10));

/// A host's name and a port.
type Host = (String, u16);

/// The addresses of servers any of which will do.
///
/// A connection is made to the first that answers, in their order from the beginning; the next one from the address
/// after that, for whoever connects again has lost a connection to it.
#[derive(Debug, Clone)]
pub struct ServerAddresses {
    /// Never empty.
    hosts: Arc<[Host]>,
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

    /// What a channel may be told, before it is connected. A connection on which something is awaited is given up if
    /// the server is silent for long.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        let (interval, limit) = match self.count() {
            1 => SILENCE_OF_THE_ONLY_ONE,
            _ => SILENCE,
        };
        Endpoint::from(self.first.clone())
            .http2_keep_alive_interval(interval)
            .keep_alive_timeout(limit)
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
        let stream = match &*self.hosts {
            [only] => connect(only).await?,
            hosts => {
                let first = self.next.load(Ordering::Relaxed);
                // Whatever comes of it: whoever gives up waiting for this one comes to the next.
                let begins = |place| self.next.store((place + 1) % count, Ordering::Relaxed);
                let (place, stream) = one_that_speaks(hosts, first, begins).await?;
                begins(place);
                stream
            }
        };
        Ok(TokioIo::new(stream))
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
    use std::net::SocketAddr;

    use tokio::io::AsyncWriteExt as _;
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
    async fn each_is_tried_in_turn() {
        let (second, third) = (speaking().await, speaking().await);
        let gone = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let at = [gone.local_addr().expect("bound"), second, third];
        drop(gone);
        let all = at.map(|it| format!("http://{it}")).join(",");
        let all = ServerAddresses::parse(&all).expect("addresses");
        // One that has been lost is tried last.
        for expected in [at[1], at[2], at[1]] {
            let stream = all.clone().one_that_answers().await.expect("connects");
            assert_eq!(stream.inner().peer_addr().ok(), Some(expected));
        }
    }

    /// The address of a server that says something.
    async fn speaking() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(async move {
            let mut kept = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                stream.write_all(b"settings").await.expect("is taken");
                kept.push(stream);
            }
        });
        address
    }
}
