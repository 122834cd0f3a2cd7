//! Blobs that are split, and those that verdicts name.

use super::*;

#[tokio::test]
async fn chunks_that_several_blobs_share_stay_as_long_as_one_of_them_is_used() {
    let world = World::new(9, settings());
    let tenant = world.tenant(0);
    let blobs = world.node.blobs(&tenant);
    let chunk = |fill: u8| Bytes::from(vec![fill; 3 << 20]);
    let blob_of = |fills: [u8; 2]| Digest::of(&fills.map(|fill| chunk(fill).to_vec()).concat());
    let (old, new) = (blob_of([1, 2]), blob_of([2, 3]));
    for (blob, fills) in [(old, [1, 2]), (new, [2, 3])] {
        let mut chunks = Vec::new();
        for fill in fills {
            chunks.push(put_bytes(blobs.as_ref(), chunk(fill)).await.unwrap());
        }
        let function = ChunkingFunction::FastCdc2020;
        let mapping = ChunkMapping { chunks, function };
        blobs.keep_as_chunks(&blob, &mapping).await.unwrap();
    }
    world.pass(KEEP * 2);
    assert_eq!(blobs.find_missing(&[new]).await.unwrap(), []);
    for _ in 0..20 {
        world.node.evictor.pass(u64::MAX).await;
    }
    assert_eq!(blobs.find_missing(&[old, new]).await.unwrap(), [old]);
    assert_eq!(
        read_all(blobs.as_ref(), &new, 10 << 20)
            .await
            .unwrap()
            .len(),
        6 << 20
    );
    let kinds = Kind::ALL.map(|kind| world.node.retention().digests(kind).len());
    assert_eq!(kinds, [0, 0, 1, 2], "one mapping, two chunks");
}

#[tokio::test]
async fn a_blob_that_somebody_splits_stays_for_those_who_used_it() {
    for for_verdict in [false, true] {
        let settings = CacheSettings {
            max_bytes: None,
            other_tenants: TenantCacheLimits {
                max_bytes: None,
                max_age: Some(Duration::from_secs(900)),
            },
            keep_verdicts: Duration::from_secs(10_000),
            ..settings()
        };
        let mut world = World::new(19, settings);
        let (one, two) = (world.tenant(0), world.tenant(1));
        let chunks = [1, 2].map(|fill| Bytes::from(vec![fill; 3 << 20]));
        let whole = put_bytes(world.node.blobs(&one).as_ref(), chunks.concat().into())
            .await
            .unwrap();
        let user = match for_verdict {
            true => world.node.for_verdicts(&one),
            false => world.node.blobs(&one),
        };
        let split = world.node.blobs(&two);
        let mapping = ChunkMapping {
            chunks: chunks.iter().map(|chunk| Digest::of(chunk)).collect(),
            function: ChunkingFunction::FastCdc2020,
        };
        for chunk in chunks {
            put_bytes(split.as_ref(), chunk).await.unwrap();
        }
        // The splitter's own uses are older than that of the other.
        if !for_verdict {
            world.pass(500);
        }
        assert_eq!(user.find_missing(&[whole]).await.unwrap(), []);
        split.keep_as_chunks(&whole, &mapping).await.unwrap();
        let entries = world.node.retention().index.entries();
        assert_eq!(entries.len(), 3, "a mapping and two chunks");
        let claimant = world.node.retention().claimant_of(&one);
        let claimant = match for_verdict {
            true => claimant.for_verdicts(),
            false => claimant,
        };
        for entry in entries {
            let mut claims = entry.claims.iter();
            let inherited = claims.any(|claim| claim.claimant == claimant);
            assert!(inherited, "{entry:?}");
        }
        world.node.retention().flush();
        world.crash();
        world.pass(if for_verdict { 5000 } else { 800 });
        for _ in 0..20 {
            world.node.evictor.pass(0).await;
        }
        let read = read_all(world.node.blobs(&one).as_ref(), &whole, 10 << 20).await;
        assert_eq!(read.expect("it is there").len(), 6 << 20);
    }
}

#[tokio::test]
async fn what_verdicts_name_stays_for_as_long_as_they_do() {
    let settings = CacheSettings {
        keep_verdicts: Duration::from_secs(10_000),
        ..settings()
    };
    let mut world = World::new(11, settings);
    let tenant = world.tenant(0);
    upload(&world, &world.node, &tenant, &[1, 2]).await;
    let retention = world.node.retention();
    let for_verdicts = world.node.for_verdicts(&tenant);
    let kept = Digest::of(&content(1));
    assert_eq!(for_verdicts.find_missing(&[kept]).await.unwrap(), []);
    retention.flush();
    world.crash();
    world.pass(5000);
    for _ in 0..20 {
        world.node.evictor.pass(0).await;
    }
    assert_eq!(world.node.retention().digests(Kind::Blob), [kept]);
    world.pass(6000);
    for _ in 0..20 {
        world.node.evictor.pass(0).await;
    }
    assert_eq!(world.node.retention().digests(Kind::Blob), []);
}

#[tokio::test]
async fn who_is_given_many_verdicts_keeps_what_fits_the_latest() {
    let settings = CacheSettings {
        max_bytes: None,
        ..settings()
    };
    let mut world = World::new(17, settings);
    let (one, two) = (world.tenant(0), world.tenant(1));
    let named = async |world: &World, tenant: &TenantId, number: u64| {
        upload(world, &world.node, tenant, &[number]).await;
        let named = Digest::of(&content(number));
        let for_verdicts = world.node.for_verdicts(tenant);
        assert_eq!(for_verdicts.find_missing(&[named]).await.unwrap(), []);
        world.pass(KEEP);
    };
    named(&world, &two, 100).await;
    for number in 0..40 {
        named(&world, &one, number).await;
    }
    world.node.retention().flush();
    world.crash();
    // Long enough for everything else to be too old.
    world.pass(1000);
    for _ in 0..20 {
        world.node.evictor.pass(0).await;
    }
    world.node.retention().flush();
    let usage = usage_of(world.state.path()).unwrap();
    let of_one = usage.tenants[&one];
    assert_eq!(of_one.verdict_bytes, of_one.bytes);
    assert!((350..=500).contains(&of_one.bytes), "{of_one:?}");
    let of_two = usage.tenants[&two];
    assert_eq!(
        of_two.verdict_bytes,
        content(100).len() as u64,
        "the other's stay"
    );
    assert_eq!(usage.verdicts.bytes, of_one.bytes + of_two.bytes);
    let left = world.node.retention().digests(Kind::Blob);
    let is_left = |number: u64| left.contains(&Digest::of(&content(number)));
    let last_gone = (0..40).rfind(|number| !is_left(*number)).unwrap();
    let earlier = (0..last_gone).filter(|number| is_left(*number)).count();
    // The dice may not have let some of them go, and when there was little enough, nobody asked again.
    assert!(
        last_gone < 39 && earlier < 4,
        "the latest are left: {earlier}"
    );
}

#[tokio::test]
async fn who_asks_for_a_blob_while_its_whole_is_forgotten_uses_its_chunks() {
    let state = tempfile::tempdir().unwrap();
    let opened = (UseLogFrom::TheLastTerm, Box::new(|| 1_000_000_u32) as Clock);
    let (retention, _) = Retention::open_at(state.path(), None, settings(), opened).unwrap();
    let asking: Arc<Mutex<Vec<Arc<ChunkedBlobStore>>>> = Arc::default();
    let asked = Arc::clone(&asking);
    let blobs = WatchedDeletions::with(move |digest| {
        let users = std::mem::take(&mut *asked.lock().unwrap());
        async move {
            for user in users {
                assert_eq!(user.find_missing(&[digest]).await.unwrap(), []);
                let read = read_all(user.as_ref(), &digest, u64::MAX).await.unwrap();
                assert_eq!(Digest::of(&read), digest);
            }
        }
        .boxed()
    });
    let mappings: Arc<dyn BlobStore> = Arc::new(regatta_cas::MemoryBlobStore::new());
    let view = |claimant| {
        let splitting = Arc::clone(&retention);
        let split = move |blob: &Digest, chunks: &[Digest]| splitting.split(blob, chunks);
        let blobs = retention.retaining(Kind::Blob, &blobs, (claimant, None));
        let mappings = retention.retaining(Kind::Mapping, &mappings, (claimant, None));
        let chunked = ChunkedBlobStore::new(blobs, mappings);
        Arc::new(chunked.with_splits_observed(Arc::new(split)))
    };
    let [one, two] = ["one", "two"].map(|name| retention.claimant_of(&name.parse().unwrap()));
    let chunks = [1, 2].map(|fill| Bytes::from(vec![fill; 3 << 20]));
    let splitter = view(one);
    let whole = put_bytes(splitter.as_ref(), chunks.concat().into());
    let whole = whole.await.unwrap();
    let mapping = ChunkMapping {
        chunks: chunks.iter().map(|chunk| Digest::of(chunk)).collect(),
        function: ChunkingFunction::FastCdc2020,
    };
    for chunk in chunks {
        put_bytes(splitter.as_ref(), chunk).await.unwrap();
    }
    let users = [two, two.for_verdicts()];
    asking.lock().unwrap().extend(users.map(view));
    splitter.keep_as_chunks(&whole, &mapping).await.unwrap();
    let entries = retention.index.entries();
    assert_eq!(entries.len(), 3, "a mapping and two chunks: {entries:?}");
    for entry in &entries {
        for user in users {
            let is_users = entry.claims.iter().any(|claim| claim.claimant == user);
            assert!(is_users, "{user:?} has no claim to {entry:?}");
        }
    }
}

#[tokio::test]
async fn a_whole_that_is_written_while_it_is_split_stays() {
    let (index, blob) = (UseIndex::new(1), Digest::of(b"blob"));
    let key = Key {
        kind: Kind::Blob,
        digest: blob,
    };
    let writing = index.write(key).await;
    assert!(index.split(&blob, &[]).is_none());
    index.written(&writing, 4, Claimant::FIRST_TENANT, 5);
    drop(writing);
    let going = index.split(&blob, &[]).unwrap();
    assert_eq!(going.claims.len(), 1);
    assert!(!index.touch(key, Claimant::FIRST_TENANT, 6), "it is going");
    index.settle(&going, false);
    assert_eq!(index.entries(), [going]);
}
