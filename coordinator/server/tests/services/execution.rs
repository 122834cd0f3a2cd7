use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use prost::Message as _;
use regatta_model::Digest;
use regatta_wire::reapi::execution_client::ExecutionClient;
use regatta_wire::reapi::execution_stage::Value as Stage;
use regatta_wire::v1::{ExecutionOutcome, LeaseSpec, OutcomeKind};
use regatta_wire::{longrunning, reapi, rpc};
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

use crate::fake_agent::FakeAgent;
use crate::harness::{DEADLINE, Running, connect, details, missing_in};

/// An action as a test describes it.
#[derive(Default)]
pub(crate) struct Job {
    pub(crate) name: &'static str,
    pub(crate) do_not_cache: bool,
    pub(crate) skip_cache_lookup: bool,
    pub(crate) timeout: Option<prost_types::Duration>,
    pub(crate) properties: Vec<(&'static str, &'static str)>,
    pub(crate) input_root: Option<Digest>,
}

pub(crate) fn job(name: &'static str) -> Job {
    Job {
        name,
        ..Default::default()
    }
}

impl Job {
    fn command(&self) -> reapi::Command {
        reapi::Command {
            arguments: vec![self.name.to_owned()],
            ..Default::default()
        }
    }

    pub(crate) fn action(&self) -> reapi::Action {
        let properties = self
            .properties
            .iter()
            .map(|(name, value)| reapi::platform::Property {
                name: (*name).to_owned(),
                value: (*value).to_owned(),
            });
        reapi::Action {
            command_digest: Some(Digest::of(&self.command().encode_to_vec()).into()),
            input_root_digest: Some(self.input_root.unwrap_or(Digest::EMPTY).into()),
            do_not_cache: self.do_not_cache,
            timeout: self.timeout,
            platform: Some(reapi::Platform {
                properties: properties.collect(),
            }),
            ..Default::default()
        }
    }

    pub(crate) async fn upload(&self, coordinator: &Running) -> Digest {
        coordinator.store_message(&self.command()).await;
        coordinator.store_message(&self.action()).await
    }

    pub(crate) fn request(&self) -> reapi::ExecuteRequest {
        reapi::ExecuteRequest {
            instance_name: "main".to_owned(),
            action_digest: Some(Digest::of(&self.action().encode_to_vec()).into()),
            skip_cache_lookup: self.skip_cache_lookup,
            inline_stdout: true,
            ..Default::default()
        }
    }

    /// Starts it and gives the stream of its operation.
    pub(crate) async fn start(
        &self,
        coordinator: &Running,
    ) -> Result<Streaming<longrunning::Operation>, Status> {
        self.upload(coordinator).await;
        Ok(coordinator
            .execution()
            .execute(self.request())
            .await?
            .into_inner())
    }

    pub(crate) async fn run(&self, coordinator: &Running) -> reapi::ExecuteResponse {
        let operations = self.start(coordinator).await.unwrap();
        tokio::time::timeout(DEADLINE, last_of(operations))
            .await
            .unwrap()
    }
}

/// The response of an operation, once its stages were seen to go forward only.
pub(crate) async fn last_of(
    mut operations: Streaming<longrunning::Operation>,
) -> reapi::ExecuteResponse {
    let mut stage = 0;
    while let Some(operation) = operations.next().await {
        let operation = operation.unwrap();
        let metadata: reapi::ExecuteOperationMetadata =
            operation.metadata.unwrap().to_msg().unwrap();
        assert!(metadata.stage >= stage);
        stage = metadata.stage;
        if let Some(longrunning::operation::Result::Response(response)) = operation.result {
            assert!(operation.done);
            assert_eq!(stage, i32::from(Stage::Completed));
            assert!(
                operations.next().await.is_none(),
                "it ends with the operation"
            );
            return response.to_msg().unwrap();
        }
    }
    panic!("the stream ended before the operation");
}

pub(crate) fn outcome(kind: OutcomeKind, exit_code: i32) -> ExecutionOutcome {
    let result = reapi::ActionResult {
        exit_code,
        ..Default::default()
    };
    ExecutionOutcome {
        kind: kind.into(),
        result: Some(result),
        ..Default::default()
    }
}

pub(crate) fn completed(_: &LeaseSpec) -> Option<ExecutionOutcome> {
    Some(outcome(OutcomeKind::Completed, 0))
}

pub(crate) fn program(spec: &LeaseSpec) -> String {
    spec.command.as_ref().unwrap().arguments[0].clone()
}

fn status_of(response: &reapi::ExecuteResponse) -> i32 {
    response.status.as_ref().unwrap().code
}

#[tokio::test]
async fn an_action_runs_once_and_is_remembered() {
    let coordinator = Running::start().await;
    let stdout = coordinator.store("hello").await;
    let agent = FakeAgent::start(&coordinator, move |spec| {
        assert_eq!(program(spec), "greet");
        let mut outcome = outcome(OutcomeKind::Completed, 0);
        outcome.result.as_mut().unwrap().stdout_digest = Some(stdout.into());
        Some(outcome)
    })
    .await;
    let first = job("greet").run(&coordinator).await;
    assert_eq!((status_of(&first), first.cached_result), (0, false));
    let result = first.result.unwrap();
    assert_eq!(result.stdout_raw, "hello");
    assert_eq!(result.execution_metadata.as_ref().unwrap().worker, "fake");
    let second = job("greet").run(&coordinator).await;
    assert!(second.cached_result);
    assert_eq!(second.result.unwrap(), result);
    let again = Job {
        skip_cache_lookup: true,
        ..job("greet")
    }
    .run(&coordinator)
    .await;
    assert!(!again.cached_result);
    assert_eq!(agent.seen().len(), 2);
    let spec = &agent.seen()[0];
    assert_eq!(
        (spec.instance_name.as_str(), spec.executions.len()),
        ("main", 1)
    );
}

#[tokio::test]
async fn a_result_that_is_asked_for_anew_replaces_the_old_one() {
    let coordinator = Running::start().await;
    let outputs = [
        coordinator.store("old").await,
        coordinator.store("new").await,
    ];
    let runs = AtomicUsize::new(0);
    let _agent = FakeAgent::start(&coordinator, move |_| {
        let mut outcome = outcome(OutcomeKind::Completed, 0);
        let output = outputs[runs.fetch_add(1, Ordering::SeqCst)];
        outcome.result.as_mut().unwrap().stdout_digest = Some(output.into());
        Some(outcome)
    })
    .await;
    // The last only reads what is remembered by then.
    for (skip_cache_lookup, cached, stdout) in [
        (false, false, "old"),
        (true, false, "new"),
        (false, true, "new"),
    ] {
        let job = Job {
            skip_cache_lookup,
            ..job("greet")
        };
        let response = job.run(&coordinator).await;
        let result = response.result.unwrap();
        assert_eq!(
            (response.cached_result, &result.stdout_raw[..]),
            (cached, stdout.as_bytes())
        );
    }
}

#[tokio::test]
async fn failures_and_actions_not_to_be_cached_run_again() {
    let coordinator = Running::start().await;
    let agent = FakeAgent::start(&coordinator, |spec| {
        let exit_code = if program(spec) == "fail" { 3 } else { 0 };
        Some(outcome(OutcomeKind::Completed, exit_code))
    })
    .await;
    for _ in 0..2 {
        let failed = job("fail").run(&coordinator).await;
        assert_eq!(
            (status_of(&failed), failed.result.unwrap().exit_code),
            (0, 3)
        );
        let fresh = Job {
            do_not_cache: true,
            ..job("date")
        }
        .run(&coordinator)
        .await;
        assert!(!fresh.cached_result);
    }
    assert_eq!(agent.seen().len(), 4);
}

#[tokio::test]
async fn outcomes_that_are_no_results_become_statuses() {
    let coordinator = Running::start().await;
    let gone = Digest::of(b"gone");
    let _agent = FakeAgent::start(&coordinator, move |spec| {
        Some(match program(spec).as_str() {
            "slow" => outcome(OutcomeKind::TimedOut, 0),
            "big" => outcome(OutcomeKind::OutOfMemory, 0),
            "incomplete" => ExecutionOutcome {
                missing_blobs: vec![gone.into()],
                ..outcome(OutcomeKind::Rejected, 0)
            },
            "flaky machine" => outcome(OutcomeKind::Infrastructure, 0),
            _ => ExecutionOutcome {
                message: "no such image".to_owned(),
                ..outcome(OutcomeKind::Rejected, 0)
            },
        })
    })
    .await;
    let slow = job("slow").run(&coordinator).await;
    assert_eq!(status_of(&slow), i32::from(rpc::Code::DeadlineExceeded));
    assert!(slow.result.is_some());
    let big = job("big").run(&coordinator).await;
    assert_eq!((status_of(&big), big.result.unwrap().exit_code), (0, 137));
    let rejected = job("bad image").run(&coordinator).await;
    assert_eq!(
        status_of(&rejected),
        i32::from(rpc::Code::FailedPrecondition)
    );
    assert_eq!(rejected.message, "no such image");
    let incomplete = job("incomplete").run(&coordinator).await;
    assert_eq!(
        missing_in(&incomplete.status.unwrap()),
        [format!("blobs/{gone}")]
    );
    let lost = job("flaky machine").run(&coordinator).await;
    let status = lost.status.unwrap();
    assert_eq!(status.code, i32::from(rpc::Code::Unavailable), "{status:?}");
    assert!(status.details[0].to_msg::<rpc::RetryInfo>().is_ok());
}

#[tokio::test]
async fn work_that_nobody_can_do_says_what_is_lacking() {
    let coordinator =
        Running::start_with(|config| config.unsatisfiable_grace = Duration::from_millis(50)).await;
    let _agent = FakeAgent::start(&coordinator, completed).await;
    let job = Job {
        properties: vec![("Arch", "arm64")],
        ..job("arm")
    };
    let response = job.run(&coordinator).await;
    let status = response.status.unwrap();
    assert_eq!(status.code, i32::from(rpc::Code::FailedPrecondition));
    assert!(
        status.message.contains("Arch=arm64 (offered: x86-64)"),
        "{}",
        status.message
    );
}

#[tokio::test]
async fn everything_missing_is_named_before_anything_runs() {
    let coordinator = Running::start().await;
    let (gone, gone_too) = (Digest::of(b"gone"), Digest::of(b"gone too"));
    let file = |name: &str, digest: Digest| reapi::FileNode {
        name: name.to_owned(),
        digest: Some(digest.into()),
        ..Default::default()
    };
    let root = reapi::Directory {
        files: vec![file("a", gone), file("b", gone_too)],
        ..Default::default()
    };
    let input_root = Some(coordinator.store_message(&root).await);
    let job = Job {
        input_root,
        ..job("incomplete")
    };
    let mut client = coordinator.execution();
    let refused = client.execute(job.request()).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let action = Digest::of(&job.action().encode_to_vec());
    assert_eq!(missing_in(&details(&refused)), [format!("blobs/{action}")]);
    coordinator.store_message(&job.action()).await;
    let refused = client.execute(job.request()).await.unwrap_err();
    let mut missing = missing_in(&details(&refused));
    missing.sort();
    let command = Digest::try_from(job.action().command_digest.unwrap()).unwrap();
    let mut expected = [command, gone, gone_too].map(|digest| format!("blobs/{digest}"));
    expected.sort();
    assert_eq!(missing, expected);
}

#[tokio::test]
async fn a_long_list_of_missing_blobs_comes_in_the_response() {
    let coordinator = Running::start().await;
    let files = (0..1000u32).map(|number| reapi::FileNode {
        name: format!("{number:04}"),
        digest: Some(Digest::of(&number.to_le_bytes()).into()),
        ..Default::default()
    });
    let root = reapi::Directory {
        files: files.collect(),
        ..Default::default()
    };
    let input_root = Some(coordinator.store_message(&root).await);
    let response = Job {
        input_root,
        ..job("incomplete")
    }
    .run(&coordinator)
    .await;
    assert_eq!(missing_in(&response.status.unwrap()).len(), 1000);
}

fn empty_file(name: &str) -> reapi::FileNode {
    reapi::FileNode {
        name: name.to_owned(),
        digest: Some(Digest::EMPTY.into()),
        ..Default::default()
    }
}

#[tokio::test]
async fn what_cannot_run_is_refused_by_field() {
    let coordinator =
        Running::start_with(|config| config.maximum_timeout = Duration::from_secs(60)).await;
    let unsorted = reapi::Directory {
        files: ["b", "a"].map(empty_file).to_vec(),
        ..Default::default()
    };
    let timeout = Some(prost_types::Duration {
        seconds: 61,
        nanos: 0,
    });
    for (job, field) in [
        (
            Job {
                timeout,
                ..job("slow")
            },
            "action.timeout",
        ),
        (job(""), "command.arguments"),
        (
            Job {
                properties: vec![("cpu", "many")],
                ..job("a")
            },
            "platform.properties[cpu]",
        ),
        (
            Job {
                input_root: Some(coordinator.store("x").await),
                ..job("a")
            },
            "input_root",
        ),
        (
            Job {
                input_root: Some(coordinator.store_message(&unsorted).await),
                ..job("a")
            },
            "input_root",
        ),
    ] {
        let refused = job.start(&coordinator).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().contains(field), "{refused}");
        let bad: rpc::BadRequest = details(&refused).details[0].to_msg().unwrap();
        assert!(bad.field_violations[0].field.contains(field));
    }
}

#[tokio::test]
async fn a_full_queue_says_when_to_come_back() {
    let coordinator = Running::start_with(|config| config.queue_limit_units = 1).await;
    let _first = job("first").start(&coordinator).await.unwrap();
    let refused = job("second").start(&coordinator).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(
        details(&refused).details[0]
            .to_msg::<rpc::RetryInfo>()
            .is_ok()
    );
}

/// Executes an action over a connection, in an invocation if that has an id.
async fn run_in(coordinator: &Running, channel: &Channel, job: &Job, invocation: &str) {
    let metadata = reapi::RequestMetadata {
        tool_invocation_id: invocation.to_owned(),
        ..Default::default()
    };
    job.upload(coordinator).await;
    let mut request = Request::new(job.request());
    let key = "build.bazel.remote.execution.v2.requestmetadata-bin";
    let metadata = MetadataValue::from_bytes(&metadata.encode_to_vec());
    request.metadata_mut().insert_bin(key, metadata);
    let mut client = ExecutionClient::new(channel.clone());
    last_of(client.execute(request).await.unwrap().into_inner()).await;
}

#[tokio::test]
async fn actions_of_one_invocation_share_a_run() {
    let coordinator = Running::start().await;
    let agent = FakeAgent::start(&coordinator, completed).await;
    let other = connect(coordinator.address).await;
    let long = "long".repeat(1000);
    for (number, (channel, invocation)) in [
        (&coordinator.channel, "invocation"),
        (&other, "invocation"),
        (&coordinator.channel, &long),
        (&other, &long),
        (&coordinator.channel, ""),
        (&coordinator.channel, ""),
        (&other, ""),
    ]
    .into_iter()
    .enumerate()
    {
        let timeout = Some(prost_types::Duration {
            seconds: 100 + i64::try_from(number).unwrap(),
            nanos: 0,
        });
        let job = Job {
            timeout,
            ..job("shared")
        };
        run_in(&coordinator, channel, &job, invocation).await;
    }
    let runs: Vec<String> = agent.seen().into_iter().map(|spec| spec.run_id).collect();
    assert_eq!(runs[..2], ["invocation", "invocation"]);
    assert_eq!(runs[2], runs[3], "an id that is too long is still one id");
    assert_eq!(runs[4], runs[5], "a connection without invocations is one");
    let distinct = std::collections::BTreeSet::from_iter(runs);
    assert_eq!(distinct.len(), 4, "{distinct:?}");
}

#[tokio::test]
async fn an_action_that_nobody_watches_is_stopped() {
    let coordinator =
        Running::start_with(|config| config.unwatched_grace = Duration::from_millis(50)).await;
    let mut agent = FakeAgent::start(&coordinator, |_| None).await;
    let mut operations = job("endless").start(&coordinator).await.unwrap();
    let mut name = String::new();
    while let Some(operation) = operations.next().await {
        let operation = operation.unwrap();
        let metadata = operation.metadata.unwrap();
        let metadata: reapi::ExecuteOperationMetadata = metadata.to_msg().unwrap();
        if metadata.stage() == Stage::Executing {
            name = operation.name;
            break;
        }
    }
    drop(operations);
    tokio::time::timeout(DEADLINE, agent.stopped(1))
        .await
        .unwrap();
    // Bazel executes anew what is not found, and takes a cancelled action for a failed build.
    let request = reapi::WaitExecutionRequest { name };
    let mut client = coordinator.execution();
    let gone = client.wait_execution(request).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
}

/// Each action is asked for again and again while it ends: somewhere between its task and its result.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_action_never_runs_again_while_its_result_is_stored() {
    let coordinator = Arc::new(Running::start().await);
    let agent = FakeAgent::start(&coordinator, completed).await;
    let actions = 40;
    for number in 0..actions {
        let job = Job {
            timeout: Some(prost_types::Duration {
                seconds: 100 + number,
                nanos: 0,
            }),
            ..job("once")
        };
        job.upload(&coordinator).await;
        let asking = (0..6).map(|_| {
            let (coordinator, request) = (Arc::clone(&coordinator), job.request());
            tokio::spawn(async move {
                loop {
                    let mut client = coordinator.execution();
                    let operations = client.execute(request.clone()).await.unwrap();
                    if last_of(operations.into_inner()).await.cached_result {
                        return;
                    }
                }
            })
        });
        let asked = tokio::time::timeout(DEADLINE, futures::future::join_all(asking)).await;
        assert!(asked.unwrap().iter().all(Result::is_ok));
    }
    assert_eq!(i64::try_from(agent.seen().len()), Ok(actions));
}
