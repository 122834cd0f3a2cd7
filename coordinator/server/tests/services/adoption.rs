//! What an agent was doing for a coordinator that is gone.

use std::pin::pin;

use prost::Message as _;
use regatta_wire::v1::OutcomeKind;
use regatta_wire::{longrunning, reapi, rpc, v1};
use tokio::sync::mpsc;
use tonic::{Code, Status, Streaming};

use crate::execution::{Job, completed, job, outcome};
use crate::fake_agent::FakeAgent;
use crate::harness::{DEADLINE, Running, details};

/// How long the seal before a claim is, in bytes.
const SEAL_BYTES: usize = 32;

/// The lease that an agent was given, ended with an exit code that no other execution has.
fn ended_lease(spec: &v1::LeaseSpec) -> v1::HeldLease {
    let claim = v1::LeaseClaim::decode(&spec.claim[SEAL_BYTES..]).unwrap();
    v1::HeldLease {
        lease_id: claim.lease_id,
        fencing_token: claim.fencing_token,
        phase: v1::LeasePhase::Finished.into(),
        slot: Some(0),
        outcomes: vec![outcome(OutcomeKind::Completed, 42)],
        outcome_count: 1,
        claim: spec.claim.clone(),
    }
}

/// A coordinator whose agent has begun a job, and what the agent was given.
async fn begun(job: &Job) -> (Running, v1::LeaseSpec) {
    let coordinator = Running::start().await;
    let (begun, mut specs) = mpsc::unbounded_channel();
    let endless = move |spec: &v1::LeaseSpec| {
        begun.send(spec.clone()).ok();
        None
    };
    let _agent = FakeAgent::start(&coordinator, endless).await;
    let _operation = job.start(&coordinator).await.unwrap();
    let spec = tokio::time::timeout(DEADLINE, specs.recv()).await;
    (coordinator, spec.unwrap().unwrap())
}

/// The exit code that a client gets who asks again after a restart, and how often the agent begins anew.
async fn asked_again(
    first: &Job,
    again: &Job,
    change: impl FnOnce(&mut v1::HeldLease),
) -> (i32, usize) {
    let (coordinator, spec) = begun(first).await;
    let coordinator = Running::start_in(coordinator.stop().await, |_| {}).await;
    let mut held = ended_lease(&spec);
    change(&mut held);
    let agent = FakeAgent::holding(&coordinator, vec![held], completed).await;
    let response = again.run(&coordinator).await;
    let code = response.result.expect("a result").exit_code;
    (code, agent.seen().len())
}

#[tokio::test]
async fn a_client_that_asks_again_after_a_restart_gets_what_is_done_already() {
    let found = asked_again(&job("long"), &job("long"), |_| {}).await;
    assert_eq!(found, (42, 0));
}

#[tokio::test]
async fn what_is_not_to_come_from_before_is_done_anew() {
    let anew = Job {
        skip_cache_lookup: true,
        ..job("date")
    };
    assert_eq!(asked_again(&job("date"), &anew, |_| {}).await, (0, 1));
    let uncached = Job {
        do_not_cache: true,
        ..job("date")
    };
    let (_, spec) = begun(&uncached).await;
    assert!(spec.claim.is_empty());
}

#[tokio::test]
async fn no_agent_answers_for_what_it_was_not_given() {
    let forge = |held: &mut v1::HeldLease| {
        let mut claim = v1::LeaseClaim::decode(&held.claim[SEAL_BYTES..]).unwrap();
        claim.instance_name = "other".to_owned();
        let forged = [&held.claim[..SEAL_BYTES], &claim.encode_to_vec()].concat();
        held.claim = forged.into();
    };
    assert_eq!(asked_again(&job("long"), &job("long"), forge).await, (0, 1));
    let rename = |held: &mut v1::HeldLease| held.lease_id += 1;
    assert_eq!(
        asked_again(&job("long"), &job("long"), rename).await,
        (0, 1)
    );
}

#[track_caller]
fn expect_come_back(status: &Status) {
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    let told = details(status).details;
    let mut told = told.iter().filter_map(|any| any.to_msg().ok());
    let is_told_when = told.any(|info: rpc::RetryInfo| info.retry_delay.is_some());
    assert!(is_told_when, "{status:?}");
}

/// How a stream ends of an operation that does not.
async fn end_of(mut operations: Streaming<longrunning::Operation>) -> Status {
    loop {
        match operations.message().await {
            Ok(Some(operation)) => assert!(!operation.done, "{operation:?}"),
            Ok(None) => panic!("it ends without a word"),
            Err(status) => return status,
        }
    }
}

#[tokio::test]
async fn whoever_waits_for_a_coordinator_that_stops_is_told_to_come_back_and_then_answered() {
    let long = job("long");
    let coordinator = Running::start().await;
    let (begun, mut specs) = mpsc::unbounded_channel();
    let endless = move |spec: &v1::LeaseSpec| {
        begun.send(spec.clone()).ok();
        None
    };
    let agent = FakeAgent::start(&coordinator, endless).await;
    let mut executing = long.start(&coordinator).await.unwrap();
    let first = executing.message().await.unwrap().unwrap();
    let spec = tokio::time::timeout(DEADLINE, specs.recv()).await;
    let spec = spec.unwrap().unwrap();
    let name = || first.name.clone();
    let request = reapi::WaitExecutionRequest { name: name() };
    let waiting = coordinator.execution().wait_execution(request).await;
    let waiting = waiting.unwrap().into_inner();
    let mut operations = coordinator.operations();
    let request = longrunning::WaitOperationRequest {
        name: name(),
        timeout: None,
    };
    let mut unary = pin!(operations.wait_operation(request));
    assert!(futures::poll!(&mut unary).is_pending());
    // It has arrived when what was asked after it is answered: they have one connection.
    let request = longrunning::GetOperationRequest { name: name() };
    let asked = coordinator.operations().get_operation(request).await;
    assert!(!asked.unwrap().into_inner().done);

    let stopping = tokio::spawn(coordinator.stop());
    let ended = async {
        expect_come_back(&end_of(executing).await);
        expect_come_back(&end_of(waiting).await);
        expect_come_back(&unary.await.unwrap_err());
    };
    tokio::time::timeout(DEADLINE, ended).await.unwrap();
    let state = stopping.await.unwrap();
    drop(agent);

    let coordinator = Running::start_in(state, |_| {}).await;
    let agent = FakeAgent::holding(&coordinator, vec![ended_lease(&spec)], completed).await;
    let response = long.run(&coordinator).await;
    assert_eq!(response.result.expect("a result").exit_code, 42);
    assert_eq!(agent.seen().len(), 0, "nothing begins anew");
}
