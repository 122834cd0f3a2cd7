//! The Remote Asset API.

use std::time::{Duration, SystemTime};

use regatta_model::Digest;
use regatta_wire::asset::fetch_client::FetchClient;
use regatta_wire::asset::push_client::PushClient;
use regatta_wire::asset::{
    FetchBlobRequest, FetchDirectoryRequest, PushBlobRequest, PushDirectoryRequest, Qualifier,
};
use regatta_wire::reapi::{Directory, FileNode};
use tonic::Code;

use crate::harness::Running;

fn qualifier(name: &str, value: &str) -> Qualifier {
    Qualifier {
        name: name.to_owned(),
        value: value.to_owned(),
    }
}

fn push_of(uri: &str, digest: Digest) -> PushBlobRequest {
    PushBlobRequest {
        instance_name: "main".to_owned(),
        uris: vec![uri.to_owned()],
        blob_digest: Some(digest.into()),
        ..Default::default()
    }
}

fn fetch_of(uri: &str) -> FetchBlobRequest {
    FetchBlobRequest {
        instance_name: "main".to_owned(),
        uris: vec!["other://".to_owned(), uri.to_owned()],
        ..Default::default()
    }
}

async fn push(coordinator: &Running, request: PushBlobRequest) {
    let mut client = PushClient::new(coordinator.channel.clone());
    client.push_blob(request).await.unwrap();
}

async fn fetch(coordinator: &Running, request: FetchBlobRequest) -> Result<Digest, Code> {
    let mut client = FetchClient::new(coordinator.channel.clone());
    let found = client.fetch_blob(request).await;
    let found = found.map_err(|status| status.code())?.into_inner();
    assert_eq!(found.status.unwrap().code, 0);
    Ok(Digest::try_from(found.blob_digest.unwrap()).unwrap())
}

#[tokio::test]
async fn a_pushed_blob_is_found_by_its_uri_and_qualifiers_after_a_restart_too() {
    let coordinator = Running::start().await;
    let blob = coordinator.store("content").await;
    let qualifiers = [qualifier("a", "1"), qualifier("b", "2")];
    let pushed = PushBlobRequest {
        qualifiers: qualifiers.to_vec(),
        ..push_of("uri://x", blob)
    };
    push(&coordinator, pushed).await;
    let coordinator = Running::start_in(coordinator.stop().await, |_| {}).await;
    let request = FetchBlobRequest {
        qualifiers: qualifiers.iter().rev().cloned().collect(),
        ..fetch_of("uri://x")
    };
    assert_eq!(fetch(&coordinator, request.clone()).await, Ok(blob));
    let less = fetch_of("uri://x");
    let other_tenant = FetchBlobRequest {
        instance_name: "other".to_owned(),
        ..request.clone()
    };
    let other_uri = FetchBlobRequest {
        uris: vec!["uri://y".to_owned()],
        ..request
    };
    for unknown in [less, other_tenant, other_uri] {
        assert_eq!(fetch(&coordinator, unknown).await, Err(Code::NotFound));
    }
}

#[tokio::test]
async fn an_asset_is_given_out_only_while_all_of_it_is_there() {
    let coordinator = Running::start().await;
    let blob = coordinator.store("content").await;
    let file = FileNode {
        name: "file".to_owned(),
        digest: Some(Digest::of(b"below").into()),
        ..Default::default()
    };
    let directory = Directory {
        files: vec![file],
        ..Default::default()
    };
    let directory = coordinator.store_message(&directory).await;
    let pushed = PushBlobRequest {
        references_blobs: vec![Digest::of(b"blob").into()],
        references_directories: vec![directory.into()],
        ..push_of("uri://x", blob)
    };
    push(&coordinator, pushed).await;
    assert_eq!(
        fetch(&coordinator, fetch_of("uri://x")).await,
        Err(Code::NotFound)
    );
    coordinator.store("blob").await;
    assert_eq!(
        fetch(&coordinator, fetch_of("uri://x")).await,
        Err(Code::NotFound)
    );
    coordinator.store("below").await;
    assert_eq!(fetch(&coordinator, fetch_of("uri://x")).await, Ok(blob));
    push(&coordinator, push_of("uri://gone", Digest::of(b"gone"))).await;
    assert_eq!(
        fetch(&coordinator, fetch_of("uri://gone")).await,
        Err(Code::NotFound)
    );
}

#[tokio::test]
async fn a_directory_is_no_blob() {
    let coordinator = Running::start().await;
    let root = coordinator.store_message(&Directory::default()).await;
    let mut push = PushClient::new(coordinator.channel.clone());
    let request = PushDirectoryRequest {
        uris: vec!["uri://x".to_owned(), "uri://y".to_owned()],
        root_directory_digest: Some(root.into()),
        ..Default::default()
    };
    push.push_directory(request).await.unwrap();
    let mut client = FetchClient::new(coordinator.channel.clone());
    let request = FetchDirectoryRequest {
        uris: vec!["uri://y".to_owned()],
        ..Default::default()
    };
    let found = client.fetch_directory(request).await.unwrap().into_inner();
    assert_eq!(found.uri, "uri://y");
    assert_eq!(found.root_directory_digest, Some(root.into()));
    let blob = FetchBlobRequest {
        uris: vec!["uri://y".to_owned()],
        ..Default::default()
    };
    assert_eq!(fetch(&coordinator, blob).await, Err(Code::NotFound));
}

#[tokio::test]
async fn what_is_expired_or_too_old_is_not_given_out() {
    let coordinator = Running::start().await;
    let blob = coordinator.store("content").await;
    let now = SystemTime::now();
    let (past, future) = (now - Duration::from_secs(60), now + Duration::from_secs(60));
    for (uri, expire_at) in [("uri://past", past), ("uri://future", future)] {
        let request = PushBlobRequest {
            expire_at: Some(expire_at.into()),
            ..push_of(uri, blob)
        };
        push(&coordinator, request).await;
    }
    let past_one = fetch(&coordinator, fetch_of("uri://past")).await;
    assert_eq!(past_one, Err(Code::NotFound));
    for (oldest, expected) in [(past, Ok(blob)), (future, Err(Code::NotFound))] {
        let request = FetchBlobRequest {
            oldest_content_accepted: Some(oldest.into()),
            ..fetch_of("uri://future")
        };
        assert_eq!(fetch(&coordinator, request).await, expected);
    }
}

#[tokio::test]
async fn requests_without_what_they_need_are_refused() {
    let coordinator = Running::start().await;
    let empty = fetch(&coordinator, FetchBlobRequest::default()).await;
    assert_eq!(empty, Err(Code::InvalidArgument));
    let twice = FetchBlobRequest {
        qualifiers: vec![qualifier("a", "1"), qualifier("a", "2")],
        ..fetch_of("uri://x")
    };
    assert_eq!(fetch(&coordinator, twice).await, Err(Code::InvalidArgument));
    let mut client = PushClient::new(coordinator.channel.clone());
    let without_digest = PushBlobRequest {
        blob_digest: None,
        ..push_of("uri://x", Digest::EMPTY)
    };
    for request in [PushBlobRequest::default(), without_digest] {
        let refused = client.push_blob(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
    let request = PushDirectoryRequest::default();
    let refused = client.push_directory(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}
