//! What names a blob: its hash and its size, and nothing that only looks like them.

use futures::TryStreamExt as _;
use regatta_model::Digest;
use regatta_wire::bytestream::{QueryWriteStatusRequest, ReadRequest, WriteRequest};
use regatta_wire::reapi;
use regatta_wire::rpc::Code as RpcCode;
use tonic::{Code, Status};
use uuid::Uuid;

use crate::execution::{completed, job, last_of};
use crate::fake_agent::FakeAgent;
use crate::harness::Running;

/// The code of a batch's only part.
async fn read_in_batch(coordinator: &Running, digest: reapi::Digest) -> Result<i32, Status> {
    let request = reapi::BatchReadBlobsRequest {
        digests: vec![digest],
        ..Default::default()
    };
    let read = coordinator.cas().batch_read_blobs(request).await?;
    let mut parts = read.into_inner().responses;
    Ok(parts.remove(0).status.unwrap().code)
}

async fn read(coordinator: &Running, resource_name: String) -> Result<Vec<u8>, Status> {
    let request = ReadRequest {
        resource_name,
        ..Default::default()
    };
    let pieces = coordinator.byte_stream().read(request).await?.into_inner();
    let pieces: Vec<_> = pieces.try_collect().await?;
    Ok(pieces
        .iter()
        .flat_map(|piece| piece.data.to_vec())
        .collect())
}

async fn result_of(
    coordinator: &Running,
    action: reapi::Digest,
) -> Result<reapi::ActionResult, Status> {
    let request = reapi::GetActionResultRequest {
        instance_name: "main".to_owned(),
        action_digest: Some(action),
        ..Default::default()
    };
    let found = coordinator.action_cache().get_action_result(request).await;
    found.map(tonic::Response::into_inner)
}

async fn tree_of(coordinator: &Running, root: reapi::Digest) -> Result<usize, Status> {
    let request = reapi::GetTreeRequest {
        root_digest: Some(root),
        ..Default::default()
    };
    let pages = coordinator.cas().get_tree(request).await?.into_inner();
    let pages: Vec<_> = pages.try_collect().await?;
    Ok(pages.iter().map(|page| page.directories.len()).sum())
}

#[tokio::test]
async fn a_blob_is_there_under_its_own_size_alone() {
    let coordinator = Running::start().await;
    let _agent = FakeAgent::start(&coordinator, completed).await;
    last_of(job("a").start(&coordinator).await.unwrap()).await;
    let action = job("a").upload(&coordinator).await;
    assert!(result_of(&coordinator, action.into()).await.is_ok());
    for size_bytes in [0, action.size_bytes() - 1, action.size_bytes() + 1] {
        let other = Digest::new(*action.hash(), size_bytes);
        assert_eq!(coordinator.missing(&[action, other]).await, [other]);
        let code = read_in_batch(&coordinator, other.into()).await.unwrap();
        assert_eq!(code, i32::from(RpcCode::NotFound));
        for name in ["blobs", "compressed-blobs/zstd"] {
            let read = read(&coordinator, format!("{name}/{other}")).await;
            assert_eq!(read.unwrap_err().code(), Code::NotFound, "{name}");
        }
        let tree = tree_of(&coordinator, other.into()).await.unwrap_err();
        assert_eq!(tree.code(), Code::NotFound);
        let result = result_of(&coordinator, other.into()).await.unwrap_err();
        assert_eq!(result.code(), Code::NotFound);
        let request = reapi::ExecuteRequest {
            action_digest: Some(other.into()),
            ..job("a").request()
        };
        let refused = coordinator.execution().execute(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
    }
}

#[tokio::test]
async fn a_hash_has_lower_case_digits_alone() {
    let coordinator = Running::start().await;
    let digest = coordinator.store("blob").await;
    let upper = reapi::Digest {
        hash: digest.hash_hex().to_uppercase(),
        size_bytes: 4,
    };
    let text = format!("{}/4", upper.hash);
    let mut refusals = Vec::new();
    let mut cas = coordinator.cas();
    let request = reapi::FindMissingBlobsRequest {
        blob_digests: vec![upper.clone()],
        ..Default::default()
    };
    refusals.push(cas.find_missing_blobs(request).await.map(drop));
    refusals.push(read_in_batch(&coordinator, upper.clone()).await.map(drop));
    refusals.push(tree_of(&coordinator, upper.clone()).await.map(drop));
    refusals.push(result_of(&coordinator, upper.clone()).await.map(drop));
    let execute = reapi::ExecuteRequest {
        action_digest: Some(upper.clone()),
        ..Default::default()
    };
    refusals.push(coordinator.execution().execute(execute).await.map(drop));
    let mut bytes = coordinator.byte_stream();
    for name in ["blobs", "compressed-blobs/zstd"] {
        refusals.push(read(&coordinator, format!("{name}/{text}")).await.map(drop));
        let resource_name = format!("uploads/{}/{name}/{text}", Uuid::new_v4());
        let query = QueryWriteStatusRequest {
            resource_name: resource_name.clone(),
        };
        refusals.push(bytes.query_write_status(query).await.map(drop));
        let message = WriteRequest {
            resource_name,
            finish_write: true,
            data: "blob".into(),
            ..Default::default()
        };
        let written = bytes.write(futures::stream::iter([message])).await;
        refusals.push(written.map(drop));
    }
    for (number, refused) in refusals.into_iter().enumerate() {
        assert_eq!(
            refused.unwrap_err().code(),
            Code::InvalidArgument,
            "{number}"
        );
    }
    let part = reapi::batch_update_blobs_request::Request {
        digest: Some(upper),
        data: "blob".into(),
        ..Default::default()
    };
    let request = reapi::BatchUpdateBlobsRequest {
        requests: vec![part],
        ..Default::default()
    };
    let stored = cas.batch_update_blobs(request).await.unwrap().into_inner();
    let code = stored.responses[0].status.as_ref().unwrap().code;
    assert_eq!(code, i32::from(RpcCode::InvalidArgument));
}

#[tokio::test]
async fn the_empty_blob_is_there_before_anything_is_stored() {
    let coordinator = Running::start().await;
    let empty = Digest::EMPTY;
    assert_eq!(coordinator.missing(&[empty]).await, []);
    let code = read_in_batch(&coordinator, empty.into()).await.unwrap();
    assert_eq!(code, 0);
    let read = read(&coordinator, format!("main/blobs/{empty}")).await;
    assert_eq!(read.unwrap(), b"");
    // It is the directory without entries too.
    assert_eq!(tree_of(&coordinator, empty.into()).await.unwrap(), 1);
    assert_eq!(coordinator.stored_files(), Vec::<std::path::PathBuf>::new());
}
