//! Submitting a run: once, however often it takes until the coordinator answers.

use regatta_wire::convert::retry_delay;
use regatta_wire::v1;
use tonic::{Code, Response, Status};
use uuid::Uuid;

use crate::client::{Client, is_unreachable, refused};
use crate::exit_code::{ExitCode, Failure};
use crate::interrupts::Interrupts;
use crate::patience::{GIVE_UP_AFTER, Patience};

/// Submits a run; warnings go to the log. A coordinator that goes away before it has answered is asked again, and
/// so is the one that takes its place: by the run's id it knows whether it has the run already.
///
/// # Errors
/// The coordinator refuses it or does not answer for long, or an interrupt comes before its answer.
pub(crate) async fn submit(
    client: &Client,
    spec: v1::RunSpec,
    interrupts: &mut Interrupts,
) -> Result<v1::SubmitRunResponse, Failure> {
    let mut request = v1::SubmitRunRequest {
        spec: Some(spec),
        run_id: new_run_id(),
    };
    let runs = client.runs();
    let submitting = until_answered(&mut request, Patience::default(), |request| {
        let mut runs = runs.clone();
        async move { runs.submit_run(request).await }
    });
    let submitted = interrupts.unless(submitting).await;
    let submitted = submitted
        .ok_or_else(|| interrupted(&request.run_id))?
        .map_err(|status| not_submitted(&request.run_id, &status))?;
    for warning in &submitted.warnings {
        tracing::warn!("{warning}");
    }
    tracing::info!(run = submitted.run_id, "submitted");
    Ok(submitted)
}

fn new_run_id() -> String {
    Uuid::new_v4().simple().to_string()
}

/// Submits a run until that is answered.
///
/// # Errors
/// It is refused, or was not answered for too long.
async fn until_answered<Submitting>(
    request: &mut v1::SubmitRunRequest,
    mut patience: Patience,
    mut submit: impl FnMut(v1::SubmitRunRequest) -> Submitting,
) -> Result<v1::SubmitRunResponse, Status>
where
    Submitting: Future<Output = Result<Response<v1::SubmitRunResponse>, Status>>,
{
    loop {
        let status = match submit(request.clone()).await {
            Ok(answer) => return Ok(answer.into_inner()),
            Err(status) => status,
        };
        let is_aborted = status.code() == Code::Aborted;
        let least = retry_delay(&status).unwrap_or_default();
        if !(is_aborted || is_unanswered(&status)) || !patience.outlasts(least) {
            return Err(status);
        }
        if is_aborted {
            // The coordinator has seen to it that nothing is done under this id.
            request.run_id = new_run_id();
        }
        if patience.is_whole() {
            let detail = status.message();
            tracing::warn!(
                run = request.run_id,
                detail,
                "the coordinator has not accepted the run; it is submitted again"
            );
        }
        patience.pause_for(least).await;
    }
}

/// Whether nobody knows what became of a submission.
fn is_unanswered(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable => true,
        Code::Unknown | Code::Internal | Code::Cancelled => is_unreachable(status),
        _ => false,
    }
}

fn not_submitted(run_id: &str, status: &Status) -> Failure {
    if !is_unanswered(status) {
        return refused("submit the run", status);
    }
    let code = match is_unreachable(status) {
        true => ExitCode::CoordinatorUnreachable,
        false => ExitCode::Infrastructure,
    };
    let message = format!(
        "cannot submit the run, tried for {} s: {}; if the coordinator has it after all, `regatta cancel {run_id}` \
         stops it",
        GIVE_UP_AFTER.as_secs(),
        status.message()
    );
    Failure::new(code, message)
}

fn interrupted(run_id: &str) -> Failure {
    let message = format!(
        "interrupted before the coordinator had answered; if it accepted the run after all, `regatta ps` shows it \
         and `regatta cancel {run_id}` stops it"
    );
    Failure::new(ExitCode::Cancelled, message)
}

#[cfg(test)]
mod tests {
    use std::future::ready;
    use std::time::{Duration, Instant};

    use super::*;

    /// What has no answer is submitted again for so long, twice at least.
    const LIMIT: Duration = Duration::from_millis(800);

    #[tokio::test]
    async fn an_interrupt_ends_waiting_for_a_coordinator_that_does_not_answer() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let client = Client::connect(&format!("grpc://{address}"), "").await;
        let client = client.expect("somebody listens, who will never say anything");
        let (interrupt, mut interrupts) = Interrupts::channel();
        interrupt.send(()).await.expect("somebody listens");
        let refused = submit(&client, v1::RunSpec::default(), &mut interrupts).await;
        let failure = refused.expect_err("nobody answers");
        assert_eq!(failure.code, ExitCode::Cancelled);
        assert!(failure.to_string().contains("regatta ps"), "{failure}");
    }

    /// Under which ids a run is submitted that is refused like this, then accepted; and how that ends.
    async fn submitted(refusals: Vec<Status>) -> (Vec<String>, Result<String, Code>) {
        let mut ids = Vec::new();
        let mut refusals = refusals.into_iter();
        let mut request = v1::SubmitRunRequest {
            run_id: "first".to_owned(),
            ..Default::default()
        };
        let answer = until_answered(&mut request, Patience::of(LIMIT), |request| {
            ids.push(request.run_id.clone());
            ready(refusals.next().map_or_else(
                || {
                    Ok(Response::new(v1::SubmitRunResponse {
                        run_id: request.run_id,
                        ..Default::default()
                    }))
                },
                Err,
            ))
        });
        let answer = answer.await;
        let answer = answer.map(|it| it.run_id).map_err(|status| status.code());
        (ids, answer)
    }

    fn broken() -> Status {
        let cause = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        Status::from_error(cause.into())
    }

    #[tokio::test]
    async fn what_has_no_answer_is_submitted_again_as_the_same_run() {
        let away = || Status::unavailable("away");
        let (ids, answer) = submitted(vec![away(), broken(), away()]).await;
        assert_eq!(ids, ["first"; 4]);
        assert_eq!(answer.as_deref(), Ok("first"));
        let (ids, answer) = submitted(vec![away(), Status::aborted("never began"), away()]).await;
        assert_eq!(ids[..2], ["first"; 2]);
        assert_eq!(ids[2..], [ids[2].as_str(); 2]);
        assert_ne!(ids[2], "first");
        assert_eq!(answer.as_ref(), Ok(&ids[2]));
    }

    #[tokio::test]
    async fn what_is_refused_or_not_answered_for_long_is_given_up() {
        for refusal in [
            Status::invalid_argument("a job"),
            Status::resource_exhausted("1000 runs"),
            Status::already_exists("another"),
            Status::internal("a panic"),
        ] {
            let code = refusal.code();
            let (ids, answer) = submitted(vec![refusal]).await;
            assert_eq!((ids.len(), answer), (1, Err(code)));
        }
        let begun = Instant::now();
        let (_, answer) = submitted((0..1000).map(|_| broken()).collect()).await;
        assert_eq!(answer, Err(broken().code()));
        assert!(begun.elapsed() >= LIMIT);
        let failure = not_submitted("first", &broken());
        assert_eq!(failure.code, ExitCode::CoordinatorUnreachable);
        assert!(failure.to_string().contains("cancel first"), "{failure}");
    }
}
