use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use regatta_cas::{EmptyBlobStore, MemoryBlobStore, put_bytes};
use regatta_model::Resources;
use regatta_wire::reapi::{Directory, FileNode, OutputDirectory, OutputFile, Tree};

use super::*;

struct Fixture {
    entries: Arc<MemoryBlobStore>,
    blobs: Arc<dyn BlobStore>,
    cache: ActionCache,
    tenant: TenantId,
}

fn defaults(image: &str) -> PlanDefaults {
    PlanDefaults {
        image: Some(image.parse().unwrap()),
        resources: Resources::default(),
        timeout: Duration::from_secs(60),
        maximum_timeout: Duration::from_secs(60),
        tenant_properties: BTreeMap::new(),
    }
}

fn fixture() -> Fixture {
    let entries = Arc::new(MemoryBlobStore::new());
    let blobs: Arc<dyn BlobStore> = Arc::new(EmptyBlobStore::new(Arc::new(MemoryBlobStore::new())));
    let cache = ActionCache::new(entries.clone(), Arc::clone(&blobs), defaults("image:1"));
    Fixture {
        entries,
        blobs,
        cache,
        tenant: "main".parse().unwrap(),
    }
}

impl Fixture {
    /// The same store seen by a coordinator that has just started.
    fn restarted(&self) -> ActionCache {
        self.restarted_with("image:1")
    }

    fn restarted_with(&self, image: &str) -> ActionCache {
        ActionCache::new(
            self.entries.clone(),
            Arc::clone(&self.blobs),
            defaults(image),
        )
    }

    async fn store(&self, text: &str) -> Digest {
        put_bytes(self.blobs.as_ref(), text.to_owned().into())
            .await
            .unwrap()
    }
}

fn output(digest: Digest) -> OutputFile {
    OutputFile {
        path: "out".to_owned(),
        digest: Some(digest.into()),
        ..Default::default()
    }
}

fn result_of(files: &[Digest]) -> ActionResult {
    ActionResult {
        output_files: files.iter().map(|digest| output(*digest)).collect(),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_result_is_served_to_its_tenant_alone() {
    let fixture = fixture();
    let action = Digest::of(b"action");
    let result = result_of(&[fixture.store("out").await]);
    fixture
        .cache
        .put(&fixture.tenant, &action, result.clone())
        .await
        .unwrap();
    for cache in [&fixture.cache, &fixture.restarted()] {
        let found = cache.get(&fixture.tenant, &action).await.unwrap();
        assert_eq!(found.as_deref(), Some(&result));
        let other = "other".parse().unwrap();
        assert_eq!(cache.get(&other, &action).await.unwrap(), None);
        let size = Digest::new(*action.hash(), action.size_bytes() + 1);
        assert_eq!(cache.get(&fixture.tenant, &size).await.unwrap(), None);
    }
}

/// Stores a result, takes away one blob, and expects the entry to be gone, also once the blob is back.
async fn check_incomplete(fixture: &Fixture, result: ActionResult, victim: Digest) {
    let action = Digest::of(b"action");
    for after_restart in [false, true] {
        fixture
            .cache
            .put(&fixture.tenant, &action, result.clone())
            .await
            .unwrap();
        let cache = if after_restart {
            &fixture.restarted()
        } else {
            &fixture.cache
        };
        let content = read_all(fixture.blobs.as_ref(), &victim, 1000)
            .await
            .unwrap();
        fixture.blobs.delete(&victim).await.unwrap();
        assert_eq!(cache.get(&fixture.tenant, &action).await.unwrap(), None);
        put_bytes(fixture.blobs.as_ref(), content).await.unwrap();
        assert_eq!(
            fixture
                .restarted()
                .get(&fixture.tenant, &action)
                .await
                .unwrap(),
            None
        );
    }
}

#[tokio::test]
async fn a_result_whose_blobs_are_gone_is_gone() {
    let fixture = fixture();
    let (file, stdout) = (fixture.store("file").await, fixture.store("stdout").await);
    let in_tree = fixture.store("in tree").await;
    let node = FileNode {
        name: "a".into(),
        digest: Some(in_tree.into()),
        ..Default::default()
    };
    let child = Directory {
        files: vec![node],
        ..Default::default()
    };
    let tree = Tree {
        root: Some(Directory::default()),
        children: vec![child],
    };
    let tree = put_bytes(fixture.blobs.as_ref(), tree.encode_to_vec().into())
        .await
        .unwrap();
    let directory = OutputDirectory {
        tree_digest: Some(tree.into()),
        ..Default::default()
    };
    let result = ActionResult {
        output_directories: vec![directory],
        stdout_digest: Some(stdout.into()),
        ..result_of(&[file])
    };
    for victim in [file, stdout, in_tree, tree] {
        check_incomplete(&fixture, result.clone(), victim).await;
    }
}

#[tokio::test]
async fn a_result_is_found_only_under_the_defaults_that_it_was_made_under() {
    let fixture = fixture();
    let action = Digest::of(b"action");
    let result = result_of(&[Digest::EMPTY]);
    let put = fixture.cache.put(&fixture.tenant, &action, result).await;
    put.unwrap();
    for (image, is_found) in [("image:1", true), ("image:2", false)] {
        let cache = fixture.restarted_with(image);
        let found = cache.get(&fixture.tenant, &action).await.unwrap();
        assert_eq!(found.is_some(), is_found, "{image}");
    }
}

#[tokio::test]
async fn a_damaged_entry_is_no_entry() {
    let fixture = fixture();
    let action = Digest::of(b"action");
    let key = fixture.cache.key(&fixture.tenant, &action);
    let sealed = seal_entry(&result_of(&[Digest::EMPTY])).unwrap();
    let mut flipped = sealed.to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    for damaged in [
        flipped,
        sealed[..40].to_vec(),
        sealed[..5].to_vec(),
        Vec::new(),
    ] {
        fixture
            .entries
            .put(&key, stream_of(damaged.into()))
            .await
            .unwrap();
        assert_eq!(
            fixture.cache.get(&fixture.tenant, &action).await.unwrap(),
            None
        );
        // It may have been spoilt on its way.
        assert_eq!(fixture.entries.find_missing(&[key]).await.unwrap(), []);
    }
}

#[tokio::test]
async fn a_result_without_digests_is_refused() {
    let fixture = fixture();
    let mut result = result_of(&[Digest::EMPTY]);
    result.output_files[0].digest = None;
    let refused = fixture
        .cache
        .put(&fixture.tenant, &Digest::EMPTY, result)
        .await;
    assert!(matches!(refused, Err(PutResultError::Invalid(_))));
}

#[tokio::test]
async fn a_result_whose_tree_is_not_whole_is_refused() {
    let fixture = fixture();
    let root = Directory::default();
    let tree = Tree {
        root: Some(root.clone()),
        children: vec![root],
    };
    let tree = put_bytes(fixture.blobs.as_ref(), tree.encode_to_vec().into())
        .await
        .unwrap();
    let result = ActionResult {
        output_directories: vec![OutputDirectory {
            tree_digest: Some(tree.into()),
            ..Default::default()
        }],
        ..Default::default()
    };
    let action = Digest::of(b"action");
    let put = fixture.cache.put(&fixture.tenant, &action, result).await;
    assert!(
        matches!(
            &put,
            Err(PutResultError::Invalid(InvalidResultError::Tree { digest, .. })) if *digest == tree
        ),
        "{put:?}"
    );
}

#[tokio::test]
async fn a_thousand_lookups_are_one_question() {
    let fixture = fixture();
    let mut actions = Vec::new();
    for number in 0..1000u32 {
        let action = Digest::of(&number.to_le_bytes());
        let result = result_of(&[fixture.store(&number.to_string()).await]);
        fixture
            .cache
            .put(&fixture.tenant, &action, result)
            .await
            .unwrap();
        actions.push(action);
    }
    actions.push(Digest::of(b"unknown"));
    let started = Instant::now();
    let found = fixture
        .cache
        .get_many(&fixture.tenant, &actions)
        .await
        .unwrap();
    let elapsed = started.elapsed();
    assert_eq!(found.iter().flatten().count(), 1000);
    assert!(found.last().is_some_and(Option::is_none));
    assert!(elapsed.as_millis() < 200, "took {elapsed:?}");
}
