use proptest::prelude::*;

use super::super::validate_directory;
use super::*;

fn file() -> Digest {
    Digest::of(b"file")
}

fn sample() -> TreeBuilder {
    let mut builder = TreeBuilder::new();
    builder.insert_file("src/main.rs", file(), false).unwrap();
    builder.insert_file("run", file(), true).unwrap();
    builder.insert_symlink("src/link", "../run").unwrap();
    builder.insert_directory("empty/below").unwrap();
    builder
}

#[test]
fn the_encoding_is_the_one_of_the_specification() {
    // The empty directory is the empty message, whose digest is that of no bytes.
    let empty = TreeBuilder::new().build();
    assert_eq!(empty.root, Digest::EMPTY);
    assert_eq!(empty.directories.len(), 1);
    // Computed by hand from the field numbers: files = 1 { name = 1, digest = 2 { 1, 2 }, executable = 4 }.
    let mut builder = TreeBuilder::new();
    builder.insert_file("a", Digest::EMPTY, true).unwrap();
    let tree = builder.build();
    let mut expected = vec![0x0a, 71, 0x0a, 1, b'a', 0x12, 66, 0x0a, 64];
    expected.extend_from_slice(Digest::EMPTY.hash_hex().as_bytes());
    expected.extend_from_slice(&[0x20, 1]);
    expected[1] = u8::try_from(expected.len() - 2).unwrap();
    assert_eq!(tree.directories[&tree.root], expected);
}

#[test]
fn bad_paths_and_conflicts_are_refused_by_name() {
    let mut builder = sample();
    let path = |path: &str| BuildError::Path {
        path: path.to_owned(),
    };
    let conflict = |path: &str| BuildError::Conflict {
        path: path.to_owned(),
    };
    for bad in ["", "/a", "a/", "a//b", "./a", "a/..", "a\0"] {
        assert!(matches!(
            builder.insert_file(bad, file(), false),
            Err(BuildError::Path { .. })
        ));
    }
    assert_eq!(builder.insert_directory("../x"), Err(path("../x")));
    assert_eq!(
        builder.insert_file("run", file(), false),
        Err(conflict("run"))
    );
    assert_eq!(
        builder.insert_file("src", file(), false),
        Err(conflict("src"))
    );
    assert_eq!(
        builder.insert_file("run/x", file(), false),
        Err(conflict("run"))
    );
    assert_eq!(builder.insert_directory("run"), Err(conflict("run")));
    assert_eq!(builder.insert_file("run", file(), true), Ok(()));
    assert_eq!(builder.insert_directory("empty"), Ok(()));
    let deep = vec!["a"; MAX_DEPTH + 1].join("/");
    assert_eq!(
        builder.insert_directory(&deep),
        Err(BuildError::TooDeep { path: deep.clone() })
    );
    assert_eq!(builder, sample());
}

#[test]
fn merging_keeps_both_and_refuses_contradictions() {
    let mut other = TreeBuilder::new();
    other.insert_file("src/lib.rs", file(), false).unwrap();
    let mut merged = sample();
    merged.insert_builder("", other.clone()).unwrap();
    merged
        .insert_tree("nested/tree", &sample().build(), 10)
        .unwrap();
    assert_eq!(
        merged.entry("src/lib.rs"),
        Some(Entry::File {
            digest: file(),
            executable: false
        })
    );
    assert_eq!(merged.entry("src/main.rs"), sample().entry("src/main.rs"));
    assert_eq!(
        merged.entry("nested/tree/empty/below"),
        Some(Entry::Directory)
    );
    assert_eq!(merged.entry("run/x"), None);
    let mut contrary = TreeBuilder::new();
    contrary.insert_symlink("src/main.rs", "elsewhere").unwrap();
    let refused = merged.insert_builder("", contrary);
    assert_eq!(
        refused,
        Err(BuildError::Conflict {
            path: "src/main.rs".to_owned()
        })
    );
    let refused = merged.insert_tree("more", &sample().build(), 3);
    assert_eq!(refused, Err(BuildError::TooLarge { limit: 3 }));
}

#[test]
fn a_tree_message_has_each_directory_once_and_not_the_root() {
    let mut builder = sample();
    let same = sample().build();
    builder.insert_tree("one", &same, 100).unwrap();
    builder.insert_tree("two", &same, 100).unwrap();
    let tree = builder.build();
    let message = tree.to_message().unwrap();
    assert_eq!(message.children.len(), tree.directories.len() - 1);
    assert_eq!(Tree::from_message(&message).unwrap(), tree);
}

#[test]
fn small_trees_that_unfold_without_end_are_refused() {
    let mut tree = TreeBuilder::new().build();
    for _ in 0..60 {
        let node = |name: &str| reapi::DirectoryNode {
            name: name.to_owned(),
            digest: Some(tree.root.into()),
        };
        let directories = vec![node("a"), node("b")];
        let directory = reapi::Directory {
            directories,
            ..Default::default()
        };
        tree.root = tree
            .insert(Bytes::from(directory.encode_to_vec()), &directory)
            .unwrap();
    }
    let refused = TreeBuilder::new().insert_tree("", &tree, 10_000);
    assert_eq!(refused, Err(BuildError::TooLarge { limit: 10_000 }));
}

fn paths() -> impl Strategy<Value = Vec<(String, u8)>> {
    let path = proptest::collection::vec("[a-c.é]{1,2}", 1..4).prop_map(|names| names.join("/"));
    proptest::collection::vec((path, 0..4u8), 0..30)
}

fn insert_all<'a>(paths: impl Iterator<Item = &'a (String, u8)>) -> TreeBuilder {
    let mut builder = TreeBuilder::new();
    for (path, kind) in paths {
        // Whatever does not fit is left out.
        drop(match kind {
            0 => builder.insert_directory(path),
            1 => builder.insert_symlink(path, "target"),
            other => builder.insert_file(path, file(), *other == 2),
        });
    }
    builder
}

proptest! {
    #[test]
    fn every_directory_is_canonical_and_reads_back(paths in paths()) {
        let builder = insert_all(paths.iter());
        let tree = builder.build();
        for bytes in tree.directories.values() {
            let directory = reapi::Directory::decode(bytes.clone()).unwrap();
            prop_assert_eq!(validate_directory(&directory), Ok(()));
        }
        let mut again = TreeBuilder::new();
        again.insert_tree("", &tree, 1000).unwrap();
        prop_assert_eq!(&again, &builder);
        let mut listed = TreeBuilder::new();
        for (path, entry) in builder.entries() {
            prop_assert_eq!(builder.entry(&path), Some(entry.clone()));
            match entry {
                Entry::File { digest, executable } => listed.insert_file(&path, digest, executable),
                Entry::Symlink { target } => listed.insert_symlink(&path, &target),
                Entry::Directory => listed.insert_directory(&path),
            }.unwrap();
        }
        prop_assert_eq!(listed, builder);
    }
}
