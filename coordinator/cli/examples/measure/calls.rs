//! Calls that every build makes by the thousand, one after another.

use std::time::Instant;

use anyhow::{Result, ensure};
use regatta_model::Digest;
use regatta_wire::bytestream::ReadRequest;
use regatta_wire::bytestream::byte_stream_client::ByteStreamClient;
use regatta_wire::reapi::action_cache_client::ActionCacheClient;
use regatta_wire::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use regatta_wire::reapi::{FindMissingBlobsRequest, GetActionResultRequest};
use tonic::transport::Channel;

use crate::actions::upload;
use crate::times::Times;

const CALLS: usize = 2000;
/// How many digests are asked for at once, and how often.
const MANY_DIGESTS: usize = 10_000;
const MANY_CALLS: usize = 50;
const SMALL_BLOB_BYTES: usize = 4096;

/// Times them; `cached` is an action whose result the cache holds, if there is one.
pub(super) async fn times(channel: &Channel, cached: Option<Digest>) -> Result<serde_json::Value> {
    let blob = vec![7; SMALL_BLOB_BYTES];
    let digest = Digest::of(&blob);
    upload(channel, [blob].into()).await?;
    let absent: Vec<_> = (0..MANY_DIGESTS)
        .map(|number| Digest::of(format!("absent {number}").as_bytes()))
        .collect();
    let action_results = match cached {
        Some(cached) => Some(action_results(channel, cached).await?),
        None => None,
    };
    Ok(serde_json::json!({
        "get_action_result": action_results,
        "find_missing_1": find_missing(channel, &[digest], CALLS).await?,
        "find_missing_10000": find_missing(channel, &absent, MANY_CALLS).await?,
        "read_4_kib": reads(channel, digest).await?,
    }))
}

async fn action_results(channel: &Channel, action: Digest) -> Result<serde_json::Value> {
    let mut client = ActionCacheClient::new(channel.clone());
    let mut times = Times::default();
    for _ in 0..CALLS {
        let request = GetActionResultRequest {
            action_digest: Some(action.into()),
            ..Default::default()
        };
        let started = Instant::now();
        client.get_action_result(request).await?;
        times.add(started.elapsed());
    }
    Ok(times.summary())
}

async fn find_missing(
    channel: &Channel,
    digests: &[Digest],
    calls: usize,
) -> Result<serde_json::Value> {
    let mut client = ContentAddressableStorageClient::new(channel.clone());
    let mut times = Times::default();
    for _ in 0..calls {
        let request = FindMissingBlobsRequest {
            blob_digests: digests.iter().copied().map(Into::into).collect(),
            ..Default::default()
        };
        let started = Instant::now();
        client.find_missing_blobs(request).await?;
        times.add(started.elapsed());
    }
    Ok(times.summary())
}

async fn reads(channel: &Channel, digest: Digest) -> Result<serde_json::Value> {
    let mut client = ByteStreamClient::new(channel.clone());
    let mut times = Times::default();
    for _ in 0..CALLS {
        let request = ReadRequest {
            resource_name: format!("blobs/{digest}"),
            ..Default::default()
        };
        let started = Instant::now();
        let mut stream = client.read(request).await?.into_inner();
        let mut length = 0;
        while let Some(response) = stream.message().await? {
            length += response.data.len();
        }
        times.add(started.elapsed());
        ensure!(length == SMALL_BLOB_BYTES, "{length} bytes were read");
    }
    Ok(times.summary())
}
