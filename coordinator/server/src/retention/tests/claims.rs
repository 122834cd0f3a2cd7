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

/// Forgets a blob only once somebody has been told that it is there.
#[derive(Debug)]
struct AskedMeanwhile {
    store: Arc<dyn BlobStore>,
    other: Arc<ChunkedBlobStore>,
}

#[async_trait]
impl BlobStore for AskedMeanwhile {
    async fn get(&self, digest: &Digest, range: BlobRange) -> Result<BlobStream, StoreError> {
        self.store.get(digest, range).await
    }

    async fn put(&self, digest: &Digest, body: BlobStream) -> Result<(), StoreError> {
        self.store.put(digest, body).await
    }

    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        self.store.find_missing(digests).await
    }

    async fn delete(&self, digest: &Digest) -> Result<(), StoreError> {
        assert_eq!(self.other.find_missing(&[*digest]).await?, []);
        self.store.delete(digest).await
    }
}

#[tokio::test]
async fn who_is_told_of_a_blob_that_is_just_being_split_has_used_its_chunks() {
    let settings = CacheSettings {
        max_bytes: None,
        other_tenants: TenantCacheLimits {
            max_bytes: None,
            max_age: Some(Duration::from_secs(900)),
        },
        keep_verdicts: Duration::from_secs(10_000),
        ..settings()
    };
    let world = World::new(23, settings);
    let (one, two) = (world.tenant(0), world.tenant(1));
    let retention = world.node.retention();
    let verdicts = retention.claimant_of(&one).for_verdicts();
    let of_verdicts = |kind| {
        let store = &world.node.evictor.places.of_kind[&kind].store;
        retention.retaining(kind, store, (verdicts, None))
    };
    let other = ChunkedBlobStore::new(of_verdicts(Kind::Blob), of_verdicts(Kind::Mapping));
    let chunks = [1, 2].map(|fill| Bytes::from(vec![fill; 3 << 20]));
    let blobs = world.node.blobs(&two);
    let whole = put_bytes(blobs.as_ref(), chunks.concat().into()).await;
    let whole = whole.unwrap();
    let mapping = ChunkMapping {
        chunks: chunks.iter().map(|chunk| Digest::of(chunk)).collect(),
        function: ChunkingFunction::FastCdc2020,
    };
    for chunk in chunks {
        put_bytes(blobs.as_ref(), chunk).await.unwrap();
    }
    let store = AskedMeanwhile {
        store: world.node.store(Kind::Blob, &two),
        other: Arc::new(other),
    };
    let split = Arc::clone(retention);
    let splitting = ChunkedBlobStore::new(Arc::new(store), world.node.store(Kind::Mapping, &two))
        .with_splits_observed(Arc::new(move |blob, chunks| split.split(blob, chunks)));
    splitting.keep_as_chunks(&whole, &mapping).await.unwrap();
    world.pass(5000);
    for _ in 0..20 {
        world.node.evictor.pass(0).await;
    }
    let read = read_all(blobs.as_ref(), &whole, 10 << 20).await;
    assert_eq!(read.expect("the verdict keeps it").len(), 6 << 20);
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
