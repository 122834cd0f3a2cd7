//! `regatta.v1.Suites`: what earlier runs teach.

use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt as _};
use regatta_ledger::{Ledger, TestHistory};
use regatta_model::TenantId;
use regatta_wire::convert::{duration_to_wire, timestamp_to_wire};
use regatta_wire::v1;
use regatta_wire::v1::suites_server::Suites;
use tonic::{Request, Response, Status};

use crate::runs::of_ledger;
use crate::status;

/// The service.
#[derive(Clone, Debug)]
pub struct SuitesService {
    ledger: Arc<dyn Ledger>,
}

impl SuitesService {
    /// Serves what this ledger knows.
    #[must_use]
    pub fn new(ledger: Arc<dyn Ledger>) -> Self {
        Self { ledger }
    }
}

#[tonic::async_trait]
impl Suites for SuitesService {
    type GetHistoryStream = BoxStream<'static, Result<v1::TestHistory, Status>>;

    async fn get_history(
        &self,
        request: Request<v1::GetHistoryRequest>,
    ) -> Result<Response<Self::GetHistoryStream>, Status> {
        let v1::GetHistoryRequest {
            instance_name,
            suite,
        } = request.into_inner();
        let tenant: TenantId = instance_name
            .parse()
            .map_err(|error| Status::from(status::invalid_argument("instance_name", error)))?;
        let wanted = (!suite.is_empty()).then_some(suite.as_str());
        let history = self
            .ledger
            .read_history(&tenant, wanted)
            .await
            .map_err(|error| Status::from(of_ledger(&error)))?;
        if history.is_empty() {
            let text = match wanted {
                Some(suite) => format!("no run of suite `{suite}` is known"),
                None => "no run of any suite is known".to_owned(),
            };
            return Err(status::not_found(text).into());
        }
        Ok(Response::new(
            stream::iter(history.into_iter().map(|it| Ok(message(it)))).boxed(),
        ))
    }
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
