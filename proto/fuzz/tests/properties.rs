//! Generated inputs that look like real ones, for what random bytes seldom reach.

use proptest::prelude::*;
use prost::Message as _;
use regatta_model::Digest;
use regatta_proto_fuzz::{compression, resource_name, tree};
use regatta_wire::reapi;

/// A segment of a resource name: mostly one that means something.
fn segment() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "blobs",
        "compressed-blobs",
        "uploads",
        "actions",
        "zstd",
        "deflate",
        "sha256",
        "md5",
        "6ba7b810-9dad-41d1-80b4-00c04fd430c8",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "0",
        "007",
        "9223372036854775807",
        "9223372036854775808",
        "",
        "main",
    ]);
    prop_oneof![9 => words.prop_map(str::to_owned), 1 => ".{0,3}"]
}

fn name() -> impl Strategy<Value = String> {
    let odd = prop::sample::select(vec!["", ".", "..", "a/b", "a\0"]);
    prop_oneof![9 => "[a-zé]{1,3}", 1 => odd.prop_map(str::to_owned)]
}

/// A directory of files and links, sorted or not.
fn directory() -> impl Strategy<Value = reapi::Directory> {
    let files = prop::collection::vec(name(), 0..5);
    let symlinks = prop::collection::vec((name(), "[a-z./]{0,5}"), 0..3);
    let properties = prop::collection::vec("[ab]", 0..3);
    let parts = (files, symlinks, properties, any::<bool>());
    parts.prop_map(|(mut files, mut symlinks, properties, sorted)| {
        if sorted {
            files.sort();
            symlinks.sort();
        }
        let file = |name| reapi::FileNode {
            name,
            digest: Some(Digest::EMPTY.into()),
            ..Default::default()
        };
        let symlink = |(name, target)| reapi::SymlinkNode {
            name,
            target,
            ..Default::default()
        };
        reapi::Directory {
            files: files.into_iter().map(file).collect(),
            symlinks: symlinks.into_iter().map(symlink).collect(),
            node_properties: properties_of(properties),
            ..Default::default()
        }
    })
}

fn properties_of(names: Vec<String>) -> Option<reapi::NodeProperties> {
    let property = |name| reapi::NodeProperty {
        name,
        ..Default::default()
    };
    (!names.is_empty()).then(|| reapi::NodeProperties {
        properties: names.into_iter().map(property).collect(),
        ..Default::default()
    })
}

/// Puts the number of a target's kind of input before the input.
fn of_kind(kind: u8, input: &[u8]) -> Vec<u8> {
    [&[kind], input].concat()
}

proptest! {
    #[test]
    fn resource_names_hold(segments in prop::collection::vec(segment(), 0..9)) {
        resource_name(segments.join("/").as_bytes());
    }

    #[test]
    fn directories_hold(directory in directory()) {
        tree(&of_kind(0, &directory.encode_to_vec()));
    }

    #[test]
    fn trees_hold(mut root in directory(), children in prop::collection::vec(directory(), 0..4)) {
        for (index, child) in children.iter().enumerate() {
            root.directories.push(reapi::DirectoryNode {
                name: format!("{index:03}"),
                digest: Some(Digest::of(&child.encode_to_vec()).into()),
            });
        }
        let message = reapi::Tree { root: Some(root), children };
        tree(&of_kind(1, &message.encode_to_vec()));
    }

    #[test]
    fn composed_trees_hold(plan in prop::collection::vec(any::<u8>(), 0..400)) {
        tree(&of_kind(2, &plan));
    }

    #[test]
    fn compression_holds(
        kind in 0u8..2,
        input in prop::collection::vec(prop_oneof![Just(0), any::<u8>()], 0..300),
    ) {
        compression(&of_kind(kind, &input));
    }
}
