//! Clients that connect, look at this and that, and go away without a word.

use std::sync::Arc;

use anyhow::{Result, ensure};
use futures::stream;
use regatta_model::Digest;
use regatta_wire::bytestream::byte_stream_client::ByteStreamClient;
use regatta_wire::bytestream::{ReadRequest, WriteRequest};
use regatta_wire::longrunning::ListOperationsRequest;
use regatta_wire::longrunning::operations_client::OperationsClient;
use regatta_wire::reapi::capabilities_client::CapabilitiesClient;
use regatta_wire::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use regatta_wire::reapi::{FindMissingBlobsRequest, GetCapabilitiesRequest};
use regatta_wire::v1;
use regatta_wire::v1::fleet_client::FleetClient;
use regatta_wire::v1::runs_client::RunsClient;
use tonic::transport::Channel;

use super::Soak;
use crate::actions::upload;

/// How many blobs are asked for that nobody has.
const ABSENT: usize = 100;
/// Larger than what a connection sends before it is read.
const LARGE_BYTES: usize = 3 << 20;
/// How many of the last operations are listed.
const LISTED: i32 = 100;
/// Of so many clients, one reads a large blob and leaves in the middle.
const READS_ONE_OF: usize = 20;

/// One client.
pub(super) async fn one(soak: Arc<Soak>, number: usize) -> Result<()> {
    let client = soak.connect().await?;
    soak.tally.ask("visit", visit(&client, number)).await;
    if number.is_multiple_of(READS_ONE_OF) {
        let left = leave_in_the_middle(&client, number / READS_ONE_OF);
        soak.tally.ask("read left in the middle", left).await;
    }
    Ok(())
}

async fn visit(client: &Channel, number: usize) -> Result<()> {
    CapabilitiesClient::new(client.clone())
        .get_capabilities(GetCapabilitiesRequest::default())
        .await?;
    let absent = (0..ABSENT).map(|it| Digest::of(format!("absent {number} {it}").as_bytes()));
    let request = FindMissingBlobsRequest {
        blob_digests: absent.map(Into::into).collect(),
        ..Default::default()
    };
    let missing = ContentAddressableStorageClient::new(client.clone())
        .find_missing_blobs(request)
        .await?
        .into_inner()
        .missing_blob_digests;
    ensure!(missing.len() == ABSENT, "{} are missing", missing.len());
    let request = ListOperationsRequest {
        name: "operations".to_owned(),
        page_size: LISTED,
        ..Default::default()
    };
    OperationsClient::new(client.clone())
        .list_operations(request)
        .await?;
    RunsClient::new(client.clone())
        .list_runs(v1::ListRunsRequest::default())
        .await?;
    FleetClient::new(client.clone())
        .list_agents(v1::ListAgentsRequest {})
        .await?;
    Ok(())
}

/// Begins to read a large blob, of which there are a few, and begins an upload that nobody ends.
async fn leave_in_the_middle(client: &Channel, number: usize) -> Result<()> {
    let mut bytes = vec![7; LARGE_BYTES];
    bytes[0] = u8::try_from(number % 4)?;
    let digest = Digest::of(&bytes);
    upload(client, [bytes].into()).await?;
    let request = ReadRequest {
        resource_name: format!("blobs/{digest}"),
        ..Default::default()
    };
    let mut client = ByteStreamClient::new(client.clone()).max_decoding_message_size(8 << 20);
    let mut pieces = client.read(request).await?.into_inner();
    let piece = pieces.message().await?;
    ensure!(
        piece.is_some_and(|piece| !piece.data.is_empty()),
        "no piece of {digest}"
    );
    let never_seen = uuid::Uuid::new_v4();
    let unfinished = WriteRequest {
        resource_name: format!(
            "uploads/{never_seen}/blobs/{}",
            Digest::of(never_seen.as_bytes())
        ),
        data: never_seen.as_bytes()[..8].to_vec().into(),
        ..Default::default()
    };
    // Whether that is an error is of no interest here.
    drop(client.write(stream::iter([unfinished])).await);
    Ok(())
}
