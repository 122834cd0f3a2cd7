//! What goes when another coordinator may have the store.

use regatta_cas::MemoryBlobStore;
use regatta_ledger::LedgerTenure;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::*;
use crate::ledger::deletions_in;

/// How long a request hangs before it is made again.
const REQUEST: Duration = Duration::from_secs(1);
/// For how long an answer of the ledger's counts.
const ANSWER_COUNTS: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(120);

/// Does not answer, and is asked again and again to delete.
#[derive(Debug, Default)]
struct HangingStore {
    requests: Mutex<Vec<Instant>>,
}

impl HangingStore {
    fn requests(&self) -> Vec<Instant> {
        self.requests.lock().unwrap().clone()
    }
}

#[async_trait]
impl BlobStore for HangingStore {
    async fn get(&self, _: &Digest, _: BlobRange) -> Result<BlobStream, StoreError> {
        std::future::pending().await
    }

    async fn put(&self, _: &Digest, _: BlobStream) -> Result<(), StoreError> {
        std::future::pending().await
    }

    async fn find_missing(&self, _: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        std::future::pending().await
    }

    async fn delete(&self, _: &Digest) -> Result<(), StoreError> {
        loop {
            self.requests.lock().unwrap().push(Instant::now());
            sleep(REQUEST).await;
        }
    }
}

fn answered_now() -> LedgerTenure {
    LedgerTenure::Ours {
        answered: Instant::now(),
    }
}

fn places(store: &Arc<HangingStore>, tenure: &watch::Sender<LedgerTenure>) -> Places {
    let place = Place {
        objects: Arc::new(MemoryBlobStore::new()),
        store: Arc::clone(store) as _,
        absence: None,
    };
    Places {
        of_kind: HashMap::from([(Kind::Blob, place)]),
        memory: Arc::new(MemoryTier::new(Arc::clone(store) as _, 0, 0)),
        deletions: deletions_in(Some(&tenure.subscribe())),
    }
}

/// Something is deleted from a store that hangs, while `telling` says what becomes of the ledger: for how long requests
/// are made.
async fn asked_for(telling: impl AsyncFnOnce(&watch::Sender<LedgerTenure>)) -> Duration {
    let tenure = watch::Sender::new(answered_now());
    let store = Arc::new(HangingStore::default());
    let places = places(&store, &tenure);
    let begun = Instant::now();
    let key = Key {
        kind: Kind::Blob,
        digest: Digest::of(b"unused"),
    };
    let deleting = timeout(PATIENCE, places.delete(&key));
    let (deleted, ()) = tokio::join!(deleting, telling(&tenure));
    deleted
        .expect("it is given up")
        .expect_err("it is not deleted");
    let requests = store.requests();
    // Nor is anything begun from now on.
    assert!(places.delete(&key).await.is_err());
    sleep(PATIENCE).await;
    assert_eq!(store.requests(), requests);
    *requests.last().expect("it was asked") - begun
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_is_asked_for_nothing_once_another_may_have_it() {
    let asked = asked_for(async |_| {}).await;
    assert!(asked < ANSWER_COUNTS, "{asked:?}");
    assert!(asked >= ANSWER_COUNTS - REQUEST, "{asked:?}");
    // While the ledger answers, it may take its time.
    const ANSWERS: u32 = 20;
    let asked = asked_for(async |tenure| {
        for _ in 0..ANSWERS {
            sleep(REQUEST).await;
            tenure.send_replace(answered_now());
        }
    })
    .await;
    let answers = ANSWERS * REQUEST;
    assert!(asked < answers + ANSWER_COUNTS, "{asked:?}");
    assert!(asked > answers, "{asked:?}");
    let asked = asked_for(async |tenure| {
        sleep(REQUEST / 2).await;
        tenure.send_replace(LedgerTenure::Superseded);
    })
    .await;
    assert_eq!(asked, Duration::ZERO);
}
