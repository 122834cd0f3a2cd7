use bytes::Bytes;
use futures::TryStreamExt as _;
use prost::Message as _;
use regatta_model::Digest;
use regatta_wire::reapi;
use regatta_wire::reapi::compressor::Value as Compressor;
use regatta_wire::rpc::Code as RpcCode;
use tonic::Code;

use crate::harness::{Running, batch, noise};

async fn read(coordinator: &Running, digests: &[Digest]) -> Vec<(i32, Bytes)> {
    let digests = digests.iter().map(reapi::Digest::from).collect();
    let request = reapi::BatchReadBlobsRequest {
        digests,
        ..Default::default()
    };
    let response = coordinator
        .cas()
        .batch_read_blobs(request)
        .await
        .unwrap()
        .into_inner();
    let parts = response.responses.into_iter();
    parts
        .map(|part| (part.status.unwrap().code, part.data))
        .collect()
}

#[tokio::test]
async fn every_blob_of_a_batch_has_its_own_outcome() {
    let coordinator = Running::start().await;
    let good = Digest::of(b"good");
    let lie = Digest::of(b"truth");
    let short = Digest::new(*Digest::of(b"short").hash(), 3);
    let mut request = batch(&[
        (good, "good".into()),
        (lie, "lies!".into()),
        (short, "short".into()),
        (Digest::EMPTY, Bytes::new()),
        (Digest::of(b"packed"), "packed".into()),
    ]);
    request.requests[4].compressor = Compressor::Deflate.into();
    let response = coordinator
        .cas()
        .batch_update_blobs(request)
        .await
        .unwrap()
        .into_inner();
    let codes: Vec<i32> = response
        .responses
        .iter()
        .map(|part| part.status.as_ref().unwrap().code)
        .collect();
    let invalid = i32::from(RpcCode::InvalidArgument);
    assert_eq!(codes, [0, invalid, invalid, 0, invalid]);
    let missing = coordinator
        .missing(&[good, lie, short, Digest::EMPTY, lie])
        .await;
    assert_eq!(missing, [lie, short]);
    let read = read(&coordinator, &[good, lie, Digest::EMPTY]).await;
    let not_found = i32::from(RpcCode::NotFound);
    let expected = [
        (0, "good".into()),
        (not_found, Bytes::new()),
        (0, Bytes::new()),
    ];
    assert_eq!(read, expected);
}

#[tokio::test]
async fn a_batch_too_large_is_refused() {
    let coordinator = Running::start().await;
    let mut cas = coordinator.cas();
    let large = noise(3 << 20, 1);
    let other = noise(1 << 20, 2);
    let blobs = [
        (Digest::of(&large), large.clone()),
        (Digest::of(&other), other),
    ];
    let refused = cas.batch_update_blobs(batch(&blobs)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let digest = Digest::of(&large);
    let request = reapi::BatchReadBlobsRequest {
        digests: vec![digest.into(), Digest::new([1; 32], 2 << 20).into()],
        ..Default::default()
    };
    let refused = cas.batch_read_blobs(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    // The largest batch that is allowed passes both ways through clients with default limits.
    let limit = noise((4 << 20) - (256 << 10), 3);
    let digest = coordinator.store(limit.clone()).await;
    assert_eq!(read(&coordinator, &[digest]).await, [(0, limit)]);
}

/// Answers for clients with default limits, of which the request says little: each digest and each message
/// about it counts.
#[tokio::test]
async fn answers_about_many_small_blobs_fit_into_messages() {
    let coordinator = Running::start().await;
    let mut cas = coordinator.cas();
    // As many as may be asked for, none of them there, then all of them empty.
    for digest in [Digest::new([7; 32], 1), Digest::EMPTY] {
        let request = |count: usize| reapi::BatchReadBlobsRequest {
            digests: vec![digest.into(); count],
            ..Default::default()
        };
        let read = cas.batch_read_blobs(request(25_000)).await.unwrap();
        let parts = read.into_inner().responses;
        let expected = match digest.is_empty_blob() {
            true => RpcCode::Ok,
            false => RpcCode::NotFound,
        };
        assert_eq!(parts.len(), 25_000);
        let code =
            |part: &reapi::batch_read_blobs_response::Response| part.status.as_ref().unwrap().code;
        assert!(parts.iter().all(|part| code(part) == i32::from(expected)));
        let refused = cas.batch_read_blobs(request(27_000)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
    let lie = (Digest::of(b"truth"), Bytes::from_static(b"lies!"));
    let stored = cas.batch_update_blobs(batch(&vec![lie; 25_000])).await;
    let parts = stored.unwrap().into_inner().responses;
    let invalid = i32::from(RpcCode::InvalidArgument);
    assert_eq!(parts.len(), 25_000);
    assert!(
        parts
            .iter()
            .all(|part| part.status.as_ref().unwrap().code == invalid)
    );
}

#[tokio::test]
async fn malformed_requests_are_refused() {
    let coordinator = Running::start().await;
    let mut cas = coordinator.cas();
    let bad = reapi::Digest {
        hash: "ABC".to_owned(),
        size_bytes: 1,
    };
    let request = reapi::FindMissingBlobsRequest {
        blob_digests: vec![bad],
        ..Default::default()
    };
    let refused = cas.find_missing_blobs(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("blob_digests[0]"), "{refused}");
    let request = reapi::FindMissingBlobsRequest {
        digest_function: 9,
        ..Default::default()
    };
    let refused = cas.find_missing_blobs(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_corrupt_blob_is_reported_once_and_can_be_replaced() {
    let coordinator = Running::start().await;
    let digest = coordinator.store("precious").await;
    let [file] = &coordinator.stored_files()[..] else {
        panic!("one blob was stored")
    };
    std::fs::write(file, "precioux").unwrap();
    let state = coordinator.stop().await;
    // A new process knows nothing but what is on the disk.
    let coordinator = Running::start_in(state, |_| {}).await;
    let data_loss = i32::from(RpcCode::DataLoss);
    assert_eq!(
        read(&coordinator, &[digest]).await,
        [(data_loss, Bytes::new())]
    );
    assert_eq!(coordinator.missing(&[digest]).await, [digest]);
    coordinator.store("precious").await;
    assert_eq!(
        read(&coordinator, &[digest]).await,
        [(0, "precious".into())]
    );
}

async fn tree(
    coordinator: &Running,
    root: Digest,
    page_size: i32,
    page_token: &str,
) -> Vec<reapi::GetTreeResponse> {
    let request = reapi::GetTreeRequest {
        root_digest: Some(root.into()),
        page_size,
        page_token: page_token.to_owned(),
        ..Default::default()
    };
    let pages = coordinator
        .cas()
        .get_tree(request)
        .await
        .unwrap()
        .into_inner();
    pages.try_collect().await.unwrap()
}

#[tokio::test]
async fn trees_come_in_pages_without_what_is_missing() {
    let coordinator = Running::start().await;
    let mut root = reapi::Directory::default();
    for name in ["a", "b", "c", "d"] {
        let link = reapi::SymlinkNode {
            name: name.into(),
            ..Default::default()
        };
        let child = reapi::Directory {
            symlinks: vec![link],
            ..Default::default()
        };
        let digest = match name {
            "c" => Digest::of(&child.encode_to_vec()),
            _ => coordinator.store_message(&child).await,
        };
        root.directories.push(reapi::DirectoryNode {
            name: name.into(),
            digest: Some(digest.into()),
        });
    }
    let root = coordinator.store_message(&root).await;
    let pages = tree(&coordinator, root, 3, "").await;
    let sizes: Vec<usize> = pages.iter().map(|page| page.directories.len()).collect();
    assert_eq!(sizes, [3, 1]);
    assert_eq!(pages[1].next_page_token, "");
    let rest = tree(&coordinator, root, 3, &pages[0].next_page_token).await;
    assert_eq!(rest, pages[1..]);
    let whole = tree(&coordinator, root, 0, "").await;
    assert_eq!((whole.len(), whole[0].directories.len()), (1, 4));
    let request = reapi::GetTreeRequest {
        root_digest: Some(Digest::of(b"gone").into()),
        ..Default::default()
    };
    let refused = coordinator.cas().get_tree(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
}

#[tokio::test]
async fn what_is_not_offered_says_so() {
    let coordinator = Running::start().await;
    let mut cas = coordinator.cas();
    let mapping = cas
        .get_chunk_mapping(reapi::GetChunkMappingRequest::default())
        .await
        .unwrap_err();
    let none = futures::stream::empty::<reapi::RegisterChunkMappingRequest>();
    let register = cas.register_chunk_mapping(none).await.unwrap_err();
    assert_eq!(
        (mapping.code(), register.code()),
        (Code::Unimplemented, Code::Unimplemented)
    );
}

#[tokio::test]
async fn capabilities_say_what_holds() {
    let coordinator = Running::start().await;
    let request = reapi::GetCapabilitiesRequest {
        instance_name: "main".to_owned(),
    };
    let response = coordinator
        .capabilities()
        .get_capabilities(request)
        .await
        .unwrap();
    let capabilities = response.into_inner();
    let cache = capabilities.cache_capabilities.unwrap();
    assert_eq!(cache.digest_functions, [1]);
    let zstd = [i32::from(Compressor::Zstd)];
    assert_eq!(cache.supported_compressors, zstd);
    assert_eq!(cache.supported_batch_update_compressors, zstd);
    assert_eq!(cache.max_batch_total_size_bytes, (4 << 20) - (256 << 10));
    assert!(cache.split_blob_support && cache.splice_blob_support);
    let cutting = cache.fast_cdc_2020_params.unwrap();
    assert_eq!((cutting.avg_chunk_size_bytes, cutting.seed), (512 << 10, 0));
    assert!(
        !cache
            .action_cache_update_capabilities
            .unwrap()
            .update_enabled
    );
    let execution = capabilities.execution_capabilities.unwrap();
    assert!(execution.exec_enabled);
    assert_eq!(execution.digest_functions, [1]);
    let priorities = execution
        .execution_priority_capabilities
        .unwrap()
        .priorities;
    let every = (priorities[0].min_priority, priorities[0].max_priority);
    assert_eq!((priorities.len(), every), (1, (i32::MIN, i32::MAX)));
    assert_eq!(capabilities.low_api_version.unwrap().minor, 0);
    assert_eq!(capabilities.high_api_version.unwrap().minor, 12);
}
