//! Blobs as chunks: SplitBlob and SpliceBlob.

#[path = "../../examples/chunked_upload/counting_proxy.rs"]
mod counting_proxy;
#[path = "../../examples/chunked_upload/edits.rs"]
mod edits;

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use futures::{TryStreamExt as _, stream};
use regatta_cas::{DiskCache, DiskCacheSettings, DiskTier, GrpcBlobStore, put_bytes, read_all};
use regatta_model::Digest;
use regatta_wire::bytestream::{ReadRequest, WriteRequest};
use regatta_wire::reapi;
use regatta_wire::reapi::chunking_function::Value as ChunkingFunction;
use tonic::{Code, Status};

use self::counting_proxy::CountingProxy;
use crate::harness::{Running, connect, noise};

/// The largest and the smallest chunk, the last one aside, of the parameters that are advertised.
const MAX_CHUNK_BYTES: i64 = 2 << 20;
const MIN_CHUNK_BYTES: i64 = 128 << 10;

/// Stores a blob as a whole.
async fn store_large(coordinator: &Running, blob: Bytes) -> Digest {
    let store = GrpcBlobStore::new(coordinator.channel.clone(), "main");
    put_bytes(&store, blob).await.unwrap()
}

async fn read_large(coordinator: &Running, digest: &Digest) -> Bytes {
    let store = GrpcBlobStore::new(coordinator.channel.clone(), "main");
    read_all(&store, digest, u64::MAX).await.unwrap()
}

async fn split(coordinator: &Running, digest: &Digest) -> Result<reapi::SplitBlobResponse, Status> {
    let request = reapi::SplitBlobRequest {
        blob_digest: Some(digest.into()),
        ..Default::default()
    };
    let response = coordinator.cas().split_blob(request).await?;
    Ok(response.into_inner())
}

async fn splice(
    coordinator: &Running,
    blob: &Digest,
    chunks: &[Digest],
) -> Result<reapi::SpliceBlobResponse, Status> {
    let request = reapi::SpliceBlobRequest {
        blob_digest: Some(blob.into()),
        chunk_digests: chunks.iter().map(reapi::Digest::from).collect(),
        ..Default::default()
    };
    let response = coordinator.cas().splice_blob(request).await?;
    Ok(response.into_inner())
}

fn digests(messages: &[reapi::Digest]) -> Vec<Digest> {
    let digests = messages.iter();
    digests
        .map(|digest| Digest::try_from(digest).unwrap())
        .collect()
}

#[tokio::test]
async fn the_chunks_of_a_blob_make_it_up_and_can_be_read() {
    let coordinator = Running::start().await;
    let blob = noise(9_000_000, 1);
    let digest = store_large(&coordinator, blob.clone()).await;
    let first = split(&coordinator, &digest).await.unwrap();
    assert_eq!(first.chunking_function(), ChunkingFunction::FastCdc2020);
    let (_, others) = first.chunk_digests.split_last().unwrap();
    let bounds = MIN_CHUNK_BYTES..=MAX_CHUNK_BYTES;
    assert!(
        others
            .iter()
            .all(|chunk| bounds.contains(&chunk.size_bytes))
    );
    let mut whole = Vec::new();
    for chunk in digests(&first.chunk_digests) {
        whole.extend_from_slice(&read_large(&coordinator, &chunk).await);
    }
    assert!(whole == blob);
    assert_eq!(split(&coordinator, &digest).await.unwrap(), first);
    // What was known is forgotten with the process, and found again.
    let coordinator = Running::start_in(coordinator.stop().await, |_| {}).await;
    assert_eq!(split(&coordinator, &digest).await.unwrap(), first);
}

fn stored_bytes(coordinator: &Running) -> u64 {
    let files = coordinator.stored_files();
    let sizes = files
        .iter()
        .map(|file| std::fs::metadata(file).unwrap().len());
    sizes.sum()
}

/// Uploads a blob as a client does that knows no chunks.
async fn write_whole(coordinator: &Running, blob: &Bytes) {
    const PIECE_BYTES: usize = 1 << 20;
    let name = format!(
        "main/uploads/{}/blobs/{}",
        uuid::Uuid::new_v4(),
        Digest::of(blob)
    );
    let pieces = blob
        .chunks(PIECE_BYTES)
        .enumerate()
        .map(|(at, piece)| WriteRequest {
            resource_name: name.clone(),
            write_offset: i64::try_from(at * PIECE_BYTES).unwrap(),
            finish_write: at * PIECE_BYTES + piece.len() == blob.len(),
            data: Bytes::copy_from_slice(piece),
        });
    let pieces: Vec<WriteRequest> = pieces.collect();
    let written = coordinator.byte_stream().write(stream::iter(pieces)).await;
    written.unwrap();
}

async fn read_part(coordinator: &Running, digest: &Digest, offset: i64, limit: i64) -> Vec<u8> {
    let part = ReadRequest {
        resource_name: format!("main/blobs/{digest}"),
        read_offset: offset,
        read_limit: limit,
    };
    let pieces = coordinator
        .byte_stream()
        .read(part)
        .await
        .unwrap()
        .into_inner();
    let pieces: Vec<_> = pieces.try_collect().await.unwrap();
    pieces
        .iter()
        .flat_map(|piece| piece.data.to_vec())
        .collect()
}

#[tokio::test]
async fn a_blob_that_is_split_or_spliced_is_kept_once_and_stays() {
    const BLOB_BYTES: usize = 9_000_000;
    // What its mapping, and files that are no blobs, may take.
    const OVERHEAD_BYTES: u64 = 100_000;
    let mut coordinator = Running::start().await;
    // One comes as a whole, the other in chunks.
    let whole = noise(BLOB_BYTES, 1);
    write_whole(&coordinator, &whole).await;
    let chunked = noise(BLOB_BYTES, 2);
    store_large(&coordinator, chunked.clone()).await;
    let blobs = [whole, chunked];
    let mut mappings = Vec::new();
    for blob in &blobs {
        mappings.push(split(&coordinator, &Digest::of(blob)).await.unwrap());
    }
    for restarted in [false, true] {
        if restarted {
            coordinator = Running::start_in(coordinator.stop().await, |_| {}).await;
        }
        let stored = stored_bytes(&coordinator);
        assert!(
            stored < 2 * BLOB_BYTES as u64 + OVERHEAD_BYTES,
            "{stored} bytes are stored"
        );
        for (blob, mapping) in blobs.iter().zip(&mappings) {
            let digest = Digest::of(blob);
            assert_eq!(coordinator.missing(&[digest]).await, []);
            assert!(read_large(&coordinator, &digest).await == *blob);
            assert_eq!(split(&coordinator, &digest).await.unwrap(), *mapping);
            let part = read_part(&coordinator, &digest, 4_000_000, 1_000_000).await;
            assert!(part == blob[4_000_000..5_000_000]);
        }
    }
}

#[tokio::test]
async fn a_damaged_chunk_shows_when_the_blob_is_read_and_not_before() {
    let coordinator = Running::start().await;
    let blobs = [noise(9_000_000, 1), noise(9_000_000, 2)];
    let mut mappings = Vec::new();
    for blob in &blobs {
        store_large(&coordinator, blob.clone()).await;
        mappings.push(split(&coordinator, &Digest::of(blob)).await.unwrap());
    }
    let digest = Digest::of(&blobs[0]);
    let chunk = digests(&mappings[0].chunk_digests)[1];
    let files = coordinator.stored_files();
    let is_chunk = |path: &&std::path::PathBuf| path.to_string_lossy().contains(&chunk.hash_hex());
    let file = files.iter().find(is_chunk).unwrap();
    std::fs::write(file, vec![0; usize::try_from(chunk.size_bytes()).unwrap()]).unwrap();
    assert_eq!(split(&coordinator, &digest).await.unwrap(), mappings[0]);
    let store = GrpcBlobStore::new(coordinator.channel.clone(), "main");
    read_all(&store, &digest, u64::MAX).await.unwrap_err();
    assert_eq!(coordinator.missing(&[digest, chunk]).await, [digest, chunk]);
    assert!(read_large(&coordinator, &Digest::of(&blobs[1])).await == blobs[1]);
}

#[tokio::test]
async fn blobs_that_have_much_in_common_share_their_chunks() {
    let coordinator = Running::start().await;
    let before = noise(20_000_000, 1);
    let mut after = before.to_vec();
    after.splice(7_000_000..7_000_100, *b"some other bytes");
    let mut known = HashSet::new();
    let mut new_bytes = Vec::new();
    for blob in [before, after.into()] {
        let digest = store_large(&coordinator, blob).await;
        let chunks = digests(&split(&coordinator, &digest).await.unwrap().chunk_digests);
        let new = chunks.into_iter().filter(|chunk| known.insert(*chunk));
        new_bytes.push(new.map(|chunk| chunk.size_bytes()).sum::<u64>());
    }
    // The chunk that was edited and, if a cut went with it, the next.
    assert!(new_bytes[1] <= 4 << 20, "{new_bytes:?}");
}

#[tokio::test]
async fn short_blobs_are_their_own_only_chunk() {
    let coordinator = Running::start().await;
    let short = coordinator.store("short").await;
    let response = split(&coordinator, &short).await.unwrap();
    assert_eq!(digests(&response.chunk_digests), [short]);
    // The empty blob is always there, and has no part.
    let response = split(&coordinator, &Digest::EMPTY).await.unwrap();
    assert_eq!(digests(&response.chunk_digests), []);
}

#[tokio::test]
async fn what_cannot_be_split_says_why() {
    let coordinator = Running::start().await;
    let absent = Digest::of(b"absent");
    let refused = split(&coordinator, &absent).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound, "{refused}");
    let huge = Digest::new([1; 32], u64::try_from(i64::MAX).unwrap());
    let refused = split(&coordinator, &huge).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound, "{refused}");
    assert!(
        refused.message().contains("read it as a whole"),
        "{refused}"
    );
    let mut request = reapi::SplitBlobRequest::default();
    let refused = coordinator.cas().split_blob(request.clone()).await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
    request.blob_digest = Some(absent.into());
    request.digest_function = 9;
    let refused = coordinator.cas().split_blob(request).await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test]
async fn chunks_become_a_blob_in_their_order() {
    let coordinator = Running::start().await;
    let (a, b) = (
        coordinator.store("one ").await,
        coordinator.store("two ").await,
    );
    let blob = b"one two one ";
    let digest = Digest::of(blob);
    let spliced = splice(&coordinator, &digest, &[a, b, a]).await.unwrap();
    assert_eq!(digests(spliced.blob_digest.as_slice()), [digest]);
    assert_eq!(read_large(&coordinator, &digest).await, blob[..]);
    // Again is as good, also after a restart, and of other chunks that are there.
    assert_eq!(
        splice(&coordinator, &digest, &[a, b, a]).await.unwrap(),
        spliced
    );
    assert_eq!(
        splice(&coordinator, &digest, &[digest]).await.unwrap(),
        spliced
    );
    // Chunks of unusual sizes are not what others are told.
    let response = split(&coordinator, &digest).await.unwrap();
    assert_eq!(digests(&response.chunk_digests), [digest]);
    let nothing = splice(&coordinator, &Digest::EMPTY, &[]).await.unwrap();
    assert_eq!(digests(nothing.blob_digest.as_slice()), [Digest::EMPTY]);
    let emptiness = [Digest::EMPTY, Digest::EMPTY];
    splice(&coordinator, &Digest::EMPTY, &emptiness)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_spliced_blob_is_remembered_as_it_was_cut() {
    let coordinator = Running::start().await;
    let parts = [noise(1_200_000, 1), noise(1_300_000, 2), noise(10, 3)];
    let mut chunks = Vec::new();
    for part in &parts {
        chunks.push(coordinator.store(part.clone()).await);
    }
    let digest = Digest::of(&parts.concat());
    splice(&coordinator, &digest, &chunks).await.unwrap();
    let response = split(&coordinator, &digest).await.unwrap();
    assert_eq!(digests(&response.chunk_digests), chunks);
    assert_eq!(response.chunking_function(), ChunkingFunction::Unknown);
}

/// A blob that is kept as chunks has chunks that are there as wholes, whatever was spliced before.
#[tokio::test]
async fn what_was_spliced_may_be_a_chunk_itself() {
    let coordinator = Running::start().await;
    let halves = [noise(500_000, 1), noise(500_000, 2)];
    let rest = noise(1_900_000, 3);
    let chunk = Bytes::from(halves.concat());
    let parts = [
        coordinator.store(halves[0].clone()).await,
        coordinator.store(halves[1].clone()).await,
    ];
    let digest = Digest::of(&chunk);
    splice(&coordinator, &digest, &parts).await.unwrap();
    let blob = Bytes::from([&chunk[..], &rest].concat());
    let whole = Digest::of(&blob);
    let chunks = [digest, coordinator.store(rest).await];
    splice(&coordinator, &whole, &chunks).await.unwrap();
    assert_eq!(coordinator.missing(&[digest, whole]).await, []);
    assert!(read_large(&coordinator, &whole).await == blob);
}

#[tokio::test]
async fn an_empty_chunk_is_none() {
    let coordinator = Running::start().await;
    let parts = [noise(1_500_000, 1), noise(1_000_000, 2)];
    let blob = Bytes::from(parts.concat());
    let mut chunks = vec![Digest::EMPTY];
    for part in parts {
        chunks.extend([coordinator.store(part).await, Digest::EMPTY]);
    }
    let digest = Digest::of(&blob);
    splice(&coordinator, &digest, &chunks).await.unwrap();
    assert_eq!(coordinator.missing(&[digest]).await, []);
    assert!(read_large(&coordinator, &digest).await == blob);
}

#[tokio::test]
async fn what_cannot_be_spliced_becomes_no_blob() {
    let coordinator = Running::start().await;
    let (a, b) = (
        coordinator.store("one ").await,
        coordinator.store("two ").await,
    );
    let (blob, absent) = (Digest::of(b"one two "), Digest::of(b"gone"));
    let wrong_size = Digest::new(*blob.hash(), 9);
    let largest = Digest::new([1; 32], 1 << 40);
    let too_many = vec![Digest::EMPTY; 50_001];
    let cases: [(&str, Digest, &[Digest], Code); 8] = [
        ("wrong order", blob, &[b, a], Code::InvalidArgument),
        ("missing chunk", blob, &[a, absent], Code::NotFound),
        ("too short", blob, &[a], Code::InvalidArgument),
        ("wrong size", wrong_size, &[a, b], Code::InvalidArgument),
        ("nothing", blob, &[], Code::InvalidArgument),
        ("too many", Digest::EMPTY, &too_many, Code::InvalidArgument),
        ("too large", largest, &[largest], Code::InvalidArgument),
        ("itself", blob, &[blob], Code::NotFound),
    ];
    for (name, digest, chunks, code) in cases {
        let refused = splice(&coordinator, &digest, chunks).await.unwrap_err();
        assert_eq!(refused.code(), code, "{name}: {refused}");
    }
    assert_eq!(coordinator.missing(&[blob]).await, [blob]);
    let refused = splice(&coordinator, &blob, &[a, absent]).await.unwrap_err();
    assert!(refused.message().contains(&absent.to_string()), "{refused}");
    splice(&coordinator, &blob, &[a, b]).await.unwrap();
    // The blob is there by now, whatever is missing; nothing is promised of these chunks.
    let refused = splice(&coordinator, &blob, &[a, absent]).await.unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists, "{refused}");
}

#[tokio::test]
async fn malformed_chunks_are_refused() {
    let coordinator = Running::start().await;
    let bad = reapi::Digest {
        hash: "ABC".to_owned(),
        size_bytes: 0,
    };
    let good = reapi::SpliceBlobRequest {
        blob_digest: Some(Digest::EMPTY.into()),
        ..Default::default()
    };
    let cases = [
        (
            "chunk_digests[0]",
            reapi::SpliceBlobRequest {
                chunk_digests: vec![bad.clone()],
                ..good.clone()
            },
        ),
        (
            "blob_digest",
            reapi::SpliceBlobRequest {
                blob_digest: Some(bad),
                ..good.clone()
            },
        ),
        (
            "blob_digest",
            reapi::SpliceBlobRequest {
                blob_digest: None,
                ..good.clone()
            },
        ),
        (
            "digest_function",
            reapi::SpliceBlobRequest {
                digest_function: 9,
                ..good.clone()
            },
        ),
    ];
    for (field, request) in cases {
        let refused = coordinator.cas().splice_blob(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().starts_with(field), "{refused}");
    }
    // A function that is not known here is not refused: the digest alone decides.
    let other = reapi::SpliceBlobRequest {
        chunking_function: 77,
        ..good
    };
    coordinator.cas().splice_blob(other).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_that_changed_a_little_costs_little() {
    const FILE_BYTES: usize = 40_000_000;
    let coordinator = Running::start().await;
    let proxy = CountingProxy::start(coordinator.address).await.unwrap();
    let store = GrpcBlobStore::new(connect(proxy.address()).await, "main");
    let file = edits::noise(FILE_BYTES, 1);
    // One place costs its own bytes and a chunk at each end; chunks are 512 KiB on average.
    let versions = [
        (file.clone(), FILE_BYTES * 101 / 100),
        (edits::edited(&file, 1, 2), 4_000_000),
        (edits::edited(&file, 10, 3), 15_000_000),
    ];
    let mut most_stored = 0;
    for (version, most) in versions {
        let digest = put_bytes(&store, version.clone().into()).await.unwrap();
        let sent = proxy.take_sent_bytes();
        assert!(sent <= most as u64, "{sent} bytes sent, {most} expected");
        assert!(read_large(&coordinator, &digest).await == version);
        most_stored += most as u64;
        let stored = stored_bytes(&coordinator);
        assert!(
            stored <= most_stored,
            "{stored} bytes are stored, {most_stored} expected"
        );
    }
}

/// Where an agent keeps the files of its jobs.
async fn files_of(proxy: &CountingProxy, directory: &std::path::Path) -> DiskTier {
    let cache = DiskCache::open(DiskCacheSettings {
        directory: directory.to_owned(),
        capacity_bytes: u64::MAX,
        min_free_bytes: 0,
    });
    let server = Arc::new(GrpcBlobStore::new(connect(proxy.address()).await, "main"));
    let tier = cache
        .unwrap()
        .tier(Arc::clone(&server) as _, &Digest::of(b"main"));
    tier.with_chunks(server)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_that_changed_a_little_costs_an_agent_little() {
    const FILE_BYTES: usize = 40_000_000;
    let coordinator = Running::start().await;
    let proxy = CountingProxy::start(coordinator.address).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let files = files_of(&proxy, directory.path()).await;
    let file = edits::noise(FILE_BYTES, 1);
    let versions = [
        (file.clone(), FILE_BYTES * 101 / 100),
        (edits::edited(&file, 1, 2), 4_000_000),
        (edits::edited(&file, 10, 3), 15_000_000),
    ];
    let mut paths = Vec::new();
    for (version, most) in versions {
        let digest = store_large(&coordinator, version.clone().into()).await;
        proxy.take_received_bytes();
        let pinned = files.file(&digest, true).await.unwrap();
        let received = proxy.take_received_bytes();
        assert!(
            received <= most as u64,
            "{received} bytes received, {most} expected"
        );
        assert!(std::fs::read(pinned.path()).unwrap() == version);
        paths.push(pinned.path().to_owned());
    }
    // A file that decayed without showing it costs a little more, and nothing wrong.
    use std::os::unix::fs::PermissionsExt as _;
    for path in paths {
        let metadata = std::fs::metadata(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(&path, vec![0; usize::try_from(metadata.len()).unwrap()]).unwrap();
        std::fs::set_permissions(&path, metadata.permissions()).unwrap();
        let times = std::fs::FileTimes::new().set_modified(metadata.modified().unwrap());
        std::fs::File::open(&path)
            .unwrap()
            .set_times(times)
            .unwrap();
    }
    let version = edits::edited(&file, 1, 4);
    let digest = store_large(&coordinator, version.clone().into()).await;
    let pinned = files.file(&digest, false).await.unwrap();
    assert!(std::fs::read(pinned.path()).unwrap() == version);
}
