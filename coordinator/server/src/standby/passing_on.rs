//! Connections that go to another coordinator.

use std::time::Duration;

use futures::StreamExt as _;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use super::Active;
use crate::grpc_server::{connections, serve_briefly};
use crate::status::{self, DEFAULT_RETRY_DELAY};

/// How many connections are passed on at once; others wait to be accepted.
const MAX_CONNECTIONS: usize = 10_000;
/// How long the other coordinator may take to accept one.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// Passes on every connection until `close` ends all of them. Whoever cannot be passed on is told why.
pub(super) async fn pass_on(
    listener: TcpListener,
    active: watch::Receiver<Active>,
    close: CancellationToken,
) {
    let mut accepted = std::pin::pin!(connections(listener, close));
    let mut passing = JoinSet::new();
    loop {
        while passing.try_join_next().is_some() {}
        if passing.len() >= MAX_CONNECTIONS {
            passing.join_next().await;
        }
        let Some(Ok(mut client)) = accepted.next().await else {
            return;
        };
        let mut active = active.clone();
        passing.spawn(async move {
            let now = active.borrow_and_update().clone();
            let mut server = match connect(&now, CONNECT_LIMIT).await {
                Ok(server) => server,
                Err(why) => return serve_briefly(client, refusal(why)).await,
            };
            // Nobody may be left who would end it at the other side.
            let replaced = active.wait_for(|active| *active != now);
            tokio::select! {
                copied = copy_bidirectional(&mut client, &mut server) => if let Err(error) = copied {
                    tracing::debug!(%error, "a connection that was passed on has ended");
                },
                _ = replaced => {}
            }
        });
    }
}

/// A connection to the coordinator that has the ledger.
///
/// # Errors
/// Why there is none, for people.
pub(super) async fn connect(active: &Active, limit: Duration) -> Result<TcpStream, String> {
    let at = match active {
        Active::At(at) => at,
        Active::Unknown(why) => {
            return Err(format!(
                "this coordinator stands by, and which one has the ledger is not known: {why}"
            ));
        }
    };
    let failed = |why: String| {
        format!(
            "this coordinator stands by for the one at {at}, which does not answer ({why}); another takes over \
             within seconds"
        )
    };
    let stream = timeout(limit, TcpStream::connect(at)).await;
    let stream = stream.map_err(|_| failed(format!("no answer in {limit:?}")))?;
    let stream = stream.map_err(|error| failed(error.to_string()))?;
    stream
        .set_nodelay(true)
        .map_err(|error| failed(error.to_string()))?;
    Ok(stream)
}

/// Answers every call that it cannot be taken now.
fn refusal(why: String) -> Routes {
    let answer = move || {
        let status: tonic::Status = status::unavailable(why.clone(), DEFAULT_RETRY_DELAY).into();
        async move { status.into_http::<axum::body::Body>() }
    };
    Routes::from(axum::Router::new().fallback(answer))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn listener() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        (listener, address)
    }

    #[tokio::test]
    async fn what_either_side_says_reaches_the_other_until_it_is_closed() {
        let ((server, server_at), (listener, address)) = (listener().await, listener().await);
        let (_tell, active) = watch::channel(Active::At(server_at));
        let close = CancellationToken::new();
        let passing = tokio::spawn(pass_on(listener, active, close.clone()));
        let mut client = TcpStream::connect(&address).await.expect("connects");
        client.write_all(b"ping").await.expect("is taken");
        let (mut served, _) = server.accept().await.expect("is passed on");
        let mut heard = [0; 4];
        served.read_exact(&mut heard).await.expect("is heard");
        served.write_all(b"pong").await.expect("is taken");
        client.read_exact(&mut heard).await.expect("is answered");
        assert_eq!(&heard, b"pong");
        close.cancel();
        assert_eq!(
            client.read(&mut heard).await.unwrap_or(0),
            0,
            "it has ended"
        );
        passing.abort();
    }

    #[tokio::test]
    async fn who_cannot_be_passed_on_is_told_why() {
        let ((gone, gone_at), (listener, address)) = (listener().await, listener().await);
        drop(gone);
        let (tell, active) = watch::channel(Active::Unknown("it is lost".to_owned()));
        let close = CancellationToken::new();
        let passing = tokio::spawn(pass_on(listener, active, close));
        for (active, words) in [
            (Active::Unknown("it is lost".to_owned()), "it is lost"),
            (Active::At(gone_at.clone()), gone_at.as_str()),
        ] {
            tell.send_replace(active);
            let channel = tonic::transport::Endpoint::from_shared(format!("http://{address}"));
            let channel = channel
                .expect("an address")
                .connect()
                .await
                .expect("connects");
            let mut capabilities =
                regatta_wire::reapi::capabilities_client::CapabilitiesClient::new(channel);
            let refused = capabilities
                .get_capabilities(regatta_wire::reapi::GetCapabilitiesRequest::default())
                .await
                .expect_err("nobody can answer");
            assert_eq!(refused.code(), tonic::Code::Unavailable);
            assert!(refused.message().contains(words), "{refused}");
            assert!(!refused.details().is_empty(), "it says when to ask again");
        }
        passing.abort();
    }
}
