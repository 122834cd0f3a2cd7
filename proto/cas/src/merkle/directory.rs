//! What a `Directory` message must look like.

use std::collections::HashSet;

use regatta_model::Digest;
use regatta_wire::convert::InvalidDigestError;
use regatta_wire::reapi;

/// Why a `Directory` message is not canonical (REAPI, `Directory`). Its author has to fix it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDirectoryError {
    /// The bytes are no `Directory` message at all.
    #[error("the bytes are no Directory message")]
    Encoding,
    /// A name that no path can have: empty, `.`, `..`, or with a slash or a NUL in it.
    #[error("{name:?} cannot be the name of a file")]
    Name {
        /// The name.
        name: String,
    },
    /// A list is not sorted by name.
    #[error("{name:?} is out of order: names must be sorted")]
    Order {
        /// The first name that should have come earlier.
        name: String,
    },
    /// Two nodes have one name.
    #[error("the name {name:?} is there twice")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// A file or directory without a digest, or with a bad one.
    #[error("the node {name:?} has no valid digest")]
    Digest {
        /// The name of the node.
        name: String,
        /// What is wrong with the digest, unless it is missing.
        source: Option<InvalidDigestError>,
    },
    /// Properties that are not sorted by name.
    #[error("the properties of {name:?} are out of order: they must be sorted by name")]
    Properties {
        /// The name of the node that has them; `.` for the directory itself.
        name: String,
    },
    /// A symlink that points nowhere: an empty target, or one with a NUL in it.
    #[error("the symlink {name:?} has no valid target")]
    Target {
        /// The name of the symlink.
        name: String,
    },
}

/// Checks that a directory is canonical, apart from its subdirectories, which it only names.
///
/// # Errors
/// It is not; the error says what is wrong first.
pub fn validate_directory(directory: &reapi::Directory) -> Result<(), InvalidDirectoryError> {
    let mut names = HashSet::new();
    check_names(
        directory.files.iter().map(|node| node.name.as_str()),
        &mut names,
    )?;
    check_names(
        directory.directories.iter().map(|node| node.name.as_str()),
        &mut names,
    )?;
    check_names(
        directory.symlinks.iter().map(|node| node.name.as_str()),
        &mut names,
    )?;
    for node in &directory.files {
        digest_of(&node.name, node.digest.as_ref())?;
    }
    for node in &directory.directories {
        digest_of(&node.name, node.digest.as_ref())?;
    }
    directory.symlinks.iter().try_for_each(check_target)?;
    let files = directory.files.iter();
    let files = files.map(|node| (node.name.as_str(), &node.node_properties));
    let symlinks = directory.symlinks.iter();
    let symlinks = symlinks.map(|node| (node.name.as_str(), &node.node_properties));
    files
        .chain(symlinks)
        .chain([(".", &directory.node_properties)])
        .try_for_each(|(name, properties)| check_properties(name, properties.as_ref()))
}

/// The digest of a node.
pub(super) fn digest_of(
    name: &str,
    digest: Option<&reapi::Digest>,
) -> Result<Digest, InvalidDirectoryError> {
    let invalid = |source| InvalidDirectoryError::Digest {
        name: name.to_owned(),
        source,
    };
    Digest::try_from(digest.ok_or_else(|| invalid(None))?).map_err(|error| invalid(Some(error)))
}

/// Whether a path can have `name` as one of its parts.
pub(super) fn is_valid_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\0'])
}

/// Whether a symlink can have `target`.
pub(super) fn is_valid_target(target: &str) -> bool {
    !target.is_empty() && !target.contains('\0')
}

fn check_names<'a>(
    names: impl Iterator<Item = &'a str>,
    seen: &mut HashSet<&'a str>,
) -> Result<(), InvalidDirectoryError> {
    let mut previous = "";
    for name in names {
        if !is_valid_name(name) {
            return Err(InvalidDirectoryError::Name {
                name: name.to_owned(),
            });
        }
        if !seen.insert(name) {
            return Err(InvalidDirectoryError::Duplicate {
                name: name.to_owned(),
            });
        }
        if name < previous {
            return Err(InvalidDirectoryError::Order {
                name: name.to_owned(),
            });
        }
        previous = name;
    }
    Ok(())
}

fn check_target(node: &reapi::SymlinkNode) -> Result<(), InvalidDirectoryError> {
    if is_valid_target(&node.target) {
        return Ok(());
    }
    Err(InvalidDirectoryError::Target {
        name: node.name.clone(),
    })
}

fn check_properties(
    name: &str,
    properties: Option<&reapi::NodeProperties>,
) -> Result<(), InvalidDirectoryError> {
    let properties = properties.map_or(&[][..], |it| it.properties.as_slice());
    if properties.is_sorted_by(|left, right| left.name <= right.name) {
        return Ok(());
    }
    Err(InvalidDirectoryError::Properties {
        name: name.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> reapi::FileNode {
        reapi::FileNode {
            name: name.to_owned(),
            digest: Some(Digest::EMPTY.into()),
            ..Default::default()
        }
    }

    fn files(names: &[&str]) -> reapi::Directory {
        let files = names.iter().map(|name| file(name)).collect();
        reapi::Directory {
            files,
            ..Default::default()
        }
    }

    fn symlink(name: &str, target: &str) -> reapi::SymlinkNode {
        let (name, target) = (name.to_owned(), target.to_owned());
        reapi::SymlinkNode {
            name,
            target,
            ..Default::default()
        }
    }

    #[track_caller]
    fn check(directory: &reapi::Directory, expected: Result<(), &str>) {
        let found = validate_directory(directory).map_err(|error| error.to_string());
        assert_eq!(found, expected.map_err(ToOwned::to_owned));
    }

    #[test]
    fn canonical_directories_pass() {
        check(&files(&[]), Ok(()));
        check(&files(&["...", "A", "a", "a.b", "é"]), Ok(()));
    }

    #[test]
    fn everything_else_is_refused_by_name() {
        for name in ["", ".", "..", "a/b", "a\0"] {
            let refusal = format!("{name:?} cannot be the name of a file");
            check(&files(&[name]), Err(&refusal));
        }
        check(
            &files(&["b", "a"]),
            Err("\"a\" is out of order: names must be sorted"),
        );
        check(&files(&["a", "a"]), Err("the name \"a\" is there twice"));
        let mut twice = files(&["a"]);
        twice.symlinks.push(symlink("a", "b"));
        check(&twice, Err("the name \"a\" is there twice"));
        let mut bare = files(&["a"]);
        bare.files[0].digest = None;
        check(&bare, Err("the node \"a\" has no valid digest"));
        for target in ["", "a\0"] {
            let mut nowhere = files(&[]);
            nowhere.symlinks.push(symlink("a", target));
            check(&nowhere, Err("the symlink \"a\" has no valid target"));
        }
    }

    #[test]
    fn properties_are_sorted_by_name() {
        let properties = |names: &[&str]| {
            let property = |name: &&str| reapi::NodeProperty {
                name: (*name).to_owned(),
                ..Default::default()
            };
            Some(reapi::NodeProperties {
                properties: names.iter().map(property).collect(),
                ..Default::default()
            })
        };
        let refusal = |name| {
            format!("the properties of {name:?} are out of order: they must be sorted by name")
        };
        let mut directory = files(&["a"]);
        directory.symlinks.push(symlink("b", "a"));
        directory.files[0].node_properties = properties(&["x", "y"]);
        check(&directory, Ok(()));
        directory.node_properties = properties(&["y", "x"]);
        check(&directory, Err(&refusal(".")));
        directory.symlinks[0].node_properties = properties(&["y", "x"]);
        check(&directory, Err(&refusal("b")));
        directory.files[0].node_properties = properties(&["y", "x"]);
        check(&directory, Err(&refusal("a")));
    }
}
