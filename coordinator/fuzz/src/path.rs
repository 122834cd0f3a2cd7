//! Paths that clients declare and that results name.

use std::fs;
use std::path::{Component, Path, PathBuf};

use futures::FutureExt as _;
use prost::Message as _;
use regatta::download::download;
use regatta_agent::ViewPath;
use regatta_cas::merkle::validate_directory;
use regatta_cas::{MemoryBlobStore, put_bytes};
use regatta_model::Digest;
use regatta_server::action_plan::canonical_command;
use regatta_wire::reapi;

/// How many paths an input has at most: each input has to be quick.
const MOST_PATHS: usize = 8;

/// Takes the first line for a working directory and each other for an output's path. None leads out of
/// the input root on the agent, none out of the directory that a client downloads to, and what the
/// coordinator accepts the agent accepts.
pub fn path(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let mut lines = text.split('\n').take(1 + MOST_PATHS);
    let working_directory = lines.next().unwrap_or_default();
    let outputs: Vec<&str> = lines.collect();
    check_view(working_directory, &outputs);
    check_command(working_directory, &outputs);
    check_download(&outputs);
}

fn check_view(working_directory: &str, outputs: &[&str]) {
    let Ok(base) = ViewPath::parse(working_directory) else {
        return;
    };
    assert_inside(&base);
    for output in outputs {
        if let Ok(path) = base.join(output) {
            assert_inside(&path);
            let way = format!("{working_directory}/{output}");
            let way = way.trim_start_matches('/');
            assert_eq!(ViewPath::parse(way).as_ref(), Ok(&path), "{way:?}");
        }
    }
}

/// A path in its shortest form, below whatever it is joined to.
fn assert_inside(path: &ViewPath) {
    let mut components = path.as_path().components();
    let is_plain = components.all(|part| matches!(part, Component::Normal(_)));
    assert!(
        is_plain && !path.to_string().contains('\0'),
        "{path:?} leads out"
    );
    let root = Path::new("/work/directory");
    let joined = root.join(path.as_path());
    assert!(joined.starts_with(root), "{path:?} leads out");
    assert!(
        root.join(path.parent()).starts_with(root),
        "{path:?} lies outside"
    );
    let again = ViewPath::parse(&path.to_string());
    assert_eq!(again.as_ref(), Ok(path), "it prints as another path");
}

/// What the coordinator accepts is what the agent accepts, however the client spells its outputs.
#[expect(
    deprecated,
    reason = "clients of versions before 2.1 set no other fields"
)]
fn check_command(working_directory: &str, outputs: &[&str]) {
    let owned = || outputs.iter().map(|path| (*path).to_owned());
    let command = reapi::Command {
        arguments: vec!["program".to_owned()],
        working_directory: working_directory.to_owned(),
        ..reapi::Command::default()
    };
    let with_paths = reapi::Command {
        output_paths: owned().collect(),
        ..command.clone()
    };
    let legacy = reapi::Command {
        output_files: owned().step_by(2).collect(),
        output_directories: owned().skip(1).step_by(2).collect(),
        ..command
    };
    let accepted = [with_paths, legacy].map(canonical_command);
    let [with_paths, legacy] = &accepted;
    assert_eq!(
        with_paths.is_ok(),
        legacy.is_ok(),
        "the spelling of outputs matters"
    );
    for command in accepted.into_iter().flatten() {
        let base = ViewPath::parse(&command.working_directory).expect("the coordinator took it");
        for output in &command.output_paths {
            assert_inside(&base.join(output).expect("the coordinator took it"));
        }
    }
}

/// Downloads a result whose outputs have these paths, each as a file, as a link that leads out, and as a
/// directory with a link that leads out. Nothing but the destination changes.
fn check_download(outputs: &[&str]) {
    let outside = tempfile::tempdir().expect("a temporary directory");
    let destination = outside.path().join("work");
    fs::write(outside.path().join("canary"), "").expect("written");
    let store = MemoryBlobStore::new();
    let content = stored(&store, b"content".to_vec());
    let link = |name: &str| reapi::SymlinkNode {
        name: name.to_owned(),
        target: "..".to_owned(),
        ..reapi::SymlinkNode::default()
    };
    let tree = reapi::Tree {
        root: Some(reapi::Directory {
            symlinks: vec![link("link")],
            ..reapi::Directory::default()
        }),
        children: Vec::new(),
    };
    assert!(
        tree.root
            .as_ref()
            .is_some_and(|root| validate_directory(root).is_ok())
    );
    let tree = stored(&store, tree.encode_to_vec());
    for output in outputs {
        let path = (*output).to_owned();
        let results = [
            with_directory(path.clone(), tree),
            with_symlink(path.clone()),
            with_file(path, content),
        ];
        for result in results {
            // Whether it succeeds is not the question here.
            let downloading = download(&store, &result, &destination).now_or_never();
            let _refused = downloading.expect("nothing waits here");
        }
    }
    let mut left: Vec<PathBuf> = fs::read_dir(outside.path())
        .expect("it can be read")
        .map(|entry| entry.expect("it can be read").file_name().into())
        .collect();
    left.sort();
    left.retain(|name| name != Path::new("work"));
    assert_eq!(left, [Path::new("canary")], "something was put outside");
    assert_eq!(
        fs::read(outside.path().join("canary")).ok(),
        Some(Vec::new())
    );
}

fn stored(store: &MemoryBlobStore, bytes: Vec<u8>) -> Digest {
    let putting = put_bytes(store, bytes.into()).now_or_never();
    putting.expect("nothing waits here").expect("there is room")
}

fn with_file(path: String, digest: Digest) -> reapi::ActionResult {
    reapi::ActionResult {
        output_files: vec![reapi::OutputFile {
            path,
            digest: Some(digest.into()),
            ..reapi::OutputFile::default()
        }],
        ..reapi::ActionResult::default()
    }
}

fn with_symlink(path: String) -> reapi::ActionResult {
    reapi::ActionResult {
        output_symlinks: vec![reapi::OutputSymlink {
            path,
            target: "..".to_owned(),
            ..reapi::OutputSymlink::default()
        }],
        ..reapi::ActionResult::default()
    }
}

fn with_directory(path: String, tree: Digest) -> reapi::ActionResult {
    reapi::ActionResult {
        output_directories: vec![reapi::OutputDirectory {
            path,
            tree_digest: Some(tree.into()),
            ..reapi::OutputDirectory::default()
        }],
        ..reapi::ActionResult::default()
    }
}
