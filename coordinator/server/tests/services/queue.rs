//! What waits together: what goes first, what is done once, and what does not wait at all.

use std::time::Duration;

use futures::future::join_all;
use regatta_wire::longrunning::Operation;
use regatta_wire::{reapi, rpc};
use tonic::Streaming;

use crate::execution::{Job, completed, job, last_of, program};
use crate::fake_agent::FakeAgent;
use crate::harness::{DEADLINE, Running};

async fn start_in(coordinator: &Running, instance_name: &str, job: &Job) -> Streaming<Operation> {
    job.upload(coordinator).await;
    let request = reapi::ExecuteRequest {
        instance_name: instance_name.to_owned(),
        ..job.request()
    };
    let started = coordinator.execution().execute(request).await;
    started.unwrap().into_inner()
}

/// What an agent that comes when everything is queued is given, in order.
async fn order_of(coordinator: &Running, started: Vec<Streaming<Operation>>) -> Vec<String> {
    let agent = FakeAgent::start(coordinator, completed).await;
    let ended = tokio::time::timeout(DEADLINE, join_all(started.into_iter().map(last_of)));
    for response in ended.await.unwrap() {
        assert_eq!(response.status.unwrap().code, 0);
    }
    agent.seen().iter().map(program).collect()
}

#[tokio::test]
async fn a_lower_priority_runs_sooner() {
    let coordinator = Running::start().await;
    let mut started = Vec::new();
    for (name, priority) in [
        ("later", 1),
        ("normal", 0),
        ("last", i32::MAX),
        ("first", i32::MIN),
        ("sooner", -1),
    ] {
        // Each takes the whole agent.
        let job = Job {
            properties: vec![("cpu", "8")],
            ..job(name)
        };
        job.upload(&coordinator).await;
        let request = reapi::ExecuteRequest {
            execution_policy: Some(reapi::ExecutionPolicy { priority }),
            ..job.request()
        };
        let operations = coordinator.execution().execute(request).await.unwrap();
        started.push(operations.into_inner());
    }
    assert_eq!(
        order_of(&coordinator, started).await,
        ["first", "sooner", "normal", "later", "last"]
    );
}

#[tokio::test]
async fn equal_actions_of_one_tenant_are_done_once_unless_they_are_not_to_be_cached() {
    let coordinator = Running::start().await;
    let date = Job {
        do_not_cache: true,
        ..job("date")
    };
    let mut started = Vec::new();
    for _ in 0..2 {
        started.push(start_in(&coordinator, "main", &job("compile")).await);
        started.push(start_in(&coordinator, "main", &date).await);
    }
    started.push(start_in(&coordinator, "other", &job("compile")).await);
    let mut done = order_of(&coordinator, started).await;
    done.sort();
    assert_eq!(done, ["compile", "compile", "date", "date"]);
}

#[tokio::test]
async fn another_tenants_result_is_not_served() {
    let coordinator = Running::start().await;
    let agent = FakeAgent::start(&coordinator, completed).await;
    for (instance, cached) in [("main", false), ("main", true), ("other", false)] {
        let response = last_of(start_in(&coordinator, instance, &job("compile")).await).await;
        assert_eq!(response.cached_result, cached, "{instance}");
    }
    assert_eq!(agent.seen().len(), 2);
}

#[tokio::test]
async fn a_property_that_no_agent_offers_fails_at_once_and_is_named() {
    let long = Duration::from_secs(3600);
    let coordinator = Running::start_with(|config| {
        config.unsatisfiable_grace = long;
        config.no_agent_grace = long;
    })
    .await;
    let _agent = FakeAgent::start(&coordinator, completed).await;
    // Once something has run, the agent is known.
    last_of(job("warm up").start(&coordinator).await.unwrap()).await;
    let job = Job {
        properties: vec![("gpu-model", "h900")],
        ..job("train")
    };
    let operations = job.start(&coordinator).await.unwrap();
    let ended = tokio::time::timeout(DEADLINE, last_of(operations)).await;
    let status = ended.unwrap().status.unwrap();
    assert_eq!(status.code, i32::from(rpc::Code::FailedPrecondition));
    for part in [
        "gpu-model=h900 (not offered)",
        "it offers Arch=x86-64, OSFamily=linux",
    ] {
        assert!(status.message.contains(part), "{}", status.message);
    }
}
