//! What an agent was doing for a coordinator that is gone.

use prost::Message as _;
use regatta_wire::v1;
use regatta_wire::v1::OutcomeKind;
use tokio::sync::mpsc;

use crate::execution::{Job, completed, job, outcome};
use crate::fake_agent::FakeAgent;
use crate::harness::{DEADLINE, Running};

/// How long the seal before a claim is, in bytes.
const SEAL_BYTES: usize = 32;

/// The lease that an agent was given, ended with an exit code that no other execution has.
fn ended(spec: &v1::LeaseSpec) -> v1::HeldLease {
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
    let mut held = ended(&spec);
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
