//! Answers about what is stored, given only by whoever surely has the storage.
//!
//! A coordinator that stood still may wake when another has its ledger and its storage (ADR 40). Until it sees that, it
//! knows of blobs that the other has let go meanwhile. So each answer that says that something is there waits, right
//! before it leaves, until the ledger has said lately whose it is. What was found out before that was true: nobody else
//! had the storage then.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::Response;
use futures::future::BoxFuture;
use http_body::{Frame, SizeHint};
use regatta_ledger::LedgerTenure;
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::Status;

use crate::config::CoordinatorConfig;
use crate::ledger::{LEDGER_PATIENCE, SURE_FOR, is_ours_for};
use crate::status;

/// How long an answer waits at most. A ledger that is there says within a moment of waking whose it is.
const PATIENCE: Duration = Duration::from_secs(5);

/// Services whose answers say what is there, but for [`READS`].
const SERVICES: [&str; 8] = [
    "build.bazel.remote.asset.v1.Fetch",
    "build.bazel.remote.asset.v1.Push",
    "build.bazel.remote.execution.v2.ActionCache",
    "build.bazel.remote.execution.v2.ContentAddressableStorage",
    "build.bazel.remote.execution.v2.Execution",
    "google.bytestream.ByteStream",
    "google.longrunning.Operations",
    "regatta.v1.Runs",
];
/// What these give is what is asked for, whoever has the storage; events of runs come from the ledger.
const READS: [&str; 6] = [
    "BatchReadBlobs",
    "GetTree",
    "Read",
    "ListRuns",
    "ReadLogs",
    "WatchRun",
];

/// Whether answers about what is stored may be given: at any time by whoever cannot lose the storage.
#[derive(Clone, Debug, Default)]
pub struct SureAnswers {
    tenure: Option<(watch::Receiver<LedgerTenure>, Duration)>,
}

/// Another coordinator may have the storage. Ask again in a moment: whoever has it answers then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("another coordinator may have the storage by now; ask again")]
pub struct NotSureError;

impl SureAnswers {
    /// Those of a coordinator that another one stands by for, if it has a ledger that others can have.
    #[must_use]
    pub fn of_one_of_several(tenure: Option<watch::Receiver<LedgerTenure>>) -> Self {
        Self {
            tenure: tenure.map(|tenure| (tenure, SURE_FOR)),
        }
    }

    /// Those of a coordinator with a configuration.
    pub(crate) fn of(
        tenure: Option<watch::Receiver<LedgerTenure>>,
        config: &CoordinatorConfig,
    ) -> Self {
        if config.standby {
            return Self::of_one_of_several(tenure);
        }
        // It goes on without its ledger (ADR 38). Whoever is given that nevertheless lets nothing go sooner that was
        // there before.
        let sure_for = LEDGER_PATIENCE.min(config.cache.keep);
        Self {
            tenure: tenure.map(|tenure| (tenure, sure_for)),
        }
    }

    fn are_sure(&self) -> bool {
        let tenure = self.tenure.as_ref();
        tenure.is_none_or(|(tenure, sure_for)| is_ours_for(*tenure.borrow(), *sure_for))
    }

    /// Returns once an answer that is ready may be given.
    ///
    /// # Errors
    /// [`NotSureError`]: it must not be, for the ledger is another's, or has not answered for some seconds.
    pub async fn wait(&self) -> Result<(), NotSureError> {
        let Some((tenure, sure_for)) = self.tenure.as_ref().filter(|_| !self.are_sure()) else {
            return Ok(());
        };
        let mut tenure = tenure.clone();
        let told = tenure.wait_for(|told| match told {
            LedgerTenure::Superseded => true,
            LedgerTenure::Ours { .. } => is_ours_for(*told, *sure_for),
        });
        match timeout(PATIENCE, told).await {
            Ok(Ok(told)) if *told != LedgerTenure::Superseded => Ok(()),
            _ => Err(NotSureError),
        }
    }
}

fn says_what_is_there(path: &str) -> bool {
    let mut parts = path.trim_start_matches('/').splitn(2, '/');
    let (service, method) = (parts.next(), parts.next());
    service.is_some_and(|it| SERVICES.contains(&it))
        && method.is_some_and(|it| !READS.contains(&it))
}

fn refusal(error: NotSureError) -> Status {
    status::unavailable(error.to_string(), status::DEFAULT_RETRY_DELAY).into()
}

/// Holds back what a call answers until it is sure.
pub(crate) async fn hold_back(
    State(answers): State<SureAnswers>,
    request: Request,
    next: Next,
) -> Response {
    if answers.tenure.is_none() || !says_what_is_there(request.uri().path()) {
        return next.run(request).await;
    }
    let response = next.run(request).await;
    if let Err(error) = answers.wait().await {
        return refusal(error).into_http();
    }
    response.map(|body| Body::new(SureBody::new(body, answers)))
}

/// An answer each of whose parts waits until it is sure.
struct SureBody {
    body: Body,
    answers: SureAnswers,
    /// A part that waits.
    held: Option<(Frame<Bytes>, Waiting)>,
    has_ended: bool,
}

type Waiting = BoxFuture<'static, Result<(), NotSureError>>;

impl SureBody {
    const fn new(body: Body, answers: SureAnswers) -> Self {
        Self {
            body,
            answers,
            held: None,
            has_ended: false,
        }
    }

    /// Says at last why there is no more of it.
    fn end(&mut self, error: NotSureError) -> Frame<Bytes> {
        self.has_ended = true;
        let mut trailers = HeaderMap::new();
        // It fails for text that no header can hold, which this is not.
        drop(refusal(error).add_header(&mut trailers));
        Frame::trailers(trailers)
    }
}

impl fmt::Debug for SureBody {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SureBody")
            .field("answers", &self.answers)
            .field("is_held", &self.held.is_some())
            .finish_non_exhaustive()
    }
}

impl http_body::Body for SureBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        if self.held.is_none() {
            let next = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => frame,
                ended => return Poll::Ready(ended),
            };
            if self.answers.are_sure() {
                return Poll::Ready(Some(Ok(next)));
            }
            let answers = self.answers.clone();
            self.held = Some((next, Box::pin(async move { answers.wait().await })));
        }
        let Some((_, waiting)) = self.held.as_mut() else {
            return Poll::Ready(None);
        };
        let waited = ready!(waiting.as_mut().poll(context));
        let held = self.held.take().map(|(frame, _)| Ok(frame));
        Poll::Ready(match waited {
            Ok(()) => held,
            Err(error) => Some(Ok(self.end(error))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended || self.held.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.held {
            // What waits is no longer in the body.
            Some(_) => SizeHint::default(),
            None => self.body.size_hint(),
        }
    }
}
