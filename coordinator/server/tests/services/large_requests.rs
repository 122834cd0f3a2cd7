//! Whatever a client sends, the coordinator takes no more of it than it has room for.

use bytes::Bytes;
use futures::stream;
use regatta_model::Digest;
use regatta_wire::bytestream::{ReadRequest, WriteRequest};
use regatta_wire::{longrunning, reapi};
use tonic::{Code, Status};

use crate::execution::job;
use crate::harness::{Running, batch};

/// More than any service of clients takes as one message.
const TOO_MANY_BYTES: usize = 9 << 20;

#[track_caller]
fn check_refused(outcomes: impl IntoIterator<Item = Result<(), Status>>) {
    for (number, outcome) in outcomes.into_iter().enumerate() {
        let refused = outcome.unwrap_err();
        assert_eq!(refused.code(), Code::OutOfRange, "{number}: {refused}");
    }
}

#[tokio::test]
async fn no_service_of_blobs_takes_a_message_of_any_length() {
    let coordinator = Running::start().await;
    let text = "x".repeat(TOO_MANY_BYTES);
    let digest = reapi::Digest {
        hash: text.clone(),
        size_bytes: 0,
    };
    let find = reapi::FindMissingBlobsRequest {
        blob_digests: vec![digest.clone()],
        ..Default::default()
    };
    let read = reapi::BatchReadBlobsRequest {
        digests: vec![digest],
        ..Default::default()
    };
    let large = Bytes::from(vec![0; TOO_MANY_BYTES]);
    let update = batch(&[(Digest::of(&large), large.clone())]);
    let tree = reapi::GetTreeRequest {
        page_token: text.clone(),
        ..Default::default()
    };
    let stream_read = ReadRequest {
        resource_name: text,
        ..Default::default()
    };
    let stream_write = stream::iter([WriteRequest {
        data: large,
        ..Default::default()
    }]);
    let mut cas = coordinator.cas();
    let mut bytes = coordinator.byte_stream();
    check_refused([
        cas.find_missing_blobs(find).await.map(drop),
        cas.batch_read_blobs(read).await.map(drop),
        cas.batch_update_blobs(update).await.map(drop),
        cas.get_tree(tree).await.map(drop),
        bytes.read(stream_read).await.map(drop),
        bytes.write(stream_write).await.map(drop),
    ]);
}

#[tokio::test]
async fn no_service_of_actions_takes_a_message_of_any_length() {
    let coordinator = Running::start().await;
    let text = "x".repeat(TOO_MANY_BYTES);
    let result = reapi::GetActionResultRequest {
        inline_output_files: vec![text.clone()],
        ..Default::default()
    };
    let update = reapi::UpdateActionResultRequest {
        instance_name: text.clone(),
        ..Default::default()
    };
    let execute = reapi::ExecuteRequest {
        inline_output_files: vec![text.clone()],
        ..job("a").request()
    };
    let wait = reapi::WaitExecutionRequest { name: text.clone() };
    let capabilities = reapi::GetCapabilitiesRequest {
        instance_name: text.clone(),
    };
    let operation = longrunning::GetOperationRequest { name: text.clone() };
    let list = longrunning::ListOperationsRequest {
        page_token: text,
        ..Default::default()
    };
    let mut cache = coordinator.action_cache();
    let mut execution = coordinator.execution();
    let mut operations = coordinator.operations();
    let mut about = coordinator.capabilities();
    check_refused([
        cache.get_action_result(result).await.map(drop),
        cache.update_action_result(update).await.map(drop),
        execution.execute(execute).await.map(drop),
        execution.wait_execution(wait).await.map(drop),
        about.get_capabilities(capabilities).await.map(drop),
        operations.get_operation(operation).await.map(drop),
        operations.list_operations(list).await.map(drop),
    ]);
}

#[tokio::test]
async fn what_is_too_large_to_be_read_is_refused_for_its_size() {
    let coordinator = Running::start().await;
    let of_size = |size_bytes| Some(Digest::new([1; 32], size_bytes).into());
    let request = reapi::ExecuteRequest {
        action_digest: of_size((4 << 20) + 1),
        ..Default::default()
    };
    let refused = coordinator.execution().execute(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    let request = reapi::GetTreeRequest {
        root_digest: of_size((16 << 20) + 1),
        ..Default::default()
    };
    let refused = coordinator.cas().get_tree(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
}
