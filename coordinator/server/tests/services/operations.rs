use futures::StreamExt as _;
use regatta_wire::reapi::execution_stage::Value as Stage;
use regatta_wire::{longrunning, reapi, rpc};
use tonic::Code;

use crate::execution::{completed, job, last_of};
use crate::fake_agent::FakeAgent;
use crate::harness::{DEADLINE, Running};

fn wait(name: &str) -> reapi::WaitExecutionRequest {
    reapi::WaitExecutionRequest {
        name: name.to_owned(),
    }
}

async fn is_done(coordinator: &Running, name: &str) -> bool {
    let request = longrunning::GetOperationRequest {
        name: name.to_owned(),
    };
    coordinator
        .operations()
        .get_operation(request)
        .await
        .unwrap()
        .into_inner()
        .done
}

/// The operations that are listed to an instance.
async fn names_of(coordinator: &Running, instance: &str) -> Vec<String> {
    let request = longrunning::ListOperationsRequest {
        name: instance.to_owned(),
        ..Default::default()
    };
    let mut client = coordinator.operations();
    let listed = client.list_operations(request).await.unwrap().into_inner();
    assert_eq!(listed.next_page_token, "");
    let operations = listed.operations.into_iter();
    operations.map(|operation| operation.name).collect()
}

#[tokio::test]
async fn a_client_finds_its_execution_again() {
    let coordinator = Running::start().await;
    let mut operations = job("queued").start(&coordinator).await.unwrap();
    let name = operations.next().await.unwrap().unwrap().name;
    drop(operations);
    assert!(!is_done(&coordinator, &name).await);
    for (instance, expected) in [
        ("main", &[name.as_str()][..]),
        ("main/operations", &[&name]),
        ("", &[]),
        ("operations", &[]),
        ("other", &[]),
    ] {
        assert_eq!(names_of(&coordinator, instance).await, expected);
    }
    let waiting = coordinator
        .execution()
        .wait_execution(wait(&name))
        .await
        .unwrap()
        .into_inner();
    let _agent = FakeAgent::start(&coordinator, completed).await;
    let response = tokio::time::timeout(DEADLINE, last_of(waiting))
        .await
        .unwrap();
    assert_eq!(response.status.unwrap().code, 0);
    assert!(is_done(&coordinator, &name).await);
    // Also once it has ended.
    let waiting = coordinator
        .execution()
        .wait_execution(wait(&name))
        .await
        .unwrap()
        .into_inner();
    last_of(waiting).await;
    let request = longrunning::WaitOperationRequest {
        name: name.clone(),
        timeout: None,
    };
    let ended = coordinator
        .operations()
        .wait_operation(request)
        .await
        .unwrap()
        .into_inner();
    assert!(ended.done);
    let request = longrunning::DeleteOperationRequest { name: name.clone() };
    coordinator
        .operations()
        .delete_operation(request)
        .await
        .unwrap();
    let unknown = coordinator
        .execution()
        .wait_execution(wait(&name))
        .await
        .unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
}

#[tokio::test]
async fn who_waits_is_told_at_once_how_things_are() {
    let coordinator = Running::start().await;
    let mut operations = job("queued").start(&coordinator).await.unwrap();
    let begun = operations.next().await.unwrap().unwrap();
    // Nothing changes: there is no agent.
    for _ in 0..2 {
        let mut client = coordinator.execution();
        let waiting = client.wait_execution(wait(&begun.name)).await.unwrap();
        let mut waiting = waiting.into_inner();
        let first = tokio::time::timeout(DEADLINE, waiting.message());
        let first = first.await.unwrap().unwrap().unwrap();
        assert_eq!(first, begun);
        let metadata: reapi::ExecuteOperationMetadata = first.metadata.unwrap().to_msg().unwrap();
        assert_eq!((metadata.stage(), first.done), (Stage::Queued, false));
    }
    for name in ["main/operations/unknown", "unknown", ""] {
        let mut client = coordinator.execution();
        let unknown = client.wait_execution(wait(name)).await.unwrap_err();
        assert_eq!(unknown.code(), Code::NotFound, "{name}");
    }
}

#[tokio::test]
async fn an_instance_name_with_slashes_has_executions_of_its_own() {
    let coordinator = Running::start().await;
    let _agent = FakeAgent::start(&coordinator, completed).await;
    let action = job("a").upload(&coordinator).await;
    let request = reapi::ExecuteRequest {
        instance_name: "org/team/ci".to_owned(),
        ..job("a").request()
    };
    let operations = coordinator.execution().execute(request).await.unwrap();
    let mut operations = operations.into_inner();
    let name = operations.next().await.unwrap().unwrap().name;
    assert!(name.starts_with("org/team/ci/operations/"), "{name}");
    let mut client = coordinator.execution();
    let waiting = client.wait_execution(wait(&name)).await.unwrap();
    assert_eq!(last_of(waiting.into_inner()).await.status.unwrap().code, 0);
    for (instance, found) in [
        ("org/team/ci", true),
        ("org/team/ci/operations", true),
        ("org/team", false),
        ("org", false),
        ("team/ci", false),
    ] {
        let listed = names_of(&coordinator, instance).await;
        assert_eq!(listed.contains(&name), found, "{instance}");
        let lookup = reapi::GetActionResultRequest {
            instance_name: instance.to_owned(),
            action_digest: Some(action.into()),
            ..Default::default()
        };
        let result = coordinator.action_cache().get_action_result(lookup).await;
        assert_eq!(result.is_ok(), instance == "org/team/ci", "{instance}");
    }
}

#[tokio::test]
async fn a_cancelled_operation_stops_and_says_so() {
    let coordinator = Running::start().await;
    let mut agent = FakeAgent::start(&coordinator, |_| None).await;
    let operations = job("endless").start(&coordinator).await.unwrap();
    let mut operations = operations.peekable();
    let name = std::pin::Pin::new(&mut operations).peek().await;
    let name = name.unwrap().as_ref().unwrap().name.clone();
    let request = longrunning::CancelOperationRequest { name };
    // Only once it runs, so that there is something to stop.
    let running = async {
        while agent.seen().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, running).await.unwrap();
    coordinator
        .operations()
        .cancel_operation(request)
        .await
        .unwrap();
    let mut last = None;
    while let Some(operation) = operations.next().await {
        last = Some(operation.unwrap());
    }
    let Some(longrunning::operation::Result::Response(response)) = last.unwrap().result else {
        panic!("it has no response");
    };
    let response: reapi::ExecuteResponse = response.to_msg().unwrap();
    assert_eq!(
        response.status.unwrap().code,
        i32::from(rpc::Code::Cancelled)
    );
    tokio::time::timeout(DEADLINE, agent.stopped(1))
        .await
        .unwrap();
}

#[tokio::test]
async fn an_operation_that_nobody_knows_is_not_found() {
    let coordinator = Running::start().await;
    let name = "operations/none".to_owned();
    let mut client = coordinator.operations();
    let request = longrunning::GetOperationRequest { name: name.clone() };
    assert_eq!(
        client.get_operation(request).await.unwrap_err().code(),
        Code::NotFound
    );
    let request = longrunning::CancelOperationRequest { name };
    assert_eq!(
        client.cancel_operation(request).await.unwrap_err().code(),
        Code::NotFound
    );
}
