//! Directories and trees, as clients and agents send them.

mod compose;

use std::path::{Component, Path};

use bytes::Bytes;
use futures::FutureExt as _;
use prost::Message as _;
use regatta_cas::merkle::{Entry, LoadLimits, Tree, TreeBuilder, load, validate_directory};
use regatta_cas::{MemoryBlobStore, put_bytes};
use regatta_model::Digest;
use regatta_wire::reapi;

/// How many entries a tree may have here: each input has to be quick.
const MOST_ENTRIES: usize = 500;

/// Takes bytes for a `Directory`, for a `Tree`, or for a plan by which a tree is put together whose
/// digests mostly fit. What is accepted is canonical, encodes to what it was decoded from, names only
/// what lies below its root, and is the same tree whichever way it is read.
pub fn tree(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else {
        return;
    };
    match kind % 3 {
        0 => {
            if let Ok(directory) = reapi::Directory::decode(rest) {
                check_directory(&directory);
            }
        }
        1 => {
            if let Ok(tree) = reapi::Tree::decode(rest) {
                check_tree(&tree);
            }
        }
        _ => {
            if let Ok(tree) = compose::tree(rest) {
                check_tree(&tree);
            }
        }
    }
}

/// Whether a directory is accepted.
fn check_directory(directory: &reapi::Directory) -> bool {
    if let Err(error) = validate_directory(directory) {
        assert!(!error.to_string().is_empty());
        return false;
    }
    let files = directory
        .files
        .iter()
        .map(|it| (&it.name, it.node_properties.as_ref()));
    let links = directory
        .symlinks
        .iter()
        .map(|it| (&it.name, it.node_properties.as_ref()));
    let directories = directory.directories.iter().map(|it| (&it.name, None));
    let mut names = Vec::new();
    for nodes in [
        files.collect::<Vec<_>>(),
        links.collect(),
        directories.collect(),
    ] {
        assert!(
            nodes.is_sorted_by(|left, right| left.0 < right.0),
            "names are out of order"
        );
        for (name, properties) in nodes {
            assert_is_below(name);
            assert!(!name.contains('/'), "{name:?} is more than a name");
            check_properties(properties);
            names.push(name);
        }
    }
    check_properties(directory.node_properties.as_ref());
    names.sort();
    assert!(
        names.is_sorted_by(|left, right| left < right),
        "a name is there twice"
    );
    for link in &directory.symlinks {
        assert!(!link.target.is_empty() && !link.target.contains('\0'));
    }
    let encoded = directory.encode_to_vec();
    let decoded = reapi::Directory::decode(encoded.as_slice());
    assert_eq!(
        decoded.as_ref(),
        Ok(directory),
        "its encoding is another directory's"
    );
    true
}

/// REAPI, `Directory`: the properties of nodes are sorted by name.
fn check_properties(properties: Option<&reapi::NodeProperties>) {
    let properties = properties.map_or(&[][..], |it| it.properties.as_slice());
    let is_sorted = properties.is_sorted_by(|left, right| left.name <= right.name);
    assert!(is_sorted, "properties are out of order");
}

/// A path of a tree: relative, and without a step up or aside.
fn assert_is_below(path: &str) {
    let components = Path::new(path).components();
    let is_plain = components
        .clone()
        .all(|part| matches!(part, Component::Normal(_)));
    assert!(
        is_plain && components.count() == path.split('/').count(),
        "{path:?} leads away"
    );
    assert!(!path.contains('\0'), "{path:?} is no path");
}

fn check_tree(message: &reapi::Tree) {
    let tree = match Tree::from_message(message) {
        Ok(tree) => tree,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let parts = || message.root.iter().chain(&message.children);
    assert!(parts().all(check_directory), "a bad directory was accepted");
    let root = message
        .root
        .as_ref()
        .map(|root| Digest::of(&root.encode_to_vec()));
    assert_eq!(Some(tree.root), root);
    for (digest, bytes) in &tree.directories {
        assert_eq!(*digest, Digest::of(bytes));
    }
    let mut builder = TreeBuilder::new();
    if let Err(error) = builder.insert_tree("", &tree, MOST_ENTRIES) {
        assert!(!error.to_string().is_empty());
        return;
    }
    check_entries(&builder);
    let built = builder.build();
    if parts().all(is_plain) {
        assert_eq!(built.root, tree.root, "a canonical tree became another");
    }
    check_built(&builder, &built);
    assert_eq!(loaded(&tree), builder, "the store gives another tree");
}

/// Whether a directory has nothing that a built one has not.
fn is_plain(directory: &reapi::Directory) -> bool {
    let is_bare = |properties: &Option<_>| properties.is_none();
    is_bare(&directory.node_properties)
        && directory
            .files
            .iter()
            .all(|it| is_bare(&it.node_properties))
        && directory
            .symlinks
            .iter()
            .all(|it| is_bare(&it.node_properties))
}

fn check_entries(builder: &TreeBuilder) {
    let entries = builder.entries();
    assert!(entries.len() <= MOST_ENTRIES, "{} entries", entries.len());
    let mut again = TreeBuilder::new();
    for (path, entry) in entries {
        assert_is_below(&path);
        assert_eq!(builder.entry(&path).as_ref(), Some(&entry), "{path:?}");
        let inserted = match entry {
            Entry::File { digest, executable } => again.insert_file(&path, digest, executable),
            Entry::Symlink { target } => again.insert_symlink(&path, &target),
            Entry::Directory => again.insert_directory(&path),
        };
        inserted.expect("it was in a tree");
    }
    assert_eq!(*builder, again, "its entries are another tree's");
}

fn check_built(builder: &TreeBuilder, built: &Tree) {
    let message = built.to_message().expect("what was built is whole");
    let again = Tree::from_message(&message).expect("what was built is canonical");
    assert_eq!(again, *built, "its message is another tree's");
    assert_eq!(message.children.len() + 1, built.directories.len());
    assert_eq!(loaded(built), *builder, "building changes a tree");
}

/// The same tree out of a store.
fn loaded(tree: &Tree) -> TreeBuilder {
    let store = MemoryBlobStore::new();
    let loading = async {
        for bytes in tree.directories.values().cloned().collect::<Vec<Bytes>>() {
            put_bytes(&store, bytes).await.expect("there is room");
        }
        let limits = LoadLimits {
            entries: MOST_ENTRIES,
            ..LoadLimits::default()
        };
        load(&store, &tree.root, limits).await
    };
    let loaded = loading.now_or_never().expect("nothing waits here");
    loaded.expect("a whole tree")
}
