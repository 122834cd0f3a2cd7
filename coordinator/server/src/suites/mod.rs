//! `regatta.v1.Suites`: what earlier runs teach.

mod counting;
mod of_runs;

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream, StreamExt as _};
use regatta_ledger::{Ledger, Place, SuiteObservation, TestHistory, TestObservation};
use regatta_model::{JobName, TenantId};
use regatta_wire::convert::{
    duration_from_wire, duration_to_wire, timestamp_from_wire, timestamp_to_wire,
};
use regatta_wire::v1;
use regatta_wire::v1::history_of_runs::Piece;
use regatta_wire::v1::suites_server::Suites;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use self::of_runs::{CountError, Scope, Shown, count};
use crate::runs::{now, of_ledger};
use crate::status::{self, Failure, invalid_argument, with_sources};

/// How many tests one request may hold.
const MAX_IMPORTED_TESTS: usize = 10_000;
/// How many callers' runs are read at the same time; others wait.
const MAX_COUNTED_TOGETHER: usize = 1;

/// The service.
#[derive(Clone, Debug)]
pub struct SuitesService {
    ledger: Arc<dyn Ledger>,
    /// How long runs are kept after they ended; for ever if `None`.
    keep_runs: Option<Duration>,
    counting: Arc<Semaphore>,
}

impl SuitesService {
    /// Serves what this ledger knows, which keeps runs for so long after they ended, or for ever.
    #[must_use]
    pub fn new(ledger: Arc<dyn Ledger>, keep_runs: Option<Duration>) -> Self {
        Self {
            ledger,
            keep_runs,
            counting: Arc::new(Semaphore::new(MAX_COUNTED_TOGETHER)),
        }
    }

    /// What the ledger has learnt of a suite's tests, or of all.
    async fn known(
        &self,
        tenant: &TenantId,
        suite: Option<&str>,
    ) -> Result<Vec<TestHistory>, Failure> {
        let history = self.ledger.read_history(tenant, suite).await;
        let history = history.map_err(|error| of_ledger(&error))?;
        match (history.is_empty(), suite) {
            (false, _) => Ok(history),
            (true, Some(suite)) => {
                let text = format!("no run of suite `{suite}` is known");
                Err(status::not_found(text))
            }
            (true, None) => Err(status::not_found("no run of any suite is known")),
        }
    }

    async fn shown(&self, request: v1::GetHistoryOfRunsRequest) -> Result<Shown, Failure> {
        let scope = scope(request)?;
        let _turn = self.counting.acquire().await;
        let shown = count(self.ledger.as_ref(), &scope, self.keep_runs).await;
        let shown = shown.map_err(|error| match error {
            CountError::Ledger(error) => of_ledger(&error),
            CountError::Panicked(_) => status::internal(with_sources(&error)),
        })?;
        if shown.tests.is_empty() && shown.damage.is_empty() {
            // That there is no such suite is another answer than that no run of the branch has executed it.
            self.known(&scope.tenant, scope.suite.as_deref()).await?;
        }
        Ok(shown)
    }
}

#[tonic::async_trait]
impl Suites for SuitesService {
    type GetHistoryStream = BoxStream<'static, Result<v1::TestHistory, Status>>;
    type GetHistoryOfRunsStream = BoxStream<'static, Result<v1::HistoryOfRuns, Status>>;

    async fn get_history(
        &self,
        request: Request<v1::GetHistoryRequest>,
    ) -> Result<Response<Self::GetHistoryStream>, Status> {
        let v1::GetHistoryRequest {
            instance_name,
            suite,
        } = request.into_inner();
        let tenant = tenant(&instance_name).map_err(Status::from)?;
        let suite = (!suite.is_empty()).then_some(suite.as_str());
        let history = self.known(&tenant, suite).await.map_err(Status::from)?;
        Ok(Response::new(
            stream::iter(history.into_iter().map(|it| Ok(message(it)))).boxed(),
        ))
    }

    async fn get_history_of_runs(
        &self,
        request: Request<v1::GetHistoryOfRunsRequest>,
    ) -> Result<Response<Self::GetHistoryOfRunsStream>, Status> {
        let shown = self.shown(request.into_inner()).await;
        let shown = shown.map_err(Status::from)?;
        let looked_at = v1::RunsLookedAt {
            runs: u32::try_from(shown.runs).unwrap_or(u32::MAX),
            complete_since: shown.complete_since.map(timestamp_to_wire),
            damage: shown.damage,
        };
        let tests = shown.tests.into_iter().map(message);
        let pieces = std::iter::once(Piece::LookedAt(looked_at)).chain(tests.map(Piece::Test));
        let answer = pieces.map(|piece| Ok(v1::HistoryOfRuns { piece: Some(piece) }));
        Ok(Response::new(stream::iter(answer).boxed()))
    }

    async fn import_history(
        &self,
        request: Request<v1::ImportHistoryRequest>,
    ) -> Result<Response<v1::ImportHistoryResponse>, Status> {
        let seen = observation(request.into_inner()).map_err(Status::from)?;
        let observed = self.ledger.observe_suite(seen).await;
        observed.map_err(|error| Status::from(of_ledger(&error)))?;
        Ok(Response::new(v1::ImportHistoryResponse {}))
    }
}

fn tenant(name: &str) -> Result<TenantId, Failure> {
    let tenant = name.parse();
    tenant.map_err(|error| invalid_argument("instance_name", error))
}

fn scope(request: v1::GetHistoryOfRunsRequest) -> Result<Scope, Failure> {
    let since = request.since.as_ref().map(timestamp_from_wire);
    Ok(Scope {
        tenant: tenant(&request.instance_name)?,
        suite: Some(request.suite).filter(|suite| !suite.is_empty()),
        branch: request.branch,
        since: since
            .transpose()
            .map_err(|error| invalid_argument("since", error))?,
    })
}

/// What is to be learnt of imported tests, once everything is known to make sense.
fn observation(request: v1::ImportHistoryRequest) -> Result<SuiteObservation, Failure> {
    let tenant = tenant(&request.instance_name)?;
    let suite: JobName = request
        .suite
        .parse()
        .map_err(|error| invalid_argument("suite", error))?;
    if request.tests.len() > MAX_IMPORTED_TESTS {
        let problem = format!("holds more than {MAX_IMPORTED_TESTS}; send several requests");
        return Err(invalid_argument("tests", problem));
    }
    let finished_at = now();
    let tests = request.tests.into_iter().map(|test| {
        if test.test_id.is_empty() {
            return Err(invalid_argument("tests.test_id", "is empty"));
        }
        let duration = test.duration.as_ref();
        let duration = duration.ok_or_else(|| invalid_argument("tests.duration", "is not set"))?;
        Ok(TestObservation {
            duration: duration_from_wire(duration)
                .map_err(|error| invalid_argument("tests.duration", error))?,
            test: test.test_id,
            failed: test.failed,
            flaky: false,
            finished_at,
            key: None,
            input_root: None,
        })
    });
    Ok(SuiteObservation {
        tenant,
        suite: suite.to_string(),
        place: Place {
            image: request.image,
            branch: request.branch,
        },
        tests: tests.collect::<Result<_, _>>()?,
        batch_overhead: None,
    })
}

fn message(history: TestHistory) -> v1::TestHistory {
    v1::TestHistory {
        suite: history.suite,
        test_id: history.test,
        expected: Some(duration_to_wire(history.timing.expected)),
        spread: Some(duration_to_wire(history.timing.spread)),
        runs: history.runs,
        failures: history.failures,
        flakes: history.flakes,
        last_run: Some(timestamp_to_wire(history.last_run)),
        last_key: history.last_key.map(Into::into),
        last_failure: history.last_failure.map(timestamp_to_wire),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(suite: &str, tests: Vec<v1::ImportedTest>) -> v1::ImportHistoryRequest {
        v1::ImportHistoryRequest {
            suite: suite.to_owned(),
            image: "i".to_owned(),
            branch: "main".to_owned(),
            tests,
            ..Default::default()
        }
    }

    fn test(id: &str, seconds: Option<i64>) -> v1::ImportedTest {
        v1::ImportedTest {
            test_id: id.to_owned(),
            duration: seconds.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
            failed: true,
        }
    }

    #[test]
    fn what_is_imported_is_learnt_where_it_was_measured() {
        let seen = observation(request("unit", vec![test("a", Some(2))]));
        let seen = seen.expect("makes sense");
        assert_eq!(
            (seen.suite.as_str(), seen.place.branch.as_str()),
            ("unit", "main")
        );
        assert_eq!(seen.tests[0].duration.as_secs(), 2);
        assert!(seen.tests[0].failed && seen.batch_overhead.is_none());
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_its_field() {
        let too_many = vec![test("a", Some(1)); MAX_IMPORTED_TESTS + 1];
        for (suite, tests, field) in [
            ("", Vec::new(), "suite"),
            ("unit", vec![test("", Some(1))], "tests.test_id"),
            ("unit", vec![test("a", None)], "tests.duration"),
            ("unit", vec![test("a", Some(-1))], "tests.duration"),
            ("unit", too_many, "tests"),
        ] {
            let refused = observation(request(suite, tests)).expect_err("makes no sense");
            let status = Status::from(refused);
            assert_eq!(status.code(), tonic::Code::InvalidArgument);
            assert!(status.message().contains(field), "{field}: {status:?}");
        }
    }
}
