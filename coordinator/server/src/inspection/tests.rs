use bytes::Bytes;
use regatta_cas::{ChunkMapping, put_bytes, stream_of};
use regatta_wire::reapi::chunking_function::Value as ChunkingFunction;
use regatta_wire::reapi::{ActionResult, OutputFile};

use super::*;
use crate::action_cache::seal_for_tests;
use crate::retention::note_storage;

struct Fixture {
    state: tempfile::TempDir,
    location: StoreLocation,
}

fn fixture() -> Fixture {
    let state = tempfile::tempdir().unwrap();
    // What a coordinator leaves.
    drop(StateDirectory::take(state.path()).unwrap());
    std::fs::create_dir(state.path().join("uploads")).unwrap();
    std::fs::create_dir(state.path().join("cas")).unwrap();
    std::fs::write(state.path().join("ledger.sqlite"), "").unwrap();
    let location = StoreLocation {
        state_directory: state.path().to_owned(),
        storage: None,
        ledger: None,
    };
    Fixture { state, location }
}

impl Fixture {
    fn store(&self) -> Inspection {
        Inspection::open(&self.location).unwrap()
    }

    fn file(&self, kind: Kind, digest: &Digest) -> PathBuf {
        let hash = digest.hash_hex();
        let name = format!("{hash}-{}", digest.size_bytes());
        self.state
            .path()
            .join(kind.place())
            .join(&hash[..2])
            .join(name)
    }
}

fn result_of(digest: Digest) -> ActionResult {
    ActionResult {
        output_files: vec![OutputFile {
            path: "out".to_owned(),
            digest: Some(digest.into()),
            ..OutputFile::default()
        }],
        ..ActionResult::default()
    }
}

fn large(fill: u8) -> Bytes {
    Bytes::from(vec![fill; 3 << 20])
}

/// A store with one of everything that is right.
async fn filled(fixture: &Fixture) -> (Digest, Digest, Digest) {
    let store = fixture.store();
    let blob = put_bytes(store.objects.of(Kind::Blob).as_ref(), "a blob".into())
        .await
        .unwrap();
    let chunks = [1, 2].map(large);
    let whole = Digest::of(&chunks.concat());
    for chunk in chunks.clone() {
        put_bytes(store.objects.of(Kind::Blob).as_ref(), chunk)
            .await
            .unwrap();
    }
    let mapping = ChunkMapping {
        chunks: chunks.iter().map(|chunk| Digest::of(chunk)).collect(),
        function: ChunkingFunction::FastCdc2020,
    };
    store
        .chunked
        .keep_as_chunks(&whole, &mapping)
        .await
        .unwrap();
    let key = Digest::of(b"an action");
    let sealed = seal_for_tests(&result_of(blob));
    store
        .objects
        .of(Kind::Result)
        .put(&key, stream_of(sealed))
        .await
        .unwrap();
    (blob, whole, key)
}

#[tokio::test]
async fn what_is_right_is_left_alone() {
    let fixture = fixture();
    filled(&fixture).await;
    for repair in [false, true] {
        let report = verify_store(&fixture.location, repair).await.unwrap();
        assert_eq!(report.faults, []);
        assert_eq!(
            (report.blobs, report.chunked_blobs, report.results),
            (3, 1, 1)
        );
        assert_eq!(report.bytes, 6 + (6 << 20));
    }
}

#[tokio::test]
async fn what_is_wrong_is_said_and_removed_when_asked() {
    let fixture = fixture();
    let (blob, whole, key) = filled(&fixture).await;
    std::fs::write(fixture.file(Kind::Blob, &blob), "another").unwrap();
    let chunk = Digest::of(&large(2));
    std::fs::remove_file(fixture.file(Kind::Blob, &chunk)).unwrap();
    let damaged = Digest::of(b"another action");
    let store = fixture.store();
    store
        .objects
        .of(Kind::Result)
        .put(&damaged, stream_of("no entry".into()))
        .await
        .unwrap();
    store
        .objects
        .of(Kind::Asset)
        .put(&damaged, stream_of("no asset".into()))
        .await
        .unwrap();
    let leftover = fixture.state.path().join("uploads/left");
    std::fs::write(&leftover, "half").unwrap();
    let faults = |report: &StoreReport| {
        let faults = report.faults.iter().map(|fault| (fault.kind, fault.digest));
        let mut faults: Vec<_> = faults.collect();
        faults.sort_unstable();
        faults
    };
    let report = verify_store(&fixture.location, false).await.unwrap();
    let mut expected = vec![
        ("asset", damaged),
        ("blob", blob),
        ("chunked-blob", whole),
        ("result", damaged),
        // Its blob counts as absent, for its size is wrong.
        ("result", key),
    ];
    expected.sort_unstable();
    assert_eq!(faults(&report), expected);
    assert!(!report.is_good());
    assert_eq!(report.leftovers, std::slice::from_ref(&leftover));
    assert!(leftover.exists() && fixture.file(Kind::Blob, &blob).exists());
    let mended = verify_store(&fixture.location, true).await.unwrap();
    assert_eq!(faults(&mended), expected);
    assert!(mended.is_good());
    assert_eq!(batches(&fixture), 4, "the log is read once for each kind");
    let report = verify_store(&fixture.location, false).await.unwrap();
    assert_eq!((report.faults, report.leftovers), (Vec::new(), Vec::new()));
    assert_eq!((report.blobs, report.results), (1, 0));
}

/// How many batches are in the log of uses. Whoever has opened it writes one.
fn batches(fixture: &Fixture) -> usize {
    let log = std::fs::read(fixture.state.path().join("uses.log")).unwrap();
    log.windows(4).filter(|it| it == b"RGU1").count()
}

#[tokio::test]
async fn what_another_coordinator_may_be_writing_is_told_and_left_alone() {
    let mut fixture = fixture();
    let storage = tempfile::tempdir().unwrap();
    let unfinished = |root: &Path| {
        let folder = root.join("cas/ab");
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("ab-1#7");
        std::fs::write(&file, "half").unwrap();
        file
    };
    let state = fixture.state.path().to_owned();
    let (own, others) = (unfinished(&state), unfinished(storage.path()));
    let report = |location: StoreLocation| async move {
        let report = verify_store(&location, true).await.unwrap();
        assert!(report.leftovers_removed);
        (report.leftovers, report.unfinished)
    };
    fixture.location.storage = Some(url_of(storage.path()));
    let expected = (Vec::new(), vec![others.clone()]);
    assert_eq!(report(fixture.location.clone()).await, expected);
    assert!(others.exists() && own.exists());
    // The state directory is its own, by whichever name.
    fixture.location.storage = Some(url_of(&state.join("uploads/..")));
    let (removed, left) = report(fixture.location.clone()).await;
    assert_eq!((removed.len(), left), (1, Vec::new()));
    assert!(!own.exists());
}

#[tokio::test]
async fn a_storage_that_is_not_there_is_refused_and_not_made() {
    let mut fixture = fixture();
    let nowhere = fixture.state.path().join("nowhere");
    for url in [url_of(&nowhere), "memory://".to_owned()] {
        fixture.location.storage = Some(url.clone());
        let verified = verify_store(&fixture.location, false).await;
        let used = cache_usage(&fixture.location);
        for refused in [verified.map(drop), used.map(drop)] {
            let error = refused.expect_err("there is none");
            assert!(error.to_string().contains(&url), "{error}");
        }
    }
    assert!(!nowhere.exists());
}

#[tokio::test]
async fn usage_is_told_of_the_storage_that_it_is_of() {
    let mut fixture = fixture();
    let state = fixture.state.path().to_owned();
    let [own, other] = ["own", "other"].map(|name| {
        std::fs::create_dir_all(state.join(name).join("cas")).unwrap();
        url_of(&state.join(name))
    });
    fixture.location.storage = Some(other.clone());
    assert!(cache_usage(&fixture.location).is_ok(), "it is not known");
    note_storage(&state, &own).unwrap();
    let refused = cache_usage(&fixture.location).expect_err("it is of another");
    let text = refused.to_string();
    assert!(text.contains(&own) && text.contains(&other), "{text}");
    for url in [None, Some(own.clone()), Some(format!("{own}/"))] {
        fixture.location.storage = url;
        assert!(cache_usage(&fixture.location).is_ok());
    }
}

#[tokio::test]
async fn nothing_is_repaired_beside_a_coordinator() {
    let fixture = fixture();
    let (blob, ..) = filled(&fixture).await;
    std::fs::write(fixture.file(Kind::Blob, &blob), "b alob").unwrap();
    std::fs::write(fixture.state.path().join("uploads/open"), "half").unwrap();
    let coordinator = StateDirectory::take(fixture.state.path()).unwrap();
    let refused = verify_store(&fixture.location, true).await;
    assert!(matches!(refused, Err(InspectError::Busy(_))), "{refused:?}");
    let report = verify_store(&fixture.location, false).await.unwrap();
    assert_eq!(report.faults.len(), 1, "{report:?}");
    assert_eq!(report.leftovers, Vec::<PathBuf>::new(), "they are in use");
    drop(coordinator);
    let elsewhere = StoreLocation {
        state_directory: fixture.state.path().join("uploads"),
        storage: None,
        ledger: None,
    };
    let refused = verify_store(&elsewhere, false).await;
    assert!(matches!(refused, Err(InspectError::NoState { .. })));
}

#[tokio::test]
async fn a_storage_whose_coordinators_may_share_a_ledger_is_repaired_with_that_alone() {
    let mut fixture = fixture();
    let (blob, ..) = filled(&fixture).await;
    std::fs::write(fixture.file(Kind::Blob, &blob), "b alob").unwrap();
    let state = fixture.state.path().to_owned();
    // Elsewhere by name.
    fixture.location.storage = Some(url_of(&state));
    let [own, term] = ["ledger.sqlite", "ledger-term"].map(|name| state.join(name));
    std::fs::remove_file(&own).unwrap();
    for has_had_a_term in [false, true] {
        if has_had_a_term {
            std::fs::write(&own, "").unwrap();
            std::fs::write(&term, "4\n").unwrap();
        }
        let refused = verify_store(&fixture.location, true).await;
        assert!(
            matches!(refused, Err(InspectError::LedgerNotNamed)),
            "{refused:?}"
        );
        assert!(fixture.file(Kind::Blob, &blob).exists());
        let report = verify_store(&fixture.location, false).await.unwrap();
        assert!(!report.is_good(), "looking needs nobody's leave");
    }
    std::fs::remove_file(&term).unwrap();
    let report = verify_store(&fixture.location, true).await.unwrap();
    assert!(report.is_good(), "its coordinator has a ledger of its own");
    assert!(!fixture.file(Kind::Blob, &blob).exists());
}
