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
use regatta_model::PlantedBug;
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::Status;

use crate::config::CoordinatorConfig;
use crate::ledger::{LEDGER_PATIENCE, SURE_FOR, is_believed_for, is_ours_for};
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
    tenure: Option<Tenure>,
}

/// What tells whether a coordinator still has its ledger.
#[derive(Clone, Debug)]
struct Tenure {
    told: watch::Receiver<LedgerTenure>,
    rivals: Rivals,
}

/// Who may have the ledger next.
#[derive(Clone, Copy, Debug)]
enum Rivals {
    /// Another coordinator waits for it.
    StandBy,
    /// Nobody, but whoever is given it by hand, who lets nothing go for so long.
    Nobody(Duration),
}

impl Rivals {
    /// Whether one of them may have it, by what was told last.
    fn may_have(self, told: LedgerTenure) -> bool {
        match self {
            Self::StandBy => !is_ours_for(told, SURE_FOR),
            Self::Nobody(sure_for) => !is_believed_for(told, sure_for),
        }
    }
}

/// Another coordinator may have the storage. Ask again in a moment: whoever has it answers then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("another coordinator may have the storage by now; ask again")]
pub struct NotSureError;

impl SureAnswers {
    /// Those of a coordinator that another one stands by for, if it has a ledger that others can have.
    #[must_use]
    pub fn of_one_of_several(tenure: Option<watch::Receiver<LedgerTenure>>) -> Self {
        Self::with(tenure, Rivals::StandBy)
    }

    fn with(told: Option<watch::Receiver<LedgerTenure>>, rivals: Rivals) -> Self {
        Self {
            tenure: told.map(|told| Tenure { told, rivals }),
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
        Self::with(tenure, Rivals::Nobody(sure_for))
    }

    fn are_sure(&self) -> bool {
        let tenure = self.tenure.as_ref();
        let tenure = tenure.filter(|_| !PlantedBug::DoubtIgnored.is_planted());
        tenure.is_none_or(|tenure| !tenure.rivals.may_have(*tenure.told.borrow()))
    }

    /// Returns once an answer that is ready may be given.
    ///
    /// # Errors
    /// [`NotSureError`]: it must not be, for the ledger is another's, or has not answered for some seconds.
    pub async fn wait(&self) -> Result<(), NotSureError> {
        let Some(Tenure { told, rivals }) = self.tenure.as_ref().filter(|_| !self.are_sure())
        else {
            return Ok(());
        };
        let mut told = told.clone();
        let told =
            told.wait_for(|told| *told == LedgerTenure::Superseded || !rivals.may_have(*told));
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use axum::Router;
    use futures::{StreamExt as _, stream};
    use http_body::Body as _;
    use tokio::time::{Instant, advance, sleep_until};
    use tonic::codegen::Service as _;

    use super::*;
    use crate::request_metrics::method_paths;

    const ASKS: &str =
        "/build.bazel.remote.execution.v2.ContentAddressableStorage/FindMissingBlobs";
    const READS_ONE: &str = "/google.bytestream.ByteStream/Read";
    const STANDSTILL: Duration = Duration::from_secs(60);
    /// How long after it the ledger answers.
    const LATE: Duration = Duration::from_secs(2);
    const UNAVAILABLE: &str = "14";

    fn answered_now() -> LedgerTenure {
        LedgerTenure::Ours {
            answered: Instant::now(),
        }
    }

    fn code(headers: &HeaderMap) -> Option<&str> {
        // Whoever is refused is told when to come back.
        let details = headers.contains_key("grpc-status-details-bin");
        let code = headers.get("grpc-status")?.to_str().ok()?;
        details.then_some(code)
    }

    async fn next(body: &mut Body) -> Option<Frame<Bytes>> {
        let frame = poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await;
        frame.map(|frame| frame.expect("it does not break"))
    }

    /// Makes a call to somebody who stands still for a while when the answer is ready, and, if it has two parts, once
    /// more between them.
    async fn call(
        answers: SureAnswers,
        path: &'static str,
        standstills: [Duration; 2],
    ) -> (Option<String>, Body) {
        let serve = async move || {
            advance(standstills[0]).await;
            let parts = stream::iter([Duration::ZERO, standstills[1]]).then(async |standstill| {
                advance(standstill).await;
                Ok::<_, std::io::Error>("there")
            });
            Response::new(Body::from_stream(parts))
        };
        let held = axum::middleware::from_fn_with_state(answers, hold_back);
        let mut router = Router::new().fallback(serve).layer(held);
        let request = Request::builder().uri(path).body(Body::empty());
        let response = router.call(request.expect("a request")).await;
        let response = response.unwrap_or_else(|never| match never {});
        let refused = code(response.headers()).map(str::to_owned);
        (refused, response.into_body())
    }

    /// How long after they woke somebody says what was asked, if they do. Something is told to them meanwhile.
    async fn said(
        (answers, path): (SureAnswers, &'static str),
        standstill: Duration,
        tell: impl Future<Output = ()>,
    ) -> Result<Duration, (String, Duration)> {
        let began = Instant::now();
        let called = call(answers, path, [standstill, Duration::ZERO]);
        let tell = async {
            sleep_until(began + standstill + LATE).await;
            tell.await;
        };
        let mut called = std::pin::pin!(called);
        let mut tell = std::pin::pin!(tell);
        let (refused, _) = tokio::select! {
            called = &mut called => called,
            () = &mut tell => called.await,
        };
        let after = began.elapsed().saturating_sub(standstill);
        refused.map_or(Ok(after), |code| Err((code, after)))
    }

    #[tokio::test(start_paused = true)]
    async fn who_stood_still_says_nothing_of_the_storage_until_the_ledger_has_answered() {
        let tenure = watch::Sender::new(answered_now());
        let answers = SureAnswers::of_one_of_several(Some(tenure.subscribe()));
        let renew = async || {
            tenure.send_replace(answered_now());
        };
        let ask = (answers.clone(), ASKS);
        let brief = SURE_FOR - Duration::from_millis(1);
        assert_eq!(said(ask.clone(), brief, renew()).await, Ok(Duration::ZERO));
        renew().await;
        assert_eq!(said(ask.clone(), STANDSTILL, renew()).await, Ok(LATE));
        // What is read is right in any case.
        let read = (answers, READS_ONE);
        assert_eq!(said(read, STANDSTILL, async {}).await, Ok(Duration::ZERO));
        renew().await;
        let refused = |after| Err((UNAVAILABLE.to_owned(), after));
        let silent = said(ask.clone(), STANDSTILL, async {}).await;
        assert_eq!(silent, refused(PATIENCE));
        renew().await;
        let lose = async {
            tenure.send_replace(LedgerTenure::Superseded);
        };
        assert_eq!(said(ask.clone(), STANDSTILL, lose).await, refused(LATE));
        let lost = said(ask, Duration::ZERO, async {}).await;
        assert_eq!(lost, refused(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn who_lost_the_ledgers_session_says_nothing_of_the_storage_until_there_is_one() {
        let tenure = watch::Sender::new(answered_now());
        let mut config = CoordinatorConfig::new("state");
        let alone = SureAnswers::of(Some(tenure.subscribe()), &config);
        config.standby = true;
        let contested = SureAnswers::of(Some(tenure.subscribe()), &config);
        let answered = Instant::now();
        tenure.send_replace(LedgerTenure::Lost { answered });
        // Nobody takes its place who was not told to.
        let said_alone = said((alone, ASKS), Duration::ZERO, async {}).await;
        assert_eq!(said_alone, Ok(Duration::ZERO));
        let renew = async {
            tenure.send_replace(answered_now());
        };
        let ask = (contested, ASKS);
        assert_eq!(said(ask.clone(), Duration::ZERO, renew).await, Ok(LATE));
        let answered = Instant::now();
        tenure.send_replace(LedgerTenure::Lost { answered });
        let refused = Err((UNAVAILABLE.to_owned(), PATIENCE));
        assert_eq!(said(ask, Duration::ZERO, async {}).await, refused);
    }

    #[tokio::test(start_paused = true)]
    async fn who_cannot_lose_the_storage_always_says_what_is_there() {
        let alone = (SureAnswers::default(), ASKS);
        let years = Duration::from_secs(1 << 30);
        assert_eq!(said(alone, years, async {}).await, Ok(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_not_waited_for_is_sure_for_as_long_as_runs_wait_for_the_ledger() {
        let tenure = watch::Sender::new(answered_now());
        let mut config = CoordinatorConfig::new("state");
        let told = || Some(tenure.subscribe());
        let hour = Duration::from_secs(60 * 60);
        config.cache.keep = hour;
        let answers = SureAnswers::of(told(), &config);
        config.standby = true;
        let contested = SureAnswers::of(told(), &config);
        config.standby = false;
        config.cache.keep = STANDSTILL;
        let forgetful = SureAnswers::of(told(), &config);
        advance(STANDSTILL).await;
        assert!(answers.are_sure());
        assert!(!contested.are_sure());
        assert!(!forgetful.are_sure());
        advance(LEDGER_PATIENCE).await;
        assert!(!answers.are_sure());
    }

    #[tokio::test(start_paused = true)]
    async fn each_part_of_an_answer_waits() {
        let tenure = watch::Sender::new(answered_now());
        let answers = SureAnswers::of_one_of_several(Some(tenure.subscribe()));
        for is_renewed in [true, false] {
            tenure.send_replace(answered_now());
            let called = call(answers.clone(), ASKS, [Duration::ZERO, STANDSTILL]);
            let (refused, mut body) = called.await;
            assert_eq!(refused, None);
            assert!(next(&mut body).await.expect("a part").is_data());
            let began = Instant::now();
            let renew = async {
                sleep_until(began + STANDSTILL + LATE).await;
                if is_renewed {
                    tenure.send_replace(answered_now());
                }
            };
            let (second, ()) = tokio::join!(next(&mut body), renew);
            let second = second.expect("a part");
            let after = began.elapsed() - STANDSTILL;
            if is_renewed {
                assert_eq!((second.is_data(), after), (true, LATE));
                continue;
            }
            assert_eq!(after, PATIENCE);
            let trailers = second.into_trailers().expect("it says why it ends");
            assert_eq!(code(&trailers), Some(UNAVAILABLE));
            assert!(next(&mut body).await.is_none());
            assert!(body.is_end_stream());
        }
    }

    #[test]
    fn what_is_held_back_are_calls_that_there_are() {
        let paths = method_paths();
        for service in SERVICES {
            let prefix = format!("/{service}/");
            assert!(paths.iter().any(|it| it.starts_with(&prefix)), "{service}");
        }
        for read in READS {
            let suffix = format!("/{read}");
            assert!(paths.iter().any(|it| it.ends_with(&suffix)), "{read}");
        }
        assert!(says_what_is_there(ASKS));
        assert!(!says_what_is_there(READS_ONE));
        assert!(!says_what_is_there("/regatta.v1.Fleet/Sync"));
        assert!(!says_what_is_there(""));
    }
}
