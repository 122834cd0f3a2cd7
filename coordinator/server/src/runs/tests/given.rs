//! Verdicts that were given, as they are kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::TryStreamExt as _;
use regatta_cas::{
    BlobRange, BlobStore, BlobStream, Durability, ListedBlobStore as _, MemoryBlobStore, StoreError,
};
use regatta_ledger::{Forgetting, Ledger};
use regatta_model::{Digest, RunId};
use regatta_verdict::{PublicKey, verify_bundle};
use regatta_wire::v1;
use regatta_wire::v1::get_verdict_request::Subject;
use regatta_wire::v1::list_verdicts_request::Subject as Listed;
use tonic::{Code, Status};

use super::fixture::{Fixture, libtest, spec};
use super::{FullLedger, all_pass};
use crate::runs::now;

const COMMIT: &str = "0123456789012345678901234567890123456789";

/// A run of one suite, and whether its files differ from the commit.
async fn ended_run(fixture: &Fixture, dirty: bool) -> String {
    let run = fixture.submit(v1::RunSpec {
        commit: COMMIT.to_owned(),
        dirty,
        ..spec(vec![libtest("unit")])
    });
    let run = run.await;
    fixture.finish(&run).await;
    run
}

/// What is said, and why it is not kept if it is not.
async fn given(fixture: &Fixture, subject: Subject) -> Result<(String, String), Status> {
    let request = v1::GetVerdictRequest {
        instance_name: String::new(),
        subject: Some(subject),
    };
    let pieces = fixture.runs().get_verdict(request).await?.into_inner();
    let pieces: Vec<_> = pieces.try_collect().await?;
    let unkept = pieces.iter().map(|piece| piece.unkept_reason.as_str());
    let bytes = pieces.iter().flat_map(|piece| piece.data.to_vec());
    let bundle = String::from_utf8(bytes.collect()).expect("is text");
    Ok((bundle, unkept.collect()))
}

fn of_commit() -> Subject {
    Subject::Commit(COMMIT.to_owned())
}

fn digest_of(bundle: &str) -> Digest {
    Digest::of(bundle.as_bytes())
}

async fn listed(fixture: &Fixture, subject: Listed) -> Vec<v1::GivenVerdict> {
    let request = v1::ListVerdictsRequest {
        instance_name: String::new(),
        subject: Some(subject),
        limit: 0,
    };
    let answer = fixture.runs().list_verdicts(request).await;
    answer.expect("are listed").into_inner().verdicts
}

fn bundles(listed: &[v1::GivenVerdict]) -> Vec<Digest> {
    let bundles = listed.iter().filter_map(|it| it.bundle.as_ref());
    bundles
        .map(|it| it.try_into().expect("is a digest"))
        .collect()
}

#[tokio::test]
async fn a_verdict_is_kept_as_it_was_given() {
    let fixture = Fixture::start().await;
    let _agent = fixture.agent("a", all_pass(3));
    assert_eq!(
        listed(&fixture, Listed::Commit(COMMIT.to_owned())).await,
        []
    );
    let run = ended_run(&fixture, false).await;
    let (bundle, unkept) = given(&fixture, of_commit()).await.expect("is given");
    assert_eq!(unkept, "");
    for _ in 0..2 {
        let again = given(&fixture, Subject::RunId(run.clone())).await;
        assert_eq!(again.expect("is given").0, bundle, "it is the same");
    }
    let once = listed(&fixture, Listed::Commit(COMMIT.to_owned())).await;
    let [kept] = &once[..] else {
        panic!("{once:?}")
    };
    assert_eq!(bundles(&once), [digest_of(&bundle)]);
    assert_eq!(
        (kept.verdict(), &kept.run_id),
        (v1::Verdict::Releasable, &run)
    );
    assert_eq!((kept.commit.as_str(), kept.is_gone), (COMMIT, false));
    let time = |time: &Option<prost_types::Timestamp>| time.map(|it| (it.seconds, it.nanos));
    let times = [&kept.first_given_at, &kept.last_given_at].map(time);
    assert!(None < times[0] && times[0] < times[1], "{kept:?}");

    // Of changed files nothing is said of the commit, nor kept as if it was.
    let dirty = ended_run(&fixture, true).await;
    given(&fixture, Subject::RunId(dirty.clone()))
        .await
        .expect("is given");
    assert_eq!(
        listed(&fixture, Listed::Commit(COMMIT.to_owned()))
            .await
            .len(),
        1
    );
    let of_dirty = listed(&fixture, Listed::RunId(dirty)).await;
    assert_eq!((of_dirty.len(), of_dirty[0].commit.as_str()), (1, ""));

    // Whoever comes after it signs with another key, and what was signed is had as it was.
    let successor = fixture.heir(Arc::clone(&fixture.ledger)).await;
    let (anew, _) = given(&successor, of_commit()).await.expect("is given");
    assert_ne!(anew, bundle);
    let both = listed(&successor, Listed::Commit(COMMIT.to_owned())).await;
    assert_eq!(bundles(&both), [digest_of(&anew), digest_of(&bundle)]);
    let key = PublicKey::from_pem(&both[1].public_key).expect("is a key");
    let earlier = Subject::Bundle(digest_of(&bundle).into());
    let (earlier, _) = given(&successor, earlier).await.expect("is there");
    assert_eq!(earlier, bundle);
    let verified = verify_bundle(&earlier, &key).expect("is signed");
    assert_eq!(verified.commit(), Some(COMMIT));
    assert!(verify_bundle(&anew, &key).is_err());
}

#[tokio::test]
async fn a_verdict_that_is_gone_is_said_to_have_been_given() {
    let fixture = Fixture::start().await;
    let _agent = fixture.agent("a", all_pass(1));
    ended_run(&fixture, false).await;
    let (bundle, _) = given(&fixture, of_commit()).await.expect("is given");
    let digest = digest_of(&bundle);
    let never = given(&fixture, Subject::Bundle(digest_of("another").into())).await;
    let never = never.expect_err("was not given");
    assert_eq!(never.code(), Code::NotFound);
    assert!(
        never.message().contains("was given to this tenant"),
        "{never}"
    );
    fixture.blobs.delete(&digest).await.expect("is deleted");
    let listed = listed(&fixture, Listed::Commit(COMMIT.to_owned())).await;
    assert_eq!((bundles(&listed), listed[0].is_gone), (vec![digest], true));
    let gone = given(&fixture, Subject::Bundle(digest.into())).await;
    let gone = gone.expect_err("is gone");
    assert_eq!(gone.code(), Code::NotFound);
    assert!(gone.message().contains("is stored no longer"), "{gone}");
    // It is the same again.
    let (again, unkept) = given(&fixture, of_commit()).await.expect("is given");
    assert_eq!((again, unkept.as_str()), (bundle, ""));
    assert_eq!(
        fixture.blobs.find_missing(&[digest]).await.expect("asked"),
        []
    );
}

#[tokio::test]
async fn a_verdict_is_given_though_the_ledger_is_full_and_says_so() {
    let ledger = Arc::new(FullLedger::for_reservations());
    ledger.make_room();
    let fixture = Fixture::with_ledger(Arc::clone(&ledger) as _).await;
    let _agent = fixture.agent("a", all_pass(1));
    ended_run(&fixture, false).await;
    ledger.fill();
    let (bundle, unkept) = given(&fixture, of_commit()).await.expect("is given");
    assert!(unkept.contains("database or disk is full"), "{unkept}");
    assert_eq!(
        listed(&fixture, Listed::Commit(COMMIT.to_owned())).await,
        []
    );
    ledger.make_room();
    let again = given(&fixture, of_commit()).await.expect("is given");
    assert_eq!(again, (bundle, String::new()));
    assert_eq!(
        listed(&fixture, Listed::Commit(COMMIT.to_owned()))
            .await
            .len(),
        1
    );
}

/// Has room for nothing.
#[derive(Debug)]
struct FullStore;

#[async_trait]
impl BlobStore for FullStore {
    async fn get(&self, digest: &Digest, _: BlobRange) -> Result<BlobStream, StoreError> {
        Err(StoreError::NotFound { digest: *digest })
    }

    async fn put(&self, _: &Digest, _: BlobStream) -> Result<(), StoreError> {
        Err(StoreError::Full {
            detail: "as the test has it".to_owned(),
        })
    }

    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        Ok(digests.to_vec())
    }

    async fn delete(&self, _: &Digest) -> Result<(), StoreError> {
        Ok(())
    }
}

#[tokio::test]
async fn what_cannot_be_stored_is_not_said_to_be_kept() {
    let fixture = Fixture::keeping_verdicts_in(Arc::new(FullStore), None).await;
    let _agent = fixture.agent("a", all_pass(1));
    ended_run(&fixture, false).await;
    let (bundle, unkept) = given(&fixture, of_commit()).await.expect("is given");
    assert!(bundle.ends_with('\n'), "{bundle}");
    assert!(
        unkept.contains("its bundle could not be stored"),
        "{unkept}"
    );
    assert_eq!(
        listed(&fixture, Listed::Commit(COMMIT.to_owned())).await,
        []
    );
    let query = regatta_ledger::VerdictQuery {
        limit: 9,
        ..Default::default()
    };
    assert_eq!(fixture.ledger.find_verdicts(query).await, Ok(Vec::new()));
}

/// A disk that takes what is stored, or does not.
#[derive(Debug, Default)]
struct Disk {
    store: Arc<MemoryBlobStore>,
    is_broken: AtomicBool,
    /// What was stored when it was written to last.
    safe: std::sync::Mutex<Vec<Digest>>,
}

#[async_trait]
impl Durability for Disk {
    async fn settle(&self) -> Result<(), StoreError> {
        if self.is_broken.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable {
                detail: "as the test has it".to_owned(),
            });
        }
        let stored: Vec<Digest> = self.store.list().try_collect().await?;
        *self.safe.lock().expect("no panic") = stored;
        Ok(())
    }
}

#[tokio::test]
async fn a_verdict_is_kept_once_no_loss_of_power_takes_its_bundle() {
    let disk = Arc::new(Disk::default());
    disk.is_broken.store(true, Ordering::Relaxed);
    let durability: Arc<dyn Durability> = Arc::clone(&disk) as _;
    let fixture =
        Fixture::keeping_verdicts_in(Arc::clone(&disk.store) as _, Some(durability)).await;
    let _agent = fixture.agent("a", all_pass(1));
    ended_run(&fixture, false).await;
    let kept = async || bundles(&listed(&fixture, Listed::Commit(COMMIT.to_owned())).await);
    let (bundle, unkept) = given(&fixture, of_commit()).await.expect("is given");
    assert!(!unkept.is_empty(), "it may be lost");
    assert_eq!(kept().await, []);
    // It is stored by now, and not safe all the same.
    disk.is_broken.store(false, Ordering::Relaxed);
    let (again, unkept) = given(&fixture, of_commit()).await.expect("is given");
    assert_eq!((again == bundle, unkept.as_str()), (true, ""));
    assert_eq!(kept().await, [digest_of(&bundle)]);
    let safe = disk.safe.lock().expect("no panic").clone();
    assert!(safe.contains(&digest_of(&bundle)));
}

/// A disk on which the run goes from the ledger while a verdict of it is written.
#[derive(Debug, Default)]
struct ForgettingDisk {
    of: std::sync::Mutex<Option<(Arc<dyn Ledger>, RunId)>>,
}

#[async_trait]
impl Durability for ForgettingDisk {
    async fn settle(&self) -> Result<(), StoreError> {
        let of = self.of.lock().expect("no panic").take();
        if let Some((ledger, run)) = of {
            let step = Forgetting::Run {
                run,
                ended_before: now() + Duration::from_secs(60),
                verdicts_since: now(),
                now: now(),
            };
            ledger.forget(step).await.expect("is done");
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_verdict_whose_run_goes_meanwhile_is_given_and_never_listed() {
    let disk = Arc::new(ForgettingDisk::default());
    let store = Arc::new(MemoryBlobStore::new());
    let fixture = Fixture::keeping_verdicts_in(store, Some(Arc::clone(&disk) as _)).await;
    let _agent = fixture.agent("a", all_pass(1));
    let run = ended_run(&fixture, false).await;
    let gone = (Arc::clone(&fixture.ledger), run.parse().expect("is an id"));
    *disk.of.lock().expect("no panic") = Some(gone);
    let (bundle, unkept) = given(&fixture, of_commit()).await.expect("is given");
    assert!(bundle.ends_with('\n'), "{bundle}");
    assert!(unkept.contains("no longer kept"), "{unkept}");
    assert_eq!(
        listed(&fixture, Listed::Commit(COMMIT.to_owned())).await,
        []
    );
    assert_eq!(listed(&fixture, Listed::RunId(run)).await, []);
}
