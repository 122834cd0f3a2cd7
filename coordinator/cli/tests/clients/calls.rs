//! The log of a client's calls: a proxy that passes every call on as it is, and notes how it ended.
//!
//! Each client's log is kept beside these tests, in `calls`, so that a change of behaviour shows, be it
//! the client's or the coordinator's. `REGATTA_WRITE_CALLS=1` writes the logs anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Response};
use http_body::Frame;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tonic::client::GrpcService;
use tonic::transport::{Channel, Endpoint};

/// A call that its caller gave up, or that lost its connection, has no status.
const NO_STATUS: &str = "dropped";
const UNAVAILABLE: &str = "14";
/// What the names of compressed blobs hold (REAPI, `ByteStream`), and what follows the name of a call that
/// moves one.
const COMPRESSED: &[u8] = b"compressed-blobs/zstd/";
const ZSTD: &str = " zstd";

/// Calls whose number depends on timing: how many threads ask before one has the answer, which uploads
/// find themselves side by side, which blob another action brought first. What is said of them is
/// that they happened.
const UNCOUNTED: &[&str] = &[
    "build.bazel.remote.execution.v2.Capabilities/GetCapabilities",
    "google.bytestream.ByteStream/Read",
    "google.bytestream.ByteStream/Write",
    "google.bytestream.ByteStream/QueryWriteStatus",
    "build.bazel.remote.execution.v2.ContentAddressableStorage/BatchReadBlobs",
    "build.bazel.remote.execution.v2.ContentAddressableStorage/BatchUpdateBlobs",
    "build.bazel.remote.execution.v2.ContentAddressableStorage/FindMissingBlobs",
];

type Ends = Arc<Mutex<BTreeMap<(String, String), u64>>>;

/// A proxy in front of a coordinator.
pub(crate) struct CallLog {
    ends: Ends,
    address: String,
    /// Serves until it is dropped.
    _runtime: Runtime,
}

#[derive(Clone)]
struct Proxy {
    coordinator: Channel,
    ends: Ends,
}

impl CallLog {
    /// Begins to log the calls to a coordinator at a `grpc://` URL.
    pub(crate) fn of(url: &str) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let ends = Ends::default();
        let url = url.replacen("grpc://", "http://", 1);
        let endpoint = Endpoint::from_shared(url).expect("a URL");
        let address = runtime.block_on(async {
            let proxy = Proxy {
                coordinator: endpoint.connect_lazy(),
                ends: Arc::clone(&ends),
            };
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("an address");
            let router = axum::Router::new().fallback(pass_on).with_state(proxy);
            tokio::spawn(async move { axum::serve(listener, router).await });
            address
        });
        Self {
            ends,
            address: address.to_string(),
            _runtime: runtime,
        }
    }

    /// Where it listens: `127.0.0.1:PORT`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Compares with the log that is kept under a name.
    #[track_caller]
    pub(crate) fn expect(&self, name: &str) {
        compare(name, &self.text(|_, status| status.to_owned()));
    }

    /// The same for a client that hangs up once it has an action's result, so that it is a matter of luck
    /// which side ends the call.
    #[track_caller]
    pub(crate) fn expect_either_end(&self, name: &str) {
        let either = |method: &str, status: &str| match status {
            "Ok" | NO_STATUS if method.ends_with("/Execute") => format!("Ok/{NO_STATUS}"),
            status => status.to_owned(),
        };
        compare(name, &self.text(either));
    }

    /// A line for each method and what its status is called.
    fn text(&self, called: impl Fn(&str, &str) -> String) -> String {
        let mut sums = BTreeMap::<_, u64>::new();
        for ((method, status), count) in &*self.ends.lock().expect("a lock") {
            let status = called(method, status);
            *sums.entry((method.clone(), status)).or_default() += count;
        }
        let mut text = String::new();
        for ((method, status), count) in sums {
            let count = if UNCOUNTED.contains(&method.trim_end_matches(ZSTD)) {
                "some".to_owned()
            } else {
                count.to_string()
            };
            writeln!(text, "{method} {status} {count}").expect("a string takes everything");
        }
        text
    }
}

#[track_caller]
fn compare(name: &str, text: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/calls");
    let file = file.join(format!("{name}.txt"));
    if std::env::var_os("REGATTA_WRITE_CALLS").is_some() {
        std::fs::write(&file, text).expect("the log is written");
    }
    let kept = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        kept == text,
        "{name} called otherwise.\nkept:\n{kept}\nnow:\n{text}"
    );
}

async fn pass_on(State(mut proxy): State<Proxy>, request: Request) -> Response<Body> {
    let method = request.uri().path().trim_start_matches('/').to_owned();
    let compressed = Arc::new(AtomicBool::new(false));
    let end = End {
        method,
        compressed: Arc::clone(&compressed),
        ends: proxy.ends,
        noted: false,
    };
    let ready = std::future::poll_fn(|context| proxy.coordinator.poll_ready(context)).await;
    let request = request.map(|body| {
        tonic::body::Body::new(Inspected {
            body,
            compressed: Some(compressed),
        })
    });
    let answer = match ready {
        Ok(()) => proxy.coordinator.call(request).await,
        Err(error) => Err(error),
    };
    match answer {
        Ok(response) => watched(response, end),
        Err(_) => unavailable(end),
    }
}

fn watched(response: Response<tonic::body::Body>, mut end: End) -> Response<Body> {
    end.note(response.headers());
    response.map(|body| Body::new(Watched { body, end }))
}

fn unavailable(mut end: End) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from_static(UNAVAILABLE));
    end.note(headers);
    response
}

/// Notes how a call ended, once.
struct End {
    method: String,
    /// Whether it moves a compressed blob.
    compressed: Arc<AtomicBool>,
    ends: Ends,
    noted: bool,
}

impl End {
    /// Notes the status, if these headers or trailers have one.
    fn note(&mut self, headers: &HeaderMap) {
        let Some(status) = headers.get("grpc-status") else {
            return;
        };
        let code = tonic::Code::from_bytes(status.as_bytes());
        self.put(&format!("{code:?}"));
    }

    fn put(&mut self, status: &str) {
        if !std::mem::replace(&mut self.noted, true) {
            let mut method = self.method.clone();
            if self.compressed.load(Ordering::Relaxed) {
                method += ZSTD;
            }
            let mut ends = self.ends.lock().expect("a lock");
            *ends.entry((method, status.to_owned())).or_default() += 1;
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.put(NO_STATUS);
    }
}

/// A request whose first message is looked at.
struct Inspected {
    body: Body,
    /// Set if that names a compressed blob; taken once it has been looked at.
    compressed: Option<Arc<AtomicBool>>,
}

impl http_body::Body for Inspected {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(bytes) = frame.data_ref()
            && let Some(compressed) = self.compressed.take()
        {
            let names_one = bytes.windows(COMPRESSED.len()).any(|it| it == COMPRESSED);
            compressed.store(names_one, Ordering::Relaxed);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}

/// An answer whose end is noted.
struct Watched {
    body: tonic::body::Body,
    end: End,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(trailers) = frame.trailers_ref()
        {
            self.end.note(trailers);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}
