//! Blobs that travel compressed.

use bytes::Bytes;
use futures::{TryStreamExt as _, stream};
use regatta_cas::{compressed_body, decompressed_body, stream_of};
use regatta_model::Digest;
use regatta_wire::bytestream::{QueryWriteStatusRequest, ReadRequest, WriteRequest};
use regatta_wire::reapi;
use regatta_wire::reapi::compressor::Value as Compressor;
use regatta_wire::rpc::Code as RpcCode;
use tonic::{Code, Status};
use uuid::Uuid;

use crate::harness::{Running, batch, noise};

/// A blob that becomes about half as large.
fn half_noise() -> Bytes {
    let noise = noise(1_000_000, 1);
    [&noise[..], &vec![7; 1_000_000]].concat().into()
}

async fn zstd(blob: &Bytes) -> Bytes {
    let pieces: Vec<Bytes> = compressed_body(stream_of(blob.clone()))
        .try_collect()
        .await
        .unwrap();
    pieces.concat().into()
}

fn upload_name(digest: &Digest) -> String {
    format!(
        "main/uploads/{}/compressed-blobs/zstd/{digest}",
        Uuid::new_v4()
    )
}

fn message(name: &str, data: &Bytes, from: usize, to: usize) -> WriteRequest {
    WriteRequest {
        resource_name: name.to_owned(),
        write_offset: i64::try_from(from).unwrap(),
        finish_write: to == data.len(),
        data: data.slice(from..to),
    }
}

async fn write(coordinator: &Running, messages: Vec<WriteRequest>) -> Result<i64, Status> {
    let mut client = coordinator.byte_stream();
    let written = client.write(stream::iter(messages)).await?;
    Ok(written.into_inner().committed_size)
}

async fn status_of(coordinator: &Running, name: &str) -> (i64, bool) {
    let request = QueryWriteStatusRequest {
        resource_name: name.to_owned(),
    };
    let mut client = coordinator.byte_stream();
    let status = client.query_write_status(request).await.unwrap();
    let status = status.into_inner();
    (status.committed_size, status.complete)
}

async fn read(
    coordinator: &Running,
    digest: &Digest,
    read_offset: i64,
    read_limit: i64,
) -> Result<Bytes, Status> {
    let request = ReadRequest {
        resource_name: format!("main/compressed-blobs/zstd/{digest}"),
        read_offset,
        read_limit,
    };
    let pieces = coordinator.byte_stream().read(request).await?.into_inner();
    let pieces: Vec<_> = pieces.try_collect().await?;
    let pieces = pieces.iter().map(|piece| &piece.data[..]);
    Ok(pieces.collect::<Vec<_>>().concat().into())
}

async fn unpacked(digest: Digest, compressed: Bytes) -> Vec<u8> {
    let body = decompressed_body(digest, stream_of(compressed));
    let pieces: Vec<Bytes> = body.try_collect().await.unwrap();
    pieces.concat()
}

#[tokio::test]
async fn a_compressed_upload_counts_compressed_bytes_and_goes_on() {
    let coordinator = Running::start().await;
    let blob = half_noise();
    let (digest, packed) = (Digest::of(&blob), zstd(&blob).await);
    assert!(packed.len() < blob.len() * 2 / 3);
    let name = upload_name(&digest);
    let first = message(&name, &packed, 0, 400_000);
    assert_eq!(write(&coordinator, vec![first]).await.unwrap(), 400_000);
    assert_eq!(status_of(&coordinator, &name).await, (400_000, false));
    let rest = message(&name, &packed, 400_000, packed.len());
    let committed = write(&coordinator, vec![rest]).await.unwrap();
    assert_eq!(usize::try_from(committed), Ok(packed.len()));
    // Now that it is there, nobody knows how long another compressed form would be.
    assert_eq!(status_of(&coordinator, &name).await, (-1, true));
    let again = message(&upload_name(&digest), &packed, 0, 1000);
    assert_eq!(write(&coordinator, vec![again]).await.unwrap(), -1);
}

#[tokio::test]
async fn a_compressed_read_begins_at_an_uncompressed_offset_and_has_no_limit() {
    let coordinator = Running::start().await;
    let blob = half_noise();
    let digest = coordinator.store(blob.clone()).await;
    for offset in [0, 999_000, 2_000_000] {
        let packed = read(&coordinator, &digest, offset, 0).await.unwrap();
        let offset = usize::try_from(offset).unwrap();
        assert!(packed.len() < (blob.len() - offset) * 2 / 3 + 100);
        assert!(unpacked(digest, packed).await == blob[offset..]);
    }
    let limited = read(&coordinator, &digest, 0, 10).await.unwrap_err();
    assert_eq!(limited.code(), Code::InvalidArgument);
    let beyond = read(&coordinator, &digest, 2_000_001, 0).await.unwrap_err();
    assert_eq!(beyond.code(), Code::OutOfRange);
    let empty = read(&coordinator, &Digest::EMPTY, 0, 0).await.unwrap();
    assert_eq!(unpacked(Digest::EMPTY, empty).await, b"");
}

#[tokio::test]
async fn what_decompresses_to_something_else_is_refused_and_leaves_nothing() {
    let coordinator = Running::start().await;
    let zeros = Bytes::from(vec![0; 64 << 20]);
    let bomb = zstd(&zeros).await;
    let text = Bytes::from_static(b"text");
    let packed = zstd(&text).await;
    for (digest, sent) in [
        (Digest::of(&zeros[..1000]), bomb),
        (Digest::of(b"else"), packed.clone()),
        (Digest::of(b"longer"), packed.clone()),
        (Digest::of(&text), text.clone()),
        (Digest::of(&text), packed.slice(..packed.len() - 1)),
    ] {
        let name = upload_name(&digest);
        let halves = sent.len() / 2;
        let pieces = vec![
            message(&name, &sent, 0, halves),
            message(&name, &sent, halves, sent.len()),
        ];
        for messages in [vec![message(&name, &sent, 0, sent.len())], pieces] {
            let refused = write(&coordinator, messages).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        }
        assert_eq!(status_of(&coordinator, &name).await, (0, false));
    }
    // More than any compressed form has.
    let digest = Digest::of(&text);
    let name = upload_name(&digest);
    let refused = write(&coordinator, vec![message(&name, &zeros, 0, 1 << 20)]).await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(coordinator.stored_files(), Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn each_blob_of_a_batch_is_compressed_for_itself() {
    let coordinator = Running::start().await;
    let text = Bytes::from("text ".repeat(1000));
    let random = noise(5000, 2);
    let (text_digest, random_digest) = (Digest::of(&text), Digest::of(&random));
    let wrong = Digest::of(b"wrong");
    let mut request = batch(&[
        (text_digest, zstd(&text).await),
        (random_digest, random.clone()),
        (wrong, zstd(&text).await),
    ]);
    request.requests[0].compressor = Compressor::Zstd.into();
    request.requests[2].compressor = Compressor::Zstd.into();
    let stored = coordinator.cas().batch_update_blobs(request).await.unwrap();
    let codes = stored.into_inner().responses.into_iter();
    let codes: Vec<i32> = codes.map(|part| part.status.unwrap().code).collect();
    assert_eq!(codes, [0, 0, i32::from(RpcCode::InvalidArgument)]);
    let read = async |acceptable: &[Compressor]| {
        let request = reapi::BatchReadBlobsRequest {
            digests: vec![text_digest.into(), random_digest.into()],
            acceptable_compressors: acceptable.iter().map(|it| i32::from(*it)).collect(),
            ..Default::default()
        };
        let read = coordinator.cas().batch_read_blobs(request).await.unwrap();
        read.into_inner().responses
    };
    let plain = read(&[]).await;
    assert_eq!((&plain[0].data, plain[0].compressor), (&text, 0));
    let packed = read(&[Compressor::Deflate, Compressor::Zstd]).await;
    assert_eq!(packed[0].compressor(), Compressor::Zstd);
    assert!(packed[0].data.len() < 200);
    assert!(unpacked(text_digest, packed[0].data.clone()).await == text);
    assert_eq!(
        packed[1].compressor(),
        Compressor::Identity,
        "it would grow"
    );
    assert_eq!(packed[1].data, random);
}
