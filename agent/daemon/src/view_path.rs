//! Paths that stay inside a view.

use std::fmt;
use std::path::{Path, PathBuf};

/// A path relative to a view's root, in its shortest form: no `.`, no `..`, empty for the root itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct ViewPath(PathBuf);

/// Why a path does not name something in a view. Its sender has to fix it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum InvalidPathError {
    /// It begins at the root of a file system.
    #[error("`{path}` is absolute; it must be relative")]
    Absolute {
        /// The path found.
        path: String,
    },
    /// It has more `..` than directories to leave.
    #[error("`{path}` leads out of the input root")]
    Escapes {
        /// The path found.
        path: String,
    },
    /// No path holds a NUL byte.
    #[error("the path holds a NUL byte")]
    Nul,
}

impl ViewPath {
    /// A path from the root of the view.
    ///
    /// # Errors
    /// It does not stay in the view.
    pub fn parse(text: &str) -> Result<Self, InvalidPathError> {
        Self::default().join(text)
    }

    /// A path from this one; `..` may lead up to the root of the view.
    ///
    /// # Errors
    /// It does not stay in the view.
    pub fn join(&self, text: &str) -> Result<Self, InvalidPathError> {
        if text.starts_with('/') {
            return Err(InvalidPathError::Absolute {
                path: text.to_owned(),
            });
        }
        if text.contains('\0') {
            return Err(InvalidPathError::Nul);
        }
        let mut path = self.0.clone();
        for component in text.split('/') {
            match component {
                "" | "." => {}
                ".." => {
                    if !path.pop() {
                        return Err(InvalidPathError::Escapes {
                            path: text.to_owned(),
                        });
                    }
                }
                name => path.push(name),
            }
        }
        Ok(Self(path))
    }

    /// The path, relative to the root of the view.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        &self.0
    }

    /// The directory that the path is in; the root for the root.
    #[must_use]
    pub fn parent(&self) -> &Path {
        self.0.parent().unwrap_or(Path::new(""))
    }
}

impl fmt::Display for ViewPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(base: &str, text: &str, expected: Option<&str>) {
        let joined = ViewPath::parse(base).unwrap().join(text);
        assert_eq!(
            joined.ok().as_ref().map(ViewPath::as_path),
            expected.map(Path::new)
        );
    }

    #[test]
    fn paths_stay_inside() {
        check("", "a/b", Some("a/b"));
        check("w", "a/./b/", Some("w/a/b"));
        check("w", "../b", Some("b"));
        check("", "", Some(""));
        check("w", "../../b", None);
        check("w", "/b", None);
        check("", "a\0b", None);
    }
}
