//! What something made is known by: the digest of a file, or that of a directory's `Tree` as agents make it.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use prost::Message as _;
use regatta_cas::merkle::digest_files;
use regatta_model::Digest;
use regatta_wire::reapi;

/// How deep a directory may be: as deep as agents go.
const MAX_DEPTH: usize = 256;

/// Why it is not known what something is. Only what can be read can be checked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArtefactError {
    /// It, or something in it, cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A name in it is none that a build could have told.
    #[error("the path {path:?} is not UTF-8")]
    NotUtf8 {
        /// What.
        path: PathBuf,
    },
    /// It is, or has in it, something that no build tells of, such as a socket or a device.
    #[error("{} is neither a file nor a directory nor a symbolic link", path.display())]
    Special {
        /// What.
        path: PathBuf,
    },
    /// It has directories in directories without end.
    #[error("{} is too deep", path.display())]
    TooDeep {
        /// Where.
        path: PathBuf,
    },
}

/// What a file or a directory is known by, if a build made it. Blocks.
///
/// # Errors
/// [`ArtefactError`] names what cannot be read.
pub(crate) fn digest_of(path: &Path) -> Result<Digest, ArtefactError> {
    let metadata = std::fs::metadata(path).map_err(failed(path))?;
    if metadata.is_file() {
        return digest_of_file(path);
    }
    if !metadata.is_dir() {
        let path = path.to_owned();
        return Err(ArtefactError::Special { path });
    }
    let mut below = Descendants::default();
    let root = directory(path, 0, &mut below)?;
    // Parents first.
    let children = below.directories.into_iter().rev().collect();
    let tree = reapi::Tree {
        root: Some(root),
        children,
    };
    Ok(Digest::of(&tree.encode_to_vec()))
}

/// The directories beneath a directory: children before parents, each once.
#[derive(Default)]
struct Descendants {
    seen: BTreeSet<Digest>,
    directories: Vec<reapi::Directory>,
}

fn directory(
    path: &Path,
    depth: usize,
    below: &mut Descendants,
) -> Result<reapi::Directory, ArtefactError> {
    if depth > MAX_DEPTH {
        let path = path.to_owned();
        return Err(ArtefactError::TooDeep { path });
    }
    let mut message = reapi::Directory::default();
    for name in names(path)? {
        let child = path.join(&name);
        let metadata = std::fs::symlink_metadata(&child).map_err(failed(&child))?;
        let kind = metadata.file_type();
        if kind.is_file() {
            message.files.push(reapi::FileNode {
                name,
                digest: Some(digest_of_file(&child)?.into()),
                is_executable: metadata.permissions().mode() & 0o111 != 0,
                ..Default::default()
            });
        } else if kind.is_symlink() {
            let target = std::fs::read_link(&child).map_err(failed(&child))?;
            let target = target.into_os_string().into_string();
            message.symlinks.push(reapi::SymlinkNode {
                name,
                target: target.map_err(|_| ArtefactError::NotUtf8 { path: child })?,
                ..Default::default()
            });
        } else if kind.is_dir() {
            let made = directory(&child, depth + 1, below)?;
            let digest = Digest::of(&made.encode_to_vec());
            if below.seen.insert(digest) {
                below.directories.push(made);
            }
            let digest = Some(digest.into());
            let node = reapi::DirectoryNode { name, digest };
            message.directories.push(node);
        } else {
            return Err(ArtefactError::Special { path: child });
        }
    }
    Ok(message)
}

/// The names in a directory, in the order that canonical `Directory` messages have.
fn names(path: &Path) -> Result<Vec<String>, ArtefactError> {
    let mut names = Vec::new();
    for entry in path.read_dir().map_err(failed(path))? {
        let name = entry.map_err(failed(path))?.file_name().into_string();
        let name = name.map_err(|name| ArtefactError::NotUtf8 {
            path: path.join(name),
        });
        names.push(name?);
    }
    names.sort_unstable();
    Ok(names)
}

fn digest_of_file(path: &Path) -> Result<Digest, ArtefactError> {
    let digests = digest_files(&[path.to_owned()], None);
    let digests = digests.map_err(|error| ArtefactError::Read {
        path: path.to_owned(),
        source: io::Error::other(error),
    });
    Ok(digests?.digests.first().copied().unwrap_or(Digest::EMPTY))
}

fn failed(path: &Path) -> impl Fn(io::Error) -> ArtefactError + '_ {
    |source| ArtefactError::Read {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().expect("it is below")).expect("made");
        std::fs::write(path, text).expect("written");
    }

    #[test]
    fn a_file_is_known_by_its_bytes_and_a_directory_by_all_that_is_in_it() {
        let place = tempfile::tempdir().expect("a directory");
        let root = place.path();
        for copy in ["one", "two"] {
            for file in ["b", "a/x", "c/x", "c/d/y"] {
                write(root, &format!("{copy}/{file}"), "text");
            }
            std::os::unix::fs::symlink("b", root.join(copy).join("link")).expect("linked");
        }
        let of = |path: &str| digest_of(&root.join(path)).expect("can be read");
        assert_eq!(of("one/b"), Digest::of(b"text"));
        assert_eq!(of("one"), of("two"));
        assert_ne!(of("one/a"), of("one/c"));
        let mut seen = BTreeSet::from([of("two")]);
        let mut differs = |what: &str| assert!(seen.insert(of("two")), "{what}");
        write(root, "two/c/d/y", "Text");
        differs("a file");
        write(root, "two/c/d/z", "text");
        differs("a name");
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(root.join("two/b"), mode).expect("set");
        differs("a mode");
        let error = digest_of(&root.join("three")).expect_err("is not there");
        assert!(error.to_string().contains("three"), "{error}");
        let socket = root.join("two/a/socket");
        let _bound = std::os::unix::net::UnixListener::bind(&socket).expect("bound");
        for what in [root.join("two"), socket] {
            let error = digest_of(&what).expect_err("no build made it");
            assert!(error.to_string().contains("two/a/socket"), "{error}");
        }
    }

    #[test]
    fn a_directory_is_known_by_the_tree_that_agents_make() {
        let place = tempfile::tempdir().expect("a directory");
        let root = place.path();
        for file in ["a/same/x", "b/same/x", "b/y"] {
            write(root, file, "text");
        }
        let file = |name: &str| reapi::FileNode {
            name: name.to_owned(),
            digest: Some(Digest::of(b"text").into()),
            ..Default::default()
        };
        let node = |name: &str, directory: &reapi::Directory| reapi::DirectoryNode {
            name: name.to_owned(),
            digest: Some(Digest::of(&directory.encode_to_vec()).into()),
        };
        let same = reapi::Directory {
            files: vec![file("x")],
            ..Default::default()
        };
        let a = reapi::Directory {
            directories: vec![node("same", &same)],
            ..Default::default()
        };
        let b = reapi::Directory {
            files: vec![file("y")],
            ..a.clone()
        };
        let top = reapi::Directory {
            directories: vec![node("a", &a), node("b", &b)],
            ..Default::default()
        };
        let tree = reapi::Tree {
            root: Some(top),
            children: vec![b, a, same],
        };
        let expected = Digest::of(&tree.encode_to_vec());
        assert_eq!(digest_of(root).expect("can be read"), expected);
    }
}
