//! Bytes a second of one large blob, in and out.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt, stream};
use regatta_model::Digest;
use regatta_wire::bytestream::byte_stream_client::ByteStreamClient;
use regatta_wire::bytestream::{ReadRequest, WriteRequest};
use tonic::transport::Channel;

use crate::processor::Processes;

/// The blob that is written and read.
const BLOB_BYTES: usize = 1 << 30;
const CHUNK_BYTES: usize = 1 << 20;

/// How often the blob is read: the first read is the first since it was written.
const READS: usize = 5;

/// Bytes a second of one large blob, written and read over one stream each, and the processor time that it
/// takes the fleet.
pub(super) async fn throughput(channel: &Channel, fleet: &Processes) -> Result<serde_json::Value> {
    let mut bytes = BytesMut::zeroed(BLOB_BYTES);
    let seed = uuid::Uuid::new_v4().into_bytes();
    for (index, chunk) in bytes.chunks_mut(4096).enumerate() {
        chunk[..16].copy_from_slice(&seed);
        chunk[16..24].copy_from_slice(&index.to_le_bytes());
    }
    let bytes = bytes.freeze();
    let digest = Digest::of(&bytes);
    let before = fleet.used()?;
    let written = write(channel, digest, bytes).await?;
    let write_processor_ms = fleet.each_ms(&before, 1)?;
    let before = fleet.used()?;
    let (mut reads, mut copies) = (Vec::new(), Vec::new());
    // In turn, so that whatever else the machine does slows both down alike.
    for _ in 0..READS {
        reads.push(read(channel, digest).await?);
        copies.push(tokio::task::spawn_blocking(tcp_copy).await??);
    }
    Ok(serde_json::json!({
        "mib": BLOB_BYTES >> 20,
        "write_mib_per_s": rate(written),
        "write_processor_ms": write_processor_ms,
        "first_read_mib_per_s": reads.first().copied().map(rate),
        "read_mib_per_s": rate(median(reads)),
        "read_processor_ms": fleet.each_ms(&before, READS)?,
        "tcp_mib_per_s": rate(median(copies)),
    }))
}

fn rate(time: Duration) -> f64 {
    (BLOB_BYTES >> 20) as f64 / time.as_secs_f64()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// As many bytes from one thread to another over loopback, and nothing else.
fn tcp_copy() -> Result<Duration> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let started = Instant::now();
    let sending = std::thread::spawn(move || -> std::io::Result<()> {
        let (mut peer, _) = listener.accept()?;
        let piece = vec![7; CHUNK_BYTES];
        (0..BLOB_BYTES / CHUNK_BYTES).try_for_each(|_| peer.write_all(&piece))
    });
    let mut peer = TcpStream::connect(address)?;
    let (mut buffer, mut length) = (vec![0; CHUNK_BYTES], 0);
    loop {
        match peer.read(&mut buffer)? {
            0 => break,
            read => length += read,
        }
    }
    ensure!(length == BLOB_BYTES, "{length} bytes of {BLOB_BYTES}");
    let elapsed = started.elapsed();
    sending
        .join()
        .map_err(|_| anyhow!("the sender panicked"))??;
    Ok(elapsed)
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
