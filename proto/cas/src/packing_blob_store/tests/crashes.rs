//! Random operations, faults and crashes against a model: what was answered is what is there.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// Few keys, so that writes of one meet.
const KEYS: u8 = 6;

#[derive(Debug, Clone)]
enum Step {
    /// Keys and lengths of values that are written at the same time. Beyond eight bytes they are not packed.
    Put(BTreeMap<u8, u8>),
    Delete(BTreeSet<u8>),
    Read(u8),
    KeepUp,
    /// The next change of the packs fails.
    Fault(Fault),
    /// Some changes later the process ends, and another begins.
    Crash(usize, Fault),
    Restart,
}

fn faults() -> impl Strategy<Value = Fault> {
    prop_oneof![Just(Fault::Lost), Just(Fault::AnswerLost)]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let writes = proptest::collection::btree_map(0..KEYS, 1..12u8, 1..5);
    let step = prop_oneof![
        6 => writes.prop_map(Step::Put),
        3 => proptest::collection::btree_set(0..KEYS, 1..4).prop_map(Step::Delete),
        2 => (0..KEYS).prop_map(Step::Read),
        2 => Just(Step::KeepUp),
        1 => faults().prop_map(Step::Fault),
        2 => (0usize..4, faults()).prop_map(|(changes, fault)| Step::Crash(changes, fault)),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..60)
}

/// What each key may hold: one thing, unless a change of it had no answer.
#[derive(Debug, Default)]
struct Model {
    possible: BTreeMap<u8, BTreeSet<Option<Bytes>>>,
    /// Makes each value another.
    written: u8,
}

impl Model {
    fn possible(&mut self, key: u8) -> &mut BTreeSet<Option<Bytes>> {
        let possible = self.possible.entry(key);
        possible.or_insert_with(|| BTreeSet::from([None]))
    }

    fn note(&mut self, key: u8, value: Option<Bytes>, was_answered: bool) {
        let possible = self.possible(key);
        if was_answered {
            possible.clear();
        }
        possible.insert(value);
    }

    fn check(&mut self, key: u8, held: &Option<Bytes>) {
        let possible = self.possible(key);
        assert!(
            possible.contains(held),
            "{key} has {held:?}, which is none of {possible:?}"
        );
    }

    fn value(&mut self, length: u8) -> Bytes {
        self.written = self.written.wrapping_add(1);
        vec![self.written; usize::from(length)].into()
    }
}

fn key_of(key: u8) -> Digest {
    Digest::of(&[key])
}

/// What a key holds: what is said of its presence must agree.
async fn held(store: &PackingBlobStore, key: u8) -> Result<Option<Bytes>, StoreError> {
    let key = key_of(key);
    let missing = store.find_missing(&[key]).await?;
    match read_all(store, &key, 100).await {
        Ok(value) => {
            // What had no answer may have come to light in between.
            assert_eq!(store.find_missing(&[key]).await?, []);
            Ok(Some(value))
        }
        Err(StoreError::NotFound { .. }) => {
            assert_eq!(missing, [key]);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// A process that takes steps until it crashes or is told to end, and says how many it took.
async fn live(bucket: &Bucket, model: &mut Model, steps: &[Step]) -> usize {
    let store = bucket.open(Keys::Nothing, SMALL);
    for key in 0..KEYS {
        let held = held(&store, key).await.expect("the bucket is up");
        model.check(key, &held);
        *model.possible(key) = BTreeSet::from([held]);
    }
    for (at, step) in steps.iter().enumerate() {
        match step {
            Step::Put(writes) => put(&store, model, writes).await,
            Step::Delete(keys) => delete(&store, model, keys).await,
            Step::Read(key) => {
                if let Ok(held) = held(&store, *key).await {
                    model.check(*key, &held);
                }
            }
            Step::KeepUp => drop(store.packs.keep_up().await),
            Step::Fault(fault) => bucket.packs.fail_next_change(*fault),
            Step::Crash(changes, fault) => bucket.packs.crash_after(*changes, *fault),
            Step::Restart => return at + 1,
        }
        if bucket.packs.is_down() {
            return at + 1;
        }
    }
    steps.len()
}

async fn put(store: &PackingBlobStore, model: &mut Model, writes: &BTreeMap<u8, u8>) {
    let writes = writes.iter();
    let writes: Vec<(u8, Bytes)> = writes
        .map(|(key, length)| (*key, model.value(*length)))
        .collect();
    let puts = writes.iter().map(async |(key, value)| {
        let body = stream_of(value.clone());
        store.put(&key_of(*key), body).await
    });
    let answers = future::join_all(puts).await;
    for ((key, value), answer) in writes.into_iter().zip(answers) {
        model.note(key, Some(value), answer.is_ok());
    }
}

async fn delete(store: &PackingBlobStore, model: &mut Model, keys: &BTreeSet<u8>) {
    let deletions = keys
        .iter()
        .map(async |key| store.delete(&key_of(*key)).await);
    let answers = future::join_all(deletions).await;
    for (key, answer) in keys.iter().zip(answers) {
        model.note(*key, None, answer.is_ok());
    }
}

/// Takes all steps, each process in a runtime that ends with it.
fn check(steps: &[Step]) {
    let bucket = Bucket::new();
    let mut model = Model::default();
    let mut left = steps;
    loop {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let taken = runtime.block_on(live(&bucket, &mut model, left));
        drop(runtime);
        bucket.packs.restart();
        if left.is_empty() {
            return;
        }
        left = &left[taken..];
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_was_answered_is_there_whatever_happens(steps in steps()) {
        check(&steps);
    }
}
