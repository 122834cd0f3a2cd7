//! Runs whose store fills up and has room again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use regatta_cas::{BlobRange, BlobStore, BlobStream, EmptyBlobStore, MemoryBlobStore, StoreError};
use regatta_model::Digest;
use regatta_wire::v1;
use regatta_wire::v1::run_event::Event;
use tokio::sync::watch;

use super::contract::{contract_runner, junit};
use super::fixture::{Fixture, contract, spec, until};

/// The tests, and the list of them that a batch of all has.
const LISTED: &str = "x\ny\nz\n";

/// What becomes of a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Room {
    Enough,
    /// There is none, which is said.
    Refused,
    /// There is none, which is waited for.
    Awaited,
}

#[derive(Debug)]
struct FillingStore {
    memory: MemoryBlobStore,
    room: watch::Sender<Room>,
    /// What there is no room for.
    list: Digest,
    /// How many writes found no room.
    in_vain: AtomicUsize,
}

#[async_trait]
impl BlobStore for FillingStore {
    async fn get(&self, digest: &Digest, range: BlobRange) -> Result<BlobStream, StoreError> {
        self.memory.get(digest, range).await
    }

    async fn put(&self, digest: &Digest, body: BlobStream) -> Result<(), StoreError> {
        let mut rooms = self.room.subscribe();
        let room = match *digest == self.list {
            true => *rooms.borrow_and_update(),
            false => Room::Enough,
        };
        self.in_vain
            .fetch_add(usize::from(room != Room::Enough), Ordering::SeqCst);
        match room {
            Room::Enough => {}
            Room::Refused => {
                return Err(StoreError::Full {
                    detail: "as the test has it".to_owned(),
                });
            }
            Room::Awaited => {
                let room = rooms.wait_for(|room| *room == Room::Enough).await;
                room.expect("it lives as long as the store");
            }
        }
        self.memory.put(digest, body).await
    }

    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        self.memory.find_missing(digests).await
    }

    async fn delete(&self, digest: &Digest) -> Result<(), StoreError> {
        self.memory.delete(digest).await
    }
}

/// A batch that was leased when its store filled up, and whose list of tests found no room, waits with the rest.
async fn check(full: Room) {
    let store = Arc::new(FillingStore {
        memory: MemoryBlobStore::new(),
        room: watch::Sender::new(full),
        list: Digest::of(LISTED.as_bytes()),
        in_vain: AtomicUsize::new(0),
    });
    let blobs: Arc<dyn BlobStore> = Arc::clone(&store) as _;
    let fixture = Fixture::with_blobs(Arc::new(EmptyBlobStore::new(blobs))).await;
    let report = |ids: &[String]| junit(ids.iter().map(String::as_str));
    let _agent = fixture.agent("a", contract_runner(&fixture, LISTED, report));
    let run = fixture.submit(spec(vec![contract("acceptance")])).await;
    until(|| store.in_vain.load(Ordering::SeqCst) > 0).await;
    let waiting = || {
        let snapshot = fixture.dispatcher.snapshot();
        (snapshot.queued_units, snapshot.leased_units)
    };
    assert_eq!(waiting(), (0, 3), "{full:?}");
    fixture
        .dispatcher
        .hold(Some("the store is full".to_owned()));
    until(|| waiting() == (3, 0)).await;
    store.room.send_replace(Room::Enough);
    fixture.dispatcher.hold(None);
    let story = fixture.finish(&run).await;
    let end = story.end();
    assert_eq!(
        (end.verdict(), story.counts().passed),
        (v1::Verdict::Releasable, 3),
        "{full:?}: {:?}",
        end.reasons
    );
    let is_lost = |event: &Event| matches!(event, Event::InfrastructureRetry(_));
    assert!(!story.events.iter().any(is_lost), "{:?}", story.events);
}

#[tokio::test]
async fn a_batch_that_finds_no_room_for_its_tests_waits_until_there_is() {
    check(Room::Refused).await;
    check(Room::Awaited).await;
}
