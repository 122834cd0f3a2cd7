use futures::StreamExt as _;
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

#[tokio::test]
async fn a_client_finds_its_execution_again() {
    let coordinator = Running::start().await;
    let mut operations = job("queued").start(&coordinator).await.unwrap();
    let name = operations.next().await.unwrap().unwrap().name;
    drop(operations);
    assert!(!is_done(&coordinator, &name).await);
    let request = longrunning::ListOperationsRequest::default();
    let listed = coordinator
        .operations()
        .list_operations(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(listed.operations[0].name, name);
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
