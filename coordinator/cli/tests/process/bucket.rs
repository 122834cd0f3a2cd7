//! A coordinator whose blobs are in a bucket of a real S3 server, behind a network that fails.

use std::future::Future;
use std::time::Instant;

use bytes::Bytes;
use prost::Message as _;
use regatta_model::Digest;
use regatta_wire::bytestream::WriteRequest;
use regatta_wire::bytestream::byte_stream_client::ByteStreamClient;
use regatta_wire::reapi::batch_update_blobs_request::Request as BlobToStore;
use regatta_wire::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use regatta_wire::{reapi, rpc};
use tonic::Code;
use tonic::transport::Channel;

use super::faulty_proxy::{Concerned, Fault, FaultyProxy};
use super::fleet::Fleet;
use super::garage::{ACCESS_KEY, BUCKET, GarageServer, REGION, SECRET_KEY};
use super::program::{Ended, PATIENCE, Running, write};

/// More often than anybody asks.
const ALWAYS: usize = usize::MAX;
/// A blob that goes into the bucket in parts, in bytes.
const LARGE: usize = 12 << 20;
/// How much of one a message has, in bytes.
const PIECE: usize = 1 << 20;

const PIPELINE: &str = "[jobs.check]\ninputs = [\"input\"]\nrun = \"cat input\"\n";

/// A fleet that reaches its bucket through a proxy.
struct Place {
    fleet: Fleet,
    proxy: FaultyProxy,
    _server: GarageServer,
}

impl Place {
    async fn new() -> Self {
        let server = GarageServer::start();
        let proxy = FaultyProxy::before(server.address()).await;
        let endpoint = format!("http://{}", proxy.address());
        let environment = [
            ("AWS_ENDPOINT", endpoint.as_str()),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_REGION", REGION),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
        ];
        let url = format!("s3://{BUCKET}/regatta");
        let fleet =
            tokio::task::block_in_place(|| Fleet::told_in(&environment, &["--storage", &url]));
        Self {
            fleet,
            proxy,
            _server: server,
        }
    }

    async fn channel(&self) -> Channel {
        let address = self.fleet.url().replacen("grpc", "http", 1);
        let endpoint = Channel::from_shared(address).expect("an address");
        endpoint.connect().await.expect("it listens")
    }

    async fn cas(&self) -> ContentAddressableStorageClient<Channel> {
        ContentAddressableStorageClient::new(self.channel().await)
    }

    /// What storing a small blob comes to.
    async fn store(&self, data: &Bytes) -> rpc::Status {
        let request = reapi::BatchUpdateBlobsRequest {
            requests: vec![BlobToStore {
                digest: Some((&Digest::of(data)).into()),
                data: data.clone(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let answer = self.cas().await.batch_update_blobs(request).await;
        let mut answer = answer.expect("an answer for each blob").into_inner();
        answer.responses.remove(0).status.expect("a status")
    }

    async fn is_missing(&self, digest: &Digest) -> Result<bool, tonic::Status> {
        let request = reapi::FindMissingBlobsRequest {
            blob_digests: vec![digest.into()],
            ..Default::default()
        };
        let answer = self.cas().await.find_missing_blobs(request).await?;
        Ok(!answer.into_inner().missing_blob_digests.is_empty())
    }

    /// Uploads a blob as a stream.
    async fn upload(&self, data: &Bytes) -> Result<i64, tonic::Status> {
        let digest = Digest::of(data);
        let name = format!("uploads/{}/blobs/{digest}", uuid::Uuid::new_v4());
        let pieces: Vec<_> = (0..data.len().div_ceil(PIECE))
            .map(|at| WriteRequest {
                resource_name: if at == 0 { name.clone() } else { String::new() },
                write_offset: i64::try_from(at * PIECE).expect("small"),
                finish_write: (at + 1) * PIECE >= data.len(),
                data: data.slice(at * PIECE..((at + 1) * PIECE).min(data.len())),
            })
            .collect();
        let mut client = ByteStreamClient::new(self.channel().await);
        let answer = client.write(tokio_stream::iter(pieces)).await?;
        Ok(answer.into_inner().committed_size)
    }

    fn begin(&self, project: &tempfile::TempDir) -> Running {
        let mut run = self.fleet.command();
        run.current_dir(project.path())
            .args(["--message-format", "json", "run"]);
        Running::begin(&mut run)
    }

    async fn run(&self, project: &tempfile::TempDir) -> Ended {
        tokio::task::block_in_place(|| self.begin(project).end())
    }
}

/// Bytes that compress badly and are nobody else's.
fn noise(length: usize) -> Bytes {
    let mut state = uuid::Uuid::new_v4().as_u64_pair().1 | 1;
    let next = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    });
    next.take(length).collect()
}

#[track_caller]
fn expect_come_back(status: &rpc::Status) {
    assert_eq!(status.code, i32::from(Code::Unavailable), "{status:?}");
    let mut infos = status
        .details
        .iter()
        .filter_map(|detail| detail.to_msg::<rpc::RetryInfo>().ok());
    assert!(
        infos.next().is_some_and(|info| info.retry_delay.is_some()),
        "{status:?}"
    );
}

#[track_caller]
fn expect_told_to_come_back<T: std::fmt::Debug>(answer: Result<T, tonic::Status>) {
    let status = answer.expect_err("nothing can be stored");
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    expect_come_back(&rpc::Status::decode(status.details()).expect("details"));
}

/// Asks until it is so; what is asked takes its time.
async fn until<Asked: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> Asked) {
    let deadline = Instant::now() + PATIENCE;
    while !ask().await {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
    }
}

fn project() -> tempfile::TempDir {
    let project = tempfile::tempdir().expect("a directory");
    let input = uuid::Uuid::new_v4().to_string();
    write(
        project.path(),
        &[("regatta.toml", PIPELINE), ("input", &input)],
    );
    project
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_a_bucket_outlives_its_coordinator() {
    let mut place = Place::new().await;
    let project = project();
    place.run(&project).await.expect_code(0);
    let large = noise(LARGE);
    assert_eq!(place.upload(&large).await.expect("room"), LARGE as i64);
    // One more upload is on its way to the bucket when the coordinator is killed.
    let lost = noise(LARGE);
    let part = Concerned {
        method: "PUT",
        path_has: "partNumber=2",
    };
    place.proxy.spoil(Fault::Hang, part, ALWAYS);
    {
        let upload = place.upload(&lost);
        let reached = until("a part is on its way", || async {
            place.proxy.applied() > 0 || {
                tokio::task::yield_now().await;
                false
            }
        });
        tokio::select! {
            ended = upload => panic!("it cannot end: {ended:?}"),
            () = reached => {}
        }
    }
    let address = place.fleet.url().trim_start_matches("grpc://").to_owned();
    tokio::task::block_in_place(|| {
        place.fleet.kill_coordinator();
        place.proxy.heal();
        place.fleet.start_coordinator(&address);
    });
    assert!(
        !place
            .is_missing(&Digest::of(&large))
            .await
            .expect("an answer")
    );
    assert!(
        place
            .is_missing(&Digest::of(&lost))
            .await
            .expect("an answer")
    );
    assert_eq!(place.upload(&lost).await.expect("room"), LARGE as i64);
    let again = place.run(&project).await;
    let leases = &again.expect_code(0).finished()["leases"];
    assert_eq!(leases, 0, "all is known: {again:#?}");
    tokio::task::block_in_place(|| place.fleet.stop());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_fails_is_told_of_and_recovered_from() {
    let place = Place::new().await;
    let kept = noise(1000);
    assert_eq!(place.store(&kept).await.code, 0);
    for fault in [Fault::Status(503), Fault::Reset, Fault::LoseAnswer] {
        place.proxy.spoil(fault, Concerned::ALL, ALWAYS);
        let (small, large, project) = (noise(1000), noise(LARGE), project());
        let begun = Instant::now();
        expect_come_back(&place.store(&small).await);
        expect_told_to_come_back(place.upload(&large).await);
        // What is small is in packs, and known of for some seconds without asking.
        expect_told_to_come_back(place.is_missing(&Digest::of(&noise(LARGE))).await);
        assert!(
            begun.elapsed() < PATIENCE,
            "{fault:?}: {:?}",
            begun.elapsed()
        );
        // Whoever uploads waits for it, says why, and gives up in the end.
        let mut run = place.begin(&project);
        tokio::task::block_in_place(|| run.expect_words("they are offered again"));
        let waits_in_vain = fault == Fault::Status(503);
        if !waits_in_vain {
            place.proxy.heal();
        }
        let ended = tokio::task::block_in_place(|| run.end());
        if waits_in_vain {
            assert_ne!(ended.code, Some(0), "{fault:?}: {ended:#?}");
            ended.expect_complaint(&["took no files", "run this again"]);
            place.proxy.heal();
        } else {
            ended.expect_code(0);
        }
        assert!(ended.stderr.contains("s3://"), "{fault:?}: {ended:#?}");
        until("it takes blobs again", || async {
            place.store(&small).await.code == 0
        })
        .await;
        assert_eq!(place.upload(&large).await.expect("room"), LARGE as i64);
        place.run(&project).await.expect_code(0);
        assert!(
            !place
                .is_missing(&Digest::of(&kept))
                .await
                .expect("an answer")
        );
    }
    let (_, metrics) = tokio::task::block_in_place(|| place.fleet.page("/metrics"));
    for name in [
        "regatta_object_store_repeats_total",
        "regatta_object_store_away",
    ] {
        assert!(metrics.contains(name), "{metrics}");
    }
    tokio::task::block_in_place(|| place.fleet.stop());
}
