//! Clients, evictions, listings and crashes of one store, in an order that a seed decides.

mod claims;
mod log;
mod tenure;
mod watched_deletions;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use regatta_cas::{
    AbsenceIndex, BlobRange, BlobStream, ChunkMapping, ChunkedBlobStore, Deletions, ExistenceIndex,
    MemoryTier, ObjectStoreBlobStore, SpooledBlob, StoreError, VerifyingBlobStore, conformance,
    put_bytes, read_all, stream_of,
};
use regatta_wire::reapi::chunking_function::Value as ChunkingFunction;

use self::watched_deletions::WatchedDeletions;
use super::entry::{Entry, Key};
use super::*;

/// How many blobs may be there before their absence is not known without asking.
const ABSENCE_CAPACITY: usize = 320;

/// How long everything is kept, in seconds.
const KEEP: Seconds = 60;

/// A sequence of numbers that looks random and is the same for the same seed.
#[derive(Debug)]
struct Dice(AtomicU64);

impl Dice {
    fn roll(&self, sides: u64) -> u64 {
        let mut state = self.0.load(Ordering::Relaxed);
        // Xorshift (Marsaglia, 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        self.0.store(state, Ordering::Relaxed);
        (state >> 11) % sides
    }

    async fn dawdle(&self) {
        for _ in 0..self.roll(4) {
            tokio::task::yield_now().await;
        }
    }
}

/// Takes its time before and after everything, and sometimes fails to delete.
#[derive(Debug)]
struct DawdlingStore {
    store: Arc<dyn BlobStore>,
    dice: Arc<Dice>,
}

#[async_trait]
impl BlobStore for DawdlingStore {
    async fn get(&self, digest: &Digest, range: BlobRange) -> Result<BlobStream, StoreError> {
        self.dice.dawdle().await;
        self.store.get(digest, range).await
    }

    async fn put(&self, digest: &Digest, body: BlobStream) -> Result<(), StoreError> {
        self.dice.dawdle().await;
        let put = self.store.put(digest, body).await;
        self.dice.dawdle().await;
        put
    }

    async fn put_spooled(&self, digest: &Digest, blob: &SpooledBlob) -> Result<(), StoreError> {
        self.put(digest, blob.body()?).await
    }

    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        self.dice.dawdle().await;
        let missing = self.store.find_missing(digests).await;
        self.dice.dawdle().await;
        missing
    }

    async fn delete(&self, digest: &Digest) -> Result<(), StoreError> {
        self.dice.dawdle().await;
        if self.dice.roll(20) == 0 {
            return Err(StoreError::Unavailable {
                detail: "the dice".to_owned(),
            });
        }
        let deleted = self.store.delete(digest).await;
        self.dice.dawdle().await;
        deleted
    }
}

/// A coordinator's stores over objects in memory.
struct World {
    state: tempfile::TempDir,
    objects: HashMap<Kind, Arc<ObjectStoreBlobStore>>,
    dice: Arc<Dice>,
    clock: Arc<AtomicU32>,
    settings: CacheSettings,
    node: Node,
}

/// What does not survive a crash.
struct Node {
    evictor: Arc<Evictor>,
}

impl World {
    fn new(seed: u64, settings: CacheSettings) -> Self {
        let open = |kind| {
            let store = ObjectStoreBlobStore::open("memory://").unwrap();
            (kind, Arc::new(store))
        };
        let objects: HashMap<_, _> = Kind::ALL.map(open).into();
        let dice = Arc::new(Dice(AtomicU64::new(seed * 2_654_435_761 + 1)));
        let clock = Arc::new(AtomicU32::new(1_000_000));
        let state = tempfile::tempdir().unwrap();
        let node = Node::start(state.path(), &objects, &dice, &clock, &settings);
        Self {
            state,
            objects,
            dice,
            clock,
            settings,
            node,
        }
    }

    /// What was flushed is all that is known of before.
    fn crash(&mut self) {
        let (state, objects) = (self.state.path(), &self.objects);
        self.node = Node::start(state, objects, &self.dice, &self.clock, &self.settings);
    }

    fn tenant(&self, seed: u64) -> TenantId {
        format!("tenant-{}", seed % 2).parse().unwrap()
    }

    fn now(&self) -> Seconds {
        self.clock.load(Ordering::Relaxed)
    }

    fn pass(&self, seconds: u32) {
        self.clock.fetch_add(seconds, Ordering::Relaxed);
    }
}

impl Node {
    fn start(
        state: &Path,
        objects: &HashMap<Kind, Arc<ObjectStoreBlobStore>>,
        dice: &Arc<Dice>,
        clock: &Arc<AtomicU32>,
        settings: &CacheSettings,
    ) -> Self {
        let clock = Arc::clone(clock);
        let clock = Box::new(move || clock.load(Ordering::Relaxed));
        let opened = (UseLogFrom::TheLastTerm, clock as Clock);
        let opened = Retention::open_at(state, None, settings.clone(), opened);
        let (retention, was_complete) = opened.unwrap();
        let place = |(kind, objects): (&Kind, &Arc<ObjectStoreBlobStore>)| {
            let store = DawdlingStore {
                store: Arc::clone(objects) as _,
                dice: Arc::clone(dice),
            };
            let (store, absence): (Arc<dyn BlobStore>, _) = match kind {
                Kind::Blob => {
                    let verified = Arc::new(VerifyingBlobStore::new(Arc::new(store)));
                    let listed = Arc::clone(objects);
                    let list = move || listed.list();
                    let absence = AbsenceIndex::new(verified, list, ABSENCE_CAPACITY);
                    let absence = Arc::new(absence);
                    let store = ExistenceIndex::new(
                        Arc::clone(&absence) as _,
                        1000,
                        Duration::from_secs(3600),
                    );
                    (Arc::new(store), Some(absence))
                }
                Kind::Result | Kind::Asset | Kind::Mapping => (Arc::new(store), None),
            };
            let place = Place {
                objects: Arc::clone(objects) as _,
                store,
                absence,
            };
            (*kind, place)
        };
        let of_kind: HashMap<Kind, Place> = objects.iter().map(place).collect();
        let memory = MemoryTier::new(Arc::clone(&of_kind[&Kind::Blob].store), 1 << 10, 64);
        let evictor = Evictor {
            retention,
            places: Places {
                of_kind,
                memory: Arc::new(memory),
                deletions: Deletions::default(),
            },
            may_evict: true,
            was_complete,
            pins: None,
        };
        Self {
            evictor: Arc::new(evictor),
        }
    }

    fn retention(&self) -> &Arc<Retention> {
        &self.evictor.retention
    }

    fn store(&self, kind: Kind, tenant: &TenantId) -> Arc<dyn BlobStore> {
        let retention = self.retention();
        let store = &self.evictor.places.of_kind[&kind].store;
        retention.retaining(kind, store, (retention.claimant_of(tenant), None))
    }

    fn for_verdicts(&self, tenant: &TenantId) -> Arc<dyn BlobStore> {
        let retention = self.retention();
        let store = &self.evictor.places.of_kind[&Kind::Blob].store;
        let claimant = retention.claimant_of(tenant).for_verdicts();
        retention.retaining(Kind::Blob, store, (claimant, None))
    }

    fn blobs(&self, tenant: &TenantId) -> Arc<ChunkedBlobStore> {
        let blobs = self.store(Kind::Blob, tenant);
        let blobs = self.evictor.places.memory.above(blobs);
        let retention = Arc::clone(self.retention());
        let split = move |blob: &Digest, chunks: &[Digest]| retention.split(blob, chunks);
        let chunked = ChunkedBlobStore::new(Arc::new(blobs), self.store(Kind::Mapping, tenant));
        Arc::new(chunked.with_splits_observed(Arc::new(split)))
    }
}

fn content(number: u64) -> Bytes {
    let length = 20 + usize::try_from(number * 7 % 50).unwrap();
    Bytes::from(format!("{number:0length$}"))
}

/// What was answered to be there, and until when it has to be.
type Promises = Vec<(Digest, Bytes, Seconds)>;

/// Uploads some blobs as clients do: what is missing alone. Answers what it may count on from now on.
async fn upload(world: &World, node: &Node, tenant: &TenantId, numbers: &[u64]) -> Promises {
    let blobs = node.blobs(tenant);
    let now = world.now();
    let bodies: Vec<Bytes> = numbers.iter().map(|number| content(*number)).collect();
    let digests: Vec<Digest> = bodies.iter().map(|body| Digest::of(body)).collect();
    let missing = blobs.find_missing(&digests).await.unwrap();
    for (digest, body) in digests.iter().zip(&bodies) {
        if missing.contains(digest) {
            blobs.put(digest, stream_of(body.clone())).await.unwrap();
        }
    }
    let promised = digests.into_iter().zip(bodies);
    promised
        .map(|(digest, body)| (digest, body, now + KEEP))
        .collect()
}

/// Stores a result that names blobs, in the order in which the action cache does it.
async fn store_result(node: &Node, tenant: &TenantId, action: u64, names: &[Digest]) {
    let key = Digest::of(format!("{tenant} {action}").as_bytes());
    let text = names.iter().map(|digest| format!("{digest}\n"));
    let body = Bytes::from(text.collect::<String>());
    let results = node.store(Kind::Result, tenant);
    results.put(&key, stream_of(body)).await.unwrap();
    node.blobs(tenant).find_missing(names).await.unwrap();
}

/// Serves a result as the action cache does: counted as used before what it names, and not at all unless all
/// of that is there.
async fn serve_result(
    node: &Node,
    tenant: &TenantId,
    action: u64,
    digests: &HashMap<String, Digest>,
) -> Option<Vec<Digest>> {
    let key = Digest::of(format!("{tenant} {action}").as_bytes());
    let results = node.store(Kind::Result, tenant);
    let text = match read_all(results.as_ref(), &key, 10_000).await {
        Ok(text) => text,
        Err(StoreError::NotFound { .. }) => return None,
        Err(error) => panic!("{error}"),
    };
    let text = String::from_utf8(text.to_vec()).unwrap();
    let names: Vec<Digest> = text.lines().map(|line| digests[line]).collect();
    if !results.find_missing(&[key]).await.unwrap().is_empty() {
        return None;
    }
    let missing = node.blobs(tenant).find_missing(&names).await.unwrap();
    missing.is_empty().then_some(names)
}

fn settings() -> CacheSettings {
    CacheSettings {
        max_bytes: Some(1500),
        other_tenants: TenantCacheLimits {
            max_bytes: Some(1000),
            max_age: Some(Duration::from_secs(900)),
        },
        keep: Duration::from_secs(u64::from(KEEP)),
        ..CacheSettings::default()
    }
}

async fn read_promised(world: &World, node: &Node, promises: &Promises) {
    let blobs = node.blobs(&world.tenant(world.dice.roll(2)));
    for (digest, body, until) in promises {
        if world.now() <= *until {
            let read = read_all(blobs.as_ref(), digest, 10_000).await;
            assert_eq!(read.expect("what was promised is there"), body);
        }
    }
}

/// One client's life, some steps of it.
async fn client(world: &World, seed: u64, digests: &HashMap<String, Digest>) {
    let (node, dice) = (&world.node, &world.dice);
    let tenant = world.tenant(seed);
    for _ in 0..4 {
        let numbers: Vec<u64> = (0..1 + dice.roll(5)).map(|_| dice.roll(40)).collect();
        let action = dice.roll(6);
        match dice.roll(3) {
            0 => {
                let promises = upload(world, node, &tenant, &numbers).await;
                let names: Vec<Digest> = promises.iter().map(|(digest, ..)| *digest).collect();
                store_result(node, &tenant, action, &names).await;
                dice.dawdle().await;
                read_promised(world, node, &promises).await;
            }
            1 => {
                let now = world.now();
                let served = serve_result(node, &tenant, action, digests).await;
                let served = served.into_iter().flatten();
                let promises: Promises = served
                    .map(|digest| (digest, body_of(&digest), now + KEEP))
                    .collect();
                dice.dawdle().await;
                read_promised(world, node, &promises).await;
            }
            _ => {
                let promises = upload(world, node, &tenant, &numbers).await;
                dice.dawdle().await;
                world.pass(u32::try_from(dice.roll(20)).unwrap());
                read_promised(world, node, &promises).await;
            }
        }
    }
}

fn body_of(digest: &Digest) -> Bytes {
    let bodies = (0..40).map(content);
    let mut bodies = bodies.filter(|body| Digest::of(body) == *digest);
    bodies.next().expect("one of those there are")
}

/// Lets go what has to go, and corrects what is known, now and then.
async fn upkeep(world: &World, round: u8) {
    for _ in 0..3 {
        world.dice.dawdle().await;
        world.node.evictor.pass(0).await;
        world.node.evictor.renew_absence();
        if world.dice.roll(2) == 0 {
            world.node.retention().flush();
        }
    }
    // Deletions of what is lost may fail, too.
    drop(world.node.evictor.correct_once(round).await);
}

/// What is known is what is there.
async fn check_index(world: &World) {
    let retention = world.node.retention();
    for (kind, objects) in &world.objects {
        let mut known = retention.digests(*kind);
        let listed = objects.list().map(Result::unwrap);
        let mut listed: Vec<Digest> = listed.collect().await;
        known.sort();
        listed.sort();
        assert_eq!(known, listed, "{kind:?}");
    }
}

/// No result is left that names what is gone: this holds without failures and crashes in between.
async fn round(world: &World, number: u8, digests: &HashMap<String, Digest>) {
    let mut all: Vec<BoxFuture<'_, ()>> = Vec::new();
    for seed in 0..4 {
        all.push(client(world, seed, digests).boxed());
    }
    all.push(upkeep(world, number).boxed());
    futures::future::join_all(all).await;
}

fn known_digests() -> HashMap<String, Digest> {
    let digests = (0..40).map(|number| Digest::of(&content(number)));
    digests.map(|digest| (digest.to_string(), digest)).collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_promised_is_kept_whatever_happens_meanwhile() {
    let digests = known_digests();
    let mut evicted = 0;
    for seed in 1..=20 {
        let mut world = World::new(seed, settings());
        for number in 1..=8 {
            round(&world, number, &digests).await;
            if world.dice.roll(4) == 0 {
                world.crash();
            }
            world.pass(u32::try_from(world.dice.roll(200)).unwrap());
        }
        // Once nobody uses anything, all limits are kept, and what is known is what is there.
        world.pass(KEEP * 3);
        let before = world.node.retention().index.all().count;
        for number in 100..110 {
            drop(world.node.evictor.correct_once(number).await);
            // What was found just now is kept like all else.
            world.pass(KEEP * 3);
            world.node.evictor.pass(0).await;
        }
        let all = world.node.retention().index.all();
        evicted += before.saturating_sub(all.count);
        assert!(all.bytes <= 1500, "{all:?}");
        check_index(&world).await;
    }
    assert!(evicted > 0, "something went");
}

#[tokio::test]
async fn it_conforms() {
    let world = World::new(1, CacheSettings::default());
    let tenant = world.tenant(0);
    let memory = Arc::new(regatta_cas::MemoryBlobStore::new());
    let verified: Arc<dyn BlobStore> = Arc::new(VerifyingBlobStore::new(memory));
    let retention = world.node.retention();
    let claimant = retention.claimant_of(&tenant);
    let store = retention.retaining(Kind::Blob, &verified, (claimant, None));
    conformance::check_content_addressed(store).await;
}

#[tokio::test]
async fn uses_survive_a_restart_and_count_for_whom_they_were() {
    let mut world = World::new(7, settings());
    let (one, two) = (world.tenant(0), world.tenant(1));
    let first = upload(&world, &world.node, &one, &[1, 2]).await;
    world.pass(100);
    upload(&world, &world.node, &two, &[2, 3]).await;
    let known = |world: &World| {
        let mut entries = world.node.retention().index.entries();
        for entry in &mut entries {
            entry.claims.sort_by_key(|it| it.claimant);
            // That is not in the log.
            entry.order = 0;
        }
        entries.sort_by_key(|entry| entry.key);
        entries
    };
    let before = known(&world);
    world.node.retention().flush();
    world.crash();
    assert_eq!(known(&world), before);
    let usage = usage_of(world.state.path()).unwrap();
    assert_eq!(usage.all.blobs, 3);
    assert_eq!(usage.tenants[&one].blobs, 2);
    assert_eq!(usage.tenants[&two].blobs, 2);
    assert!(usage.tenants[&one].oldest_use < usage.tenants[&two].oldest_use);
    assert_eq!(usage.unclaimed, TenantUsage::default());
    // What is lost with the log is found in the store, and counts as used then.
    std::fs::remove_file(world.state.path().join(USE_LOG)).unwrap();
    world.crash();
    world.node.evictor.correct_once(1).await.unwrap();
    world.node.evictor.pass(u64::MAX).await;
    read_promised(&world, &world.node, &first).await;
    check_index(&world).await;
    world.pass(KEEP * 2);
    upload(&world, &world.node, &two, &[3]).await;
    world.node.evictor.pass(u64::MAX).await;
    let left = world.node.retention().digests(Kind::Blob);
    assert_eq!(left, [Digest::of(&content(3))], "what is used again stays");
}

#[tokio::test]
async fn of_what_is_used_in_one_moment_what_was_used_first_goes_first() {
    let settings = CacheSettings {
        keep: Duration::from_secs(u64::from(KEEP)),
        ..CacheSettings::default()
    };
    let world = World::new(29, settings);
    let tenant = world.tenant(0);
    let numbers_of = |action: u64| (action * 6..(action + 1) * 6).collect::<Vec<u64>>();
    for action in 0..6 {
        let promises = upload(&world, &world.node, &tenant, &numbers_of(action)).await;
        let names: Vec<Digest> = promises.iter().map(|(digest, ..)| *digest).collect();
        store_result(&world.node, &tenant, action, &names).await;
    }
    let retention = world.node.retention();
    let entries = retention.index.entries();
    let moments: Vec<Seconds> = entries.iter().map(Entry::last_used).collect();
    assert_eq!(moments, vec![moments[0]; 42], "it is one moment");
    let result_key = |action: u64| Digest::of(format!("{tenant} {action}").as_bytes());
    let first_two = |entry: &&Entry| {
        let mut blobs = (0..2)
            .flat_map(numbers_of)
            .map(|number| Digest::of(&content(number)));
        let digest = entry.key.digest;
        blobs.any(|blob| blob == digest) || [0, 1].map(result_key).contains(&digest)
    };
    let lacking = entries.iter().filter(first_two).map(|it| it.size_bytes);
    world.pass(KEEP * 2);
    world.node.evictor.pass(lacking.sum()).await;
    let left = retention.index.entries();
    assert_eq!(left.len(), 28);
    assert_eq!(left.iter().filter(first_two).count(), 0, "they went alone");
    let digests = known_digests();
    for action in 2..6 {
        let served = serve_result(&world.node, &tenant, action, &digests).await;
        assert!(served.is_some(), "{action}");
    }
}

#[tokio::test]
async fn what_went_is_not_remembered_for_long() {
    let world = World::new(17, settings());
    let (tenant, evictor) = (world.tenant(0), &world.node.evictor);
    evictor.correct_once(1).await.unwrap();
    let absence = &evictor.places.of_kind[&Kind::Blob].absence;
    let absence = absence.as_ref().unwrap();
    let mut renewals = 0;
    // Several times as many as are remembered at most.
    for number in 0..ABSENCE_CAPACITY as u64 * 3 {
        let promises = upload(&world, &world.node, &tenant, &[number]).await;
        let digest = promises[0].0;
        world.pass(KEEP / 2);
        // The dice may not let it.
        evictor.pass(0).await;
        let present = usize::try_from(world.node.retention().index.all().count).unwrap();
        renewals += usize::from(absence.wants_renewal(present));
        evictor.renew_absence();
        assert!(!absence.wants_renewal(present), "{absence:?}");
        let missing = absence.find_missing(&[digest]).await.unwrap();
        assert_eq!(missing, [], "what is there is not said to be absent");
    }
    assert!((10..ABSENCE_CAPACITY).contains(&renewals), "{renewals}");
}

#[tokio::test]
async fn what_is_being_written_or_going_may_be_there() {
    let index = UseIndex::new(1);
    let key = |text: &str| Key {
        kind: Kind::Blob,
        digest: Digest::of(text.as_bytes()),
    };
    let (written, gone) = (key("written"), key("gone"));
    index.found(gone, 4, Claimant::NOBODY, 1);
    let writing = index.write(written).await;
    let going = index.take(gone, 1).unwrap();
    assert_eq!(index.digests(Kind::Blob), []);
    let mut possible = index.possible(Kind::Blob);
    possible.sort();
    let mut expected = [written.digest, gone.digest];
    expected.sort();
    assert_eq!(possible, expected);
    assert_eq!(index.possible(Kind::Result), []);
    drop(writing);
    going.gone();
    assert_eq!(index.possible(Kind::Blob), []);
}

#[test]
fn a_full_disk_refuses_what_is_new_until_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let room = Room::new(Some(directory.path().to_owned()), Some(u64::MAX / 2));
    assert!(room.check().is_ok());
    assert!(room.look() > 0);
    let refused = room.check().unwrap_err().to_string();
    assert!(refused.contains("make room there"), "{refused}");
    let room = Room::new(Some(directory.path().to_owned()), Some(0));
    assert_eq!(room.look(), 0);
    assert!(room.check().is_ok());
}
