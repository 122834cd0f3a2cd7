//! Finding the files of a directory.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Sender};

use ignore::{DirEntry, WalkBuilder, WalkParallel, WalkState};

use super::selection::Selection;
use super::symlink::{self, FoundSymlink};
use super::{FoundFile, ScanError, ScanOptions};
use crate::merkle::file_digest_cache::FileState;

/// What is in a directory, in no order.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) files: Vec<FoundFile>,
    pub(super) symlinks: Vec<FoundSymlink>,
}

enum Node {
    File(FoundFile),
    Symlink(FoundSymlink),
}

/// Finds what a scan takes of `root`, which must be canonical.
pub(super) fn walk(
    root: &Path,
    options: &ScanOptions,
    selection: &Selection,
    threads: usize,
) -> Result<Found, ScanError> {
    let (sender, receiver) = mpsc::channel();
    let walker = walker(root, options, threads);
    walker.run(|| {
        let sender = sender.clone();
        Box::new(move |entry| visit(root, selection, entry, &sender))
    });
    drop(sender);
    let mut found = Found::default();
    for node in receiver {
        match node? {
            Node::File(file) => found.files.push(file),
            Node::Symlink(symlink) => found.symlinks.push(symlink),
        }
    }
    // In the order of their paths, so that of several files with one content the same one is named.
    found
        .files
        .sort_unstable_by(|left, right| left.path.cmp(&right.path));
    Ok(found)
}

fn walker(root: &Path, options: &ScanOptions, threads: usize) -> WalkParallel {
    WalkBuilder::new(root)
        .standard_filters(false)
        .git_ignore(options.respect_gitignore)
        .git_exclude(options.respect_gitignore)
        .parents(options.respect_gitignore)
        .require_git(false)
        .follow_links(false)
        .threads(threads)
        .filter_entry(|entry| entry.file_name() != ".git")
        .build_parallel()
}

fn visit(
    root: &Path,
    selection: &Selection,
    entry: Result<DirEntry, ignore::Error>,
    sender: &Sender<Result<Node, ScanError>>,
) -> WalkState {
    let visited = entry
        .map_err(|source| ScanError::Walk {
            path: root.to_owned(),
            source,
        })
        .and_then(|entry| node_of(root, selection, &entry));
    let message = match visited {
        Ok(Visited::Nothing) => return WalkState::Continue,
        Ok(Visited::Skip) => return WalkState::Skip,
        Ok(Visited::Node(node)) => Ok(node),
        Err(error) => Err(error),
    };
    let failed = message.is_err();
    // The receiver lives until the walk ends.
    let sent = sender.send(message).is_ok();
    if failed || !sent {
        WalkState::Quit
    } else {
        WalkState::Continue
    }
}

enum Visited {
    Nothing,
    Skip,
    Node(Node),
}

fn node_of(root: &Path, selection: &Selection, entry: &DirEntry) -> Result<Visited, ScanError> {
    let Some(path) = relative(root, entry.path())? else {
        return Ok(Visited::Nothing);
    };
    if selection.excludes(&path) {
        return Ok(Visited::Skip);
    }
    let Some(kind) = entry.file_type() else {
        return Ok(Visited::Nothing);
    };
    if kind.is_dir() || !selection.takes(&path) {
        return Ok(Visited::Nothing);
    }
    if kind.is_symlink() {
        return symlink::read(root, path).map(|link| Visited::Node(Node::Symlink(link)));
    }
    if !kind.is_file() {
        return Err(ScanError::SpecialFile {
            path: PathBuf::from(path),
        });
    }
    file_of(entry, path).map(|file| Visited::Node(Node::File(file)))
}

fn file_of(entry: &DirEntry, path: String) -> Result<FoundFile, ScanError> {
    use std::os::unix::fs::PermissionsExt as _;

    let metadata = std::fs::symlink_metadata(entry.path()).map_err(|source| ScanError::Read {
        path: entry.path().to_owned(),
        source,
    })?;
    let executable = metadata.permissions().mode() & 0o111 != 0;
    Ok(FoundFile {
        path,
        executable,
        state: FileState::of(&metadata),
    })
}

/// The path below `root`, or `None` for the root itself.
fn relative(root: &Path, path: &Path) -> Result<Option<String>, ScanError> {
    let below = path.strip_prefix(root).unwrap_or(path);
    if below.as_os_str().is_empty() {
        return Ok(None);
    }
    let text = below.to_str().ok_or_else(|| ScanError::NotUtf8 {
        path: below.to_owned(),
    })?;
    Ok(Some(text.to_owned()))
}
