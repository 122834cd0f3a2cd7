use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use regatta_model::Digest;
use regatta_wire::bytestream::{QueryWriteStatusRequest, ReadRequest, WriteRequest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};
use uuid::Uuid;

use crate::harness::{DEADLINE, Running, noise};

/// Several messages of one upload.
const PIECE: usize = 300_000;

fn name_of(digest: &Digest) -> String {
    format!("main/uploads/{}/blobs/{digest}", Uuid::new_v4())
}

fn messages(name: &str, data: &Bytes, offset: usize) -> Vec<WriteRequest> {
    let mut messages = Vec::new();
    let mut at = offset;
    while at < data.len() {
        let end = data.len().min(at + PIECE);
        messages.push(WriteRequest {
            resource_name: name.to_owned(),
            write_offset: i64::try_from(at).unwrap(),
            finish_write: end == data.len(),
            data: data.slice(at..end),
        });
        at = end;
    }
    messages
}

async fn write(coordinator: &Running, messages: Vec<WriteRequest>) -> Result<i64, Status> {
    let written = coordinator
        .byte_stream()
        .write(stream::iter(messages))
        .await?;
    Ok(written.into_inner().committed_size)
}

async fn read(
    coordinator: &Running,
    digest: &Digest,
    read_offset: i64,
    read_limit: i64,
) -> Result<Vec<u8>, Status> {
    let resource_name = format!("main/blobs/{digest}");
    let request = ReadRequest {
        resource_name,
        read_offset,
        read_limit,
    };
    let pieces = coordinator.byte_stream().read(request).await?.into_inner();
    let pieces: Vec<_> = pieces.try_collect().await?;
    Ok(pieces
        .iter()
        .flat_map(|piece| piece.data.to_vec())
        .collect())
}

async fn write_status(coordinator: &Running, name: &str) -> (i64, bool) {
    let request = QueryWriteStatusRequest {
        resource_name: name.to_owned(),
    };
    let response = coordinator
        .byte_stream()
        .query_write_status(request)
        .await
        .unwrap();
    let response = response.into_inner();
    (response.committed_size, response.complete)
}

#[tokio::test]
async fn a_large_blob_goes_in_and_parts_of_it_come_out() {
    let coordinator = Running::start().await;
    let data = noise(5_000_000, 1);
    let digest = Digest::of(&data);
    let name = name_of(&digest);
    assert_eq!(write_status(&coordinator, &name).await, (0, false));
    assert_eq!(
        write(&coordinator, messages(&name, &data, 0))
            .await
            .unwrap(),
        5_000_000
    );
    assert_eq!(write_status(&coordinator, &name).await, (5_000_000, true));
    assert_eq!(read(&coordinator, &digest, 0, 0).await.unwrap(), data);
    assert_eq!(
        read(&coordinator, &digest, 100, 0).await.unwrap(),
        data[100..]
    );
    assert_eq!(
        read(&coordinator, &digest, 100, 7).await.unwrap(),
        data[100..107]
    );
    assert_eq!(
        read(&coordinator, &digest, 5_000_000, 0).await.unwrap(),
        b""
    );
    let beyond = read(&coordinator, &digest, 5_000_001, 0).await.unwrap_err();
    assert_eq!(beyond.code(), Code::OutOfRange);
    let negative = read(&coordinator, &digest, -1, 0).await.unwrap_err();
    assert_eq!(negative.code(), Code::OutOfRange);
    let negative = read(&coordinator, &digest, 0, -1).await.unwrap_err();
    assert_eq!(negative.code(), Code::InvalidArgument);
    let absent = read(&coordinator, &Digest::of(b"absent"), 0, 0)
        .await
        .unwrap_err();
    assert_eq!(absent.code(), Code::NotFound);
}

#[tokio::test]
async fn a_blob_that_is_there_ends_its_upload_at_once() {
    let coordinator = Running::start().await;
    let data = noise(1_000_000, 2);
    let digest = coordinator.store(data.clone()).await;
    let name = name_of(&digest);
    // The first message alone, and no end: it must not be waited for.
    let first = messages(&name, &data, 0).into_iter().take(1);
    let endless = stream::iter(first).chain(stream::pending());
    let mut client = coordinator.byte_stream();
    let written = tokio::time::timeout(DEADLINE, client.write(endless))
        .await
        .unwrap();
    assert_eq!(written.unwrap().into_inner().committed_size, 1_000_000);
    let empty = WriteRequest {
        resource_name: name_of(&Digest::EMPTY),
        finish_write: true,
        ..Default::default()
    };
    assert_eq!(write(&coordinator, vec![empty]).await.unwrap(), 0);
}

/// Sends an upload's messages and cuts the connection before the last one arrives whole.
async fn interrupt(coordinator: &Running, messages: Vec<WriteRequest>, name: &str, until: i64) {
    let (sender, receiver) = mpsc::channel(100);
    let mut client = coordinator.byte_stream();
    let writing = tokio::spawn(async move { client.write(ReceiverStream::new(receiver)).await });
    for message in messages {
        sender.send(message).await.unwrap();
    }
    let arrived = async {
        while write_status(coordinator, name).await.0 < until {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, arrived).await.unwrap();
    writing.abort();
    assert!(writing.await.unwrap_err().is_cancelled());
}

#[tokio::test]
async fn an_upload_goes_on_after_its_connection_broke() {
    let coordinator = Running::start().await;
    let data = noise(1_000_000, 3);
    let digest = Digest::of(&data);
    let name = name_of(&digest);
    let two = messages(&name, &data, 0)[..2].to_vec();
    interrupt(&coordinator, two, &name, 600_000).await;
    assert_eq!(write_status(&coordinator, &name).await, (600_000, false));
    assert_eq!(
        coordinator.missing(&[digest]).await,
        [digest],
        "nothing half-written is visible"
    );
    let wrong = write(&coordinator, messages(&name, &data, 300_000))
        .await
        .unwrap_err();
    assert_eq!(wrong.code(), Code::InvalidArgument);
    assert_eq!(write_status(&coordinator, &name).await, (600_000, false));
    assert_eq!(
        write(&coordinator, messages(&name, &data, 600_000))
            .await
            .unwrap(),
        1_000_000
    );
    assert_eq!(read(&coordinator, &digest, 0, 0).await.unwrap(), data);
}

#[tokio::test]
async fn an_upload_that_ends_early_keeps_what_it_has() {
    let coordinator = Running::start().await;
    let data = noise(700_000, 4);
    let name = name_of(&Digest::of(&data));
    let first = messages(&name, &data, 0)[..1].to_vec();
    assert_eq!(write(&coordinator, first).await.unwrap(), 300_000);
    assert_eq!(
        write(&coordinator, messages(&name, &data, 0))
            .await
            .unwrap(),
        700_000
    );
}

#[tokio::test]
async fn bytes_that_do_not_fit_are_refused_and_leave_nothing() {
    let coordinator = Running::start().await;
    let data = noise(700_000, 5);
    let truth = Digest::of(&data);
    let other_hash = Digest::new(*Digest::of(b"other").hash(), truth.size_bytes());
    let shorter = Digest::new(*truth.hash(), truth.size_bytes() - 1);
    let longer = Digest::new(*truth.hash(), truth.size_bytes() + 1);
    for lie in [other_hash, shorter, longer] {
        let name = name_of(&lie);
        let refused = write(&coordinator, messages(&name, &data, 0))
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert_eq!(write_status(&coordinator, &name).await, (0, false));
    }
    let small = Digest::of(b"small");
    let refused = write(&coordinator, messages(&name_of(&small), &"SMALL".into(), 0)).await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(coordinator.stored_files(), Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn messages_that_make_no_sense_are_refused() {
    let coordinator = Running::start().await;
    let data = noise(700_000, 6);
    let digest = Digest::of(&data);
    let check = async |change: &dyn Fn(&mut Vec<WriteRequest>)| {
        let mut messages = messages(&name_of(&digest), &data, 0);
        change(&mut messages);
        let refused = write(&coordinator, messages).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    };
    check(&|messages| messages.clear()).await;
    check(&|messages| messages[0].resource_name.clear()).await;
    check(&|messages| messages[0].resource_name = format!("blobs/{digest}")).await;
    check(&|messages| messages[1].resource_name = name_of(&digest)).await;
    check(&|messages| messages[0].write_offset = 5).await;
    check(&|messages| messages[0].write_offset = -5).await;
    check(&|messages| messages[1].write_offset += 1).await;
    check(&|messages| {
        messages[0].resource_name = format!(
            "uploads/{}/compressed-blobs/brotli/{digest}",
            Uuid::new_v4()
        );
    })
    .await;
    assert_eq!(coordinator.missing(&[digest]).await, [digest]);
}

#[tokio::test]
async fn an_instance_name_may_have_slashes() {
    let coordinator = Running::start().await;
    let data = noise(1000, 1);
    let digest = Digest::of(&data);
    let name = format!("org/team/ci/uploads/{}/blobs/{digest}", Uuid::new_v4());
    let written = write(&coordinator, messages(&name, &data, 0)).await;
    assert_eq!(written.unwrap(), 1000);
    let request = ReadRequest {
        resource_name: format!("org/team/ci/blobs/{digest}"),
        ..Default::default()
    };
    let pieces = coordinator.byte_stream().read(request).await.unwrap();
    let pieces: Vec<_> = pieces.into_inner().try_collect().await.unwrap();
    let read: Vec<u8> = pieces
        .iter()
        .flat_map(|piece| piece.data.to_vec())
        .collect();
    assert!(read == data);
}
