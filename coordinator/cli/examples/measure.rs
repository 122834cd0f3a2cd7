//! Measures a running fleet through its REAPI services, as a client sees it, and prints JSON.
//! `cargo xtask bench` runs it; by hand:
//! `cargo run --release --example measure -- http://127.0.0.1:8980 [image]`

#![expect(clippy::print_stdout, reason = "its result goes to standard output")]

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use prost::Message;
use regatta_model::Digest;
use regatta_wire::bytestream::byte_stream_client::ByteStreamClient;
use regatta_wire::bytestream::{ReadRequest, WriteRequest};
use regatta_wire::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use regatta_wire::reapi::execution_client::ExecutionClient;
use regatta_wire::reapi::{
    Action, BatchUpdateBlobsRequest, Command, Directory, ExecuteRequest, ExecuteResponse, Platform,
    batch_update_blobs_request, command, platform,
};
use tonic::transport::Channel;

/// How many actions are timed, and how many go before them to warm the slot.
const ACTIONS: usize = 300;
const WARM_UP: usize = 20;
/// The blob that is written and read.
const BLOB_BYTES: usize = 1 << 30;
const CHUNK_BYTES: usize = 1 << 20;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().context("usage: measure URL [IMAGE]")?;
    let image = arguments.next();
    let url = url.replace("grpc://", "http://");
    let channel = Channel::from_shared(url)?
        .tcp_nodelay(true)
        .connect()
        .await?;
    let action = action_latency(&channel, image.as_deref()).await?;
    let blob = blob_throughput(&channel).await?;
    println!("{}", serde_json::json!({ "action": action, "blob": blob }));
    Ok(())
}

/// The time of one action after another, each new to the cache, from Execute to its result.
async fn action_latency(channel: &Channel, image: Option<&str>) -> Result<serde_json::Value> {
    let mut times = Vec::with_capacity(ACTIONS);
    for number in 0..WARM_UP + ACTIONS {
        let action = upload_action(channel, image, number).await?;
        let started = Instant::now();
        execute(channel, action).await?;
        if number >= WARM_UP {
            times.push(started.elapsed());
        }
    }
    times.sort();
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    Ok(serde_json::json!({
        "count": ACTIONS,
        "p50_ms": millis(times[ACTIONS / 2]),
        "p99_ms": millis(times[ACTIONS * 99 / 100]),
    }))
}

async fn upload_action(channel: &Channel, image: Option<&str>, number: usize) -> Result<Digest> {
    let image = image.map(|image| platform::Property {
        name: "container-image".to_owned(),
        value: image.to_owned(),
    });
    let command = Command {
        arguments: vec!["/bin/true".to_owned()],
        environment_variables: vec![command::EnvironmentVariable {
            name: "NUMBER".to_owned(),
            value: format!("{number} {}", uuid::Uuid::new_v4()),
        }],
        ..Command::default()
    };
    let (command, root) = (
        command.encode_to_vec(),
        Directory::default().encode_to_vec(),
    );
    let action = Action {
        command_digest: Some(Digest::of(&command).into()),
        input_root_digest: Some(Digest::of(&root).into()),
        platform: Some(Platform {
            properties: image.into_iter().collect(),
        }),
        ..Action::default()
    };
    let action = action.encode_to_vec();
    let digest = Digest::of(&action);
    let request = |bytes: Vec<u8>| batch_update_blobs_request::Request {
        digest: Some(Digest::of(&bytes).into()),
        data: bytes.into(),
        ..Default::default()
    };
    let requests = [command, root, action].map(request).into();
    let request = BatchUpdateBlobsRequest {
        requests,
        ..Default::default()
    };
    ContentAddressableStorageClient::new(channel.clone())
        .batch_update_blobs(request)
        .await?;
    Ok(digest)
}

async fn execute(channel: &Channel, action: Digest) -> Result<()> {
    let request = ExecuteRequest {
        action_digest: Some(action.into()),
        ..Default::default()
    };
    let mut stream = ExecutionClient::new(channel.clone())
        .execute(request)
        .await?
        .into_inner();
    while let Some(operation) = stream.message().await? {
        let Some(regatta_wire::longrunning::operation::Result::Response(response)) =
            operation.result
        else {
            continue;
        };
        let response = response.to_msg::<ExecuteResponse>()?;
        let exit_code = response.result.as_ref().map(|result| result.exit_code);
        ensure!(
            exit_code == Some(0) && !response.cached_result,
            "{response:?}"
        );
        return Ok(());
    }
    anyhow::bail!("the stream ended without a result")
}

/// Bytes a second of one large blob, written and read over one stream each.
async fn blob_throughput(channel: &Channel) -> Result<serde_json::Value> {
    let mut bytes = BytesMut::zeroed(BLOB_BYTES);
    let seed = uuid::Uuid::new_v4().into_bytes();
    for (index, chunk) in bytes.chunks_mut(4096).enumerate() {
        chunk[..16].copy_from_slice(&seed);
        chunk[16..24].copy_from_slice(&index.to_le_bytes());
    }
    let bytes = bytes.freeze();
    let digest = Digest::of(&bytes);
    let written = write(channel, digest, bytes).await?;
    let read = read(channel, digest).await?;
    let rate = |time: Duration| (BLOB_BYTES >> 20) as f64 / time.as_secs_f64();
    Ok(serde_json::json!({
        "mib": BLOB_BYTES >> 20,
        "write_mib_per_s": rate(written),
        "read_mib_per_s": rate(read),
    }))
}

async fn write(channel: &Channel, digest: Digest, bytes: Bytes) -> Result<Duration> {
    let resource_name = format!("uploads/{}/blobs/{digest}", uuid::Uuid::new_v4());
    let offsets = (0..BLOB_BYTES).step_by(CHUNK_BYTES);
    let requests = stream::iter(offsets.map(move |offset| WriteRequest {
        resource_name: if offset == 0 {
            resource_name.clone()
        } else {
            String::new()
        },
        write_offset: i64::try_from(offset).unwrap_or(i64::MAX),
        finish_write: offset + CHUNK_BYTES == BLOB_BYTES,
        data: bytes.slice(offset..offset + CHUNK_BYTES),
    }));
    let started = Instant::now();
    let response = ByteStreamClient::new(channel.clone())
        .write(requests)
        .await?
        .into_inner();
    ensure!(
        usize::try_from(response.committed_size)? == BLOB_BYTES,
        "{response:?}"
    );
    Ok(started.elapsed())
}

async fn read(channel: &Channel, digest: Digest) -> Result<Duration> {
    let request = ReadRequest {
        resource_name: format!("blobs/{digest}"),
        ..Default::default()
    };
    let started = Instant::now();
    let mut client = ByteStreamClient::new(channel.clone()).max_decoding_message_size(8 << 20);
    let mut stream = client.read(request).await?.into_inner();
    let mut length = 0;
    while let Some(response) = stream.next().await {
        length += response?.data.len();
    }
    ensure!(length == BLOB_BYTES, "{length} bytes of {BLOB_BYTES}");
    Ok(started.elapsed())
}
