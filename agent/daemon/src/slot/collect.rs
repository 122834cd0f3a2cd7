//! The outputs that a command declared, as REAPI wants them.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message as _;
use regatta_model::Digest;
use regatta_wire::reapi;
use regatta_wire::reapi::command::OutputDirectoryFormat;
use rustix::fs::Dir;
use tokio_util::sync::CancellationToken;

use super::output_digest::{DigestError, Digested, digest_of};
use super::view::{Found, View, find, find_in};
use crate::lease_spec::DeclaredOutput;

/// How deep an output directory may be.
const MAX_DEPTH: usize = 200;
/// How many files, directories and links the outputs of an execution may have.
const MAX_ENTRIES: usize = 1_000_000;
/// How much of the files of an execution is kept in memory, in bytes, so that it need not be read again.
const KEPT_BYTES: usize = 1 << 20;

/// How far collecting may go.
#[derive(Clone, Debug)]
pub(crate) struct CollectLimits {
    /// How many bytes the files of an execution may have together.
    pub(crate) max_bytes: u64,
    /// Ends it early.
    pub(crate) cancel: CancellationToken,
}

/// What was found, and where the bytes are that its digests name.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    pub(crate) files: Vec<reapi::OutputFile>,
    pub(crate) directories: Vec<reapi::OutputDirectory>,
    pub(crate) symlinks: Vec<reapi::OutputSymlink>,
    pub(crate) blobs: BTreeMap<Digest, BlobSource>,
}

/// Where a blob's bytes are.
#[derive(Clone, Debug)]
pub(crate) enum BlobSource {
    Memory(Bytes),
    /// A file of the view, by its path: there may be more of them than a process may have open.
    View {
        path: PathBuf,
    },
}

/// Why outputs cannot be collected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CollectError {
    #[error("output `{path}` is nested more than {MAX_DEPTH} directories deep")]
    TooDeep { path: String },
    #[error("the outputs have more than {MAX_ENTRIES} entries")]
    TooMany,
    #[error("output `{path}` holds a name or a link that is not UTF-8")]
    NotUtf8 { path: String },
    #[error(
        "the outputs have more than {max_bytes} bytes, holes included, with those of `{path}`: write less, \
         or start the agent with a larger --max-output-size"
    )]
    TooLarge { path: String, max_bytes: u64 },
    #[error("collecting the outputs was cancelled")]
    Cancelled,
    #[error("reading output `{path}` failed")]
    Io { path: String, source: io::Error },
}

/// Collects outputs. What was declared and is not there is left out (REAPI, `Command.output_paths`).
pub(crate) fn collect(
    view: &View,
    outputs: &[DeclaredOutput],
    format: OutputDirectoryFormat,
    limits: CollectLimits,
) -> Result<Collected, CollectError> {
    let mut collector = Collector {
        format,
        left_bytes: limits.max_bytes,
        left_kept_bytes: KEPT_BYTES,
        limits,
        collected: Collected::default(),
        entries: 0,
    };
    for output in outputs {
        collector.output(view, output)?;
    }
    Ok(collector.collected)
}

struct Collector {
    format: OutputDirectoryFormat,
    limits: CollectLimits,
    /// How much of the limit is left.
    left_bytes: u64,
    /// How much more is kept in memory.
    left_kept_bytes: usize,
    collected: Collected,
    entries: usize,
}

/// The directories beneath an output directory: children before parents, each once.
#[derive(Default)]
struct Descendants {
    seen: BTreeSet<Digest>,
    directories: Vec<reapi::Directory>,
}

/// A directory of an output under way.
struct Visit<'a> {
    /// The output, for errors.
    output: &'a str,
    descendants: &'a mut Descendants,
}

impl Collector {
    fn output(&mut self, view: &View, output: &DeclaredOutput) -> Result<(), CollectError> {
        let path = output.declared.clone();
        let view_path = output.path.as_path();
        match find(view, view_path).map_err(failed(&path))? {
            Found::Nothing | Found::Special => {}
            Found::Symlink { target } => {
                let target = utf8(&target, &path)?;
                let symlink = reapi::OutputSymlink {
                    path,
                    target,
                    ..Default::default()
                };
                self.collected.symlinks.push(symlink);
            }
            Found::File { file, executable } => {
                let digest = Some(self.file(file, view_path, &path)?.into());
                let is_executable = executable;
                let file = reapi::OutputFile {
                    path,
                    digest,
                    is_executable,
                    ..Default::default()
                };
                self.collected.files.push(file);
            }
            Found::Directory(directory) => self.directory_output(&directory, view_path, path)?,
        }
        Ok(())
    }

    fn directory_output(
        &mut self,
        directory: &OwnedFd,
        view_path: &Path,
        path: String,
    ) -> Result<(), CollectError> {
        let mut descendants = Descendants::default();
        let mut visit = Visit {
            output: &path,
            descendants: &mut descendants,
        };
        let root = self.directory(directory, view_path, 0, &mut visit)?;
        let mut output = reapi::OutputDirectory {
            path,
            is_topologically_sorted: true,
            ..Default::default()
        };
        if self.format != OutputDirectoryFormat::TreeOnly {
            output.root_directory_digest = Some(self.memory(root.encode_to_vec()).into());
            for child in &descendants.directories {
                self.memory(child.encode_to_vec());
            }
        }
        if self.format != OutputDirectoryFormat::DirectoryOnly {
            // REAPI's topological order has parents first.
            let children = descendants.directories.into_iter().rev().collect();
            let tree = reapi::Tree {
                root: Some(root),
                children,
            };
            output.tree_digest = Some(self.memory(tree.encode_to_vec()).into());
        }
        self.collected.directories.push(output);
        Ok(())
    }

    fn directory(
        &mut self,
        directory: &OwnedFd,
        view_path: &Path,
        depth: usize,
        visit: &mut Visit<'_>,
    ) -> Result<reapi::Directory, CollectError> {
        if depth > MAX_DEPTH {
            return Err(CollectError::TooDeep {
                path: visit.output.to_owned(),
            });
        }
        let mut message = reapi::Directory::default();
        for name in self.names(directory, visit.output)? {
            if self.limits.cancel.is_cancelled() {
                return Err(CollectError::Cancelled);
            }
            let name = utf8(&name, visit.output)?;
            let found = find_in(directory, OsStr::new(&name)).map_err(failed(visit.output))?;
            let entry_path = view_path.join(&name);
            match found {
                Found::Nothing | Found::Special => {}
                Found::File { file, executable } => {
                    let digest = Some(self.file(file, &entry_path, visit.output)?.into());
                    let is_executable = executable;
                    let node = reapi::FileNode {
                        name,
                        digest,
                        is_executable,
                        ..Default::default()
                    };
                    message.files.push(node);
                }
                Found::Symlink { target } => {
                    let target = utf8(&target, visit.output)?;
                    let node = reapi::SymlinkNode {
                        name,
                        target,
                        ..Default::default()
                    };
                    message.symlinks.push(node);
                }
                Found::Directory(child) => {
                    let child = self.directory(&child, &entry_path, depth + 1, visit)?;
                    let digest = Some(visit.descendants.add(child).into());
                    message
                        .directories
                        .push(reapi::DirectoryNode { name, digest });
                }
            }
        }
        Ok(message)
    }

    fn file(&mut self, file: File, view_path: &Path, output: &str) -> Result<Digest, CollectError> {
        let hashed = digest_of(file, self.left_bytes, &self.limits.cancel);
        let Digested { digest, content } = hashed.map_err(|error| match error {
            DigestError::Io(source) => failed(output)(source),
            DigestError::Cancelled => CollectError::Cancelled,
            DigestError::TooLarge => CollectError::TooLarge {
                path: output.to_owned(),
                max_bytes: self.limits.max_bytes,
            },
        })?;
        self.left_bytes -= digest.size_bytes();
        let Entry::Vacant(blob) = self.collected.blobs.entry(digest) else {
            return Ok(digest);
        };
        match content.filter(|content| content.len() <= self.left_kept_bytes) {
            Some(content) => {
                self.left_kept_bytes -= content.len();
                blob.insert(BlobSource::Memory(content));
            }
            None => {
                let path = view_path.to_owned();
                blob.insert(BlobSource::View { path });
            }
        }
        Ok(digest)
    }

    /// The names in a directory, in the order that canonical `Directory` messages have.
    fn names(&mut self, directory: &OwnedFd, output: &str) -> Result<Vec<Vec<u8>>, CollectError> {
        let mut names = Vec::new();
        for entry in Dir::read_from(directory).map_err(|error| failed(output)(error.into()))? {
            let entry = entry.map_err(|error| failed(output)(error.into()))?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return Err(CollectError::TooMany);
            }
            names.push(name.to_vec());
        }
        names.sort();
        Ok(names)
    }

    fn memory(&mut self, bytes: Vec<u8>) -> Digest {
        let digest = Digest::of(&bytes);
        self.collected
            .blobs
            .insert(digest, BlobSource::Memory(bytes.into()));
        digest
    }
}

impl Descendants {
    fn add(&mut self, directory: reapi::Directory) -> Digest {
        let digest = Digest::of(&directory.encode_to_vec());
        if self.seen.insert(digest) {
            self.directories.push(directory);
        }
        digest
    }
}

fn failed(path: &str) -> impl FnOnce(io::Error) -> CollectError {
    let path = path.to_owned();
    move |source| CollectError::Io { path, source }
}

fn utf8(bytes: &[u8], path: &str) -> Result<String, CollectError> {
    let text = std::str::from_utf8(bytes);
    text.map(str::to_owned).map_err(|_| CollectError::NotUtf8 {
        path: path.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::sync::Arc;

    use regatta_model::RootDirectory;

    use super::*;
    use crate::view_path::ViewPath;

    fn declared(path: &str) -> DeclaredOutput {
        DeclaredOutput {
            declared: path.to_owned(),
            path: ViewPath::parse(path).unwrap(),
            made_ahead: false,
        }
    }

    fn collected(view: &Path, outputs: &[&str]) -> Collected {
        let limits = CollectLimits {
            max_bytes: u64::MAX,
            cancel: CancellationToken::new(),
        };
        limited(view, outputs, limits).unwrap()
    }

    fn limited(
        view: &Path,
        outputs: &[&str],
        limits: CollectLimits,
    ) -> Result<Collected, CollectError> {
        let outputs: Vec<_> = outputs.iter().map(|path| declared(path)).collect();
        let root = Arc::new(OwnedFd::from(File::open(view).unwrap()));
        let view = View::new(root, RootDirectory::Image);
        let format = OutputDirectoryFormat::TreeAndDirectory;
        collect(&view, &outputs, format, limits)
    }

    #[test]
    fn the_outputs_have_a_bound_together_and_holes_count() {
        let view = tempfile::tempdir().unwrap();
        let limits = |max_bytes| CollectLimits {
            max_bytes,
            cancel: CancellationToken::new(),
        };
        fs::create_dir(view.path().join("out")).unwrap();
        fs::write(view.path().join("out/a"), [0; 60]).unwrap();
        fs::write(view.path().join("b"), [0; 40]).unwrap();
        let outputs = ["out", "b"];
        limited(view.path(), &outputs, limits(100)).unwrap();
        let error = limited(view.path(), &outputs, limits(99)).unwrap_err();
        assert!(matches!(error, CollectError::TooLarge { .. }), "{error}");
        let sparse = File::create(view.path().join("b")).unwrap();
        sparse.set_len(1 << 43).unwrap();
        let error = limited(view.path(), &outputs, limits(16 << 30)).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("`b`") && text.contains("--max-output-size"),
            "{text}"
        );
    }

    #[test]
    fn what_is_kept_in_memory_is_right_and_bounded() {
        let view = tempfile::tempdir().unwrap();
        let out = view.path().join("out");
        fs::create_dir(&out).unwrap();
        for number in 0..200u8 {
            fs::write(out.join(number.to_string()), vec![number; 16 << 10]).unwrap();
        }
        fs::write(out.join("large"), vec![7; (16 << 10) + 1]).unwrap();
        let collected = collected(view.path(), &["out"]);
        let mut kept_bytes = 0;
        for (digest, source) in &collected.blobs {
            match source {
                BlobSource::Memory(bytes) => {
                    assert_eq!(Digest::of(bytes), *digest);
                    kept_bytes += bytes.len();
                }
                BlobSource::View { path } => {
                    let content = fs::read(view.path().join(path)).unwrap();
                    assert_eq!(Digest::of(&content), *digest);
                }
            }
        }
        // The descriptions of the directory come on top.
        let most = KEPT_BYTES + (64 << 10);
        assert!((KEPT_BYTES..most).contains(&kept_bytes), "{kept_bytes}");
        let large = Digest::of(&vec![7; (16 << 10) + 1]);
        let source = collected.blobs.get(&large);
        assert!(
            matches!(source, Some(BlobSource::View { .. })),
            "{source:?}"
        );
    }

    #[test]
    fn collecting_ends_when_nobody_wants_the_outputs() {
        let view = tempfile::tempdir().unwrap();
        let sparse = File::create(view.path().join("large")).unwrap();
        // Reading this takes longer than anybody waits.
        sparse.set_len(1 << 43).unwrap();
        let cancel = CancellationToken::new();
        cancel.cancel();
        let limits = CollectLimits {
            max_bytes: u64::MAX,
            cancel,
        };
        let error = limited(view.path(), &["large"], limits).unwrap_err();
        assert!(matches!(error, CollectError::Cancelled), "{error}");
    }

    #[test]
    fn files_links_and_directories_are_told_apart() {
        let view = tempfile::tempdir().unwrap();
        let path = view.path();
        fs::create_dir_all(path.join("out/a/same")).unwrap();
        fs::create_dir_all(path.join("out/b/same")).unwrap();
        fs::write(path.join("out/a/same/file"), "1").unwrap();
        fs::write(path.join("out/b/same/file"), "1").unwrap();
        fs::write(path.join("tool"), "2").unwrap();
        fs::set_permissions(path.join("tool"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("/anywhere", path.join("link")).unwrap();
        let collected = collected(path, &["out", "tool", "link", "absent"]);
        assert_eq!(collected.files.len(), 1);
        assert!(collected.files[0].is_executable);
        assert_eq!(collected.symlinks[0].target, "/anywhere");
        let digest: Digest = collected.directories[0]
            .tree_digest
            .as_ref()
            .unwrap()
            .try_into()
            .unwrap();
        let Some(BlobSource::Memory(tree)) = collected.blobs.get(&digest) else {
            panic!("the tree is not among the blobs");
        };
        let tree = reapi::Tree::decode(tree.clone()).unwrap();
        assert_eq!(tree.children.len(), 2, "equal directories are there once");
        assert_eq!(tree.children[1].files[0].name, "file");
    }

    #[test]
    fn a_tree_has_its_root_once_and_parents_before_children() {
        let view = tempfile::tempdir().unwrap();
        fs::create_dir_all(view.path().join("out/a/b/c")).unwrap();
        fs::write(view.path().join("out/a/b/c/file"), "1").unwrap();
        let collected = collected(view.path(), &["out"]);
        let directory = &collected.directories[0];
        let message = |digest: &Option<reapi::Digest>| {
            let digest = Digest::try_from(digest.as_ref().unwrap()).unwrap();
            let Some(BlobSource::Memory(bytes)) = collected.blobs.get(&digest) else {
                panic!("{digest} is not among the blobs");
            };
            bytes.clone()
        };
        let tree = reapi::Tree::decode(message(&directory.tree_digest)).unwrap();
        let root = tree.root.unwrap();
        assert_eq!(
            root.encode_to_vec(),
            message(&directory.root_directory_digest)
        );
        assert!(!tree.children.contains(&root));
        assert_eq!(tree.children.len(), 3);
        assert!(directory.is_topologically_sorted);
        let mut parent = root;
        for child in tree.children {
            let named = Some(Digest::of(&child.encode_to_vec()).into());
            assert_eq!(parent.directories[0].digest, named);
            parent = child;
        }
    }

    #[test]
    fn nothing_outside_the_view_is_collected() {
        let view = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "secret").unwrap();
        symlink(outside.path(), view.path().join("out")).unwrap();
        let collected = collected(view.path(), &["out/secret"]);
        assert!(collected.files.is_empty() && collected.blobs.is_empty());
    }
}
