//! What goes into an input root.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use regatta_cas::merkle::Unfit;

/// What goes into an input root, by path relative to it; parents come into being by themselves.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Entries {
    /// By path, with `/` between its parts.
    pub by_path: BTreeMap<String, Source>,
}

/// Where an entry comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// A file of this machine.
    File {
        /// Where it is.
        path: PathBuf,
        /// Whether it may be executed.
        executable: bool,
    },
    /// A file that exists only in memory.
    Bytes {
        /// What is in it.
        bytes: Bytes,
        /// Whether it may be executed.
        executable: bool,
    },
    /// A symlink.
    Symlink {
        /// Where it points, as it is written in the link.
        target: String,
    },
    /// A directory, even if nothing else is put into it.
    Directory,
    /// Something that no tree can hold: it must not be among the inputs.
    Unfit(Unfit),
}

impl Entries {
    /// Adds an entry; what was at that path before is replaced.
    ///
    /// # Errors
    /// The path, which is handed back, is not UTF-8, as the Remote Execution API wants it.
    pub fn insert(&mut self, path: &Path, source: Source) -> Result<(), PathBuf> {
        let text = path.to_str().ok_or_else(|| path.to_owned())?;
        self.by_path.insert(text.to_owned(), source);
        Ok(())
    }

    /// Adds all of `other`.
    pub fn extend(&mut self, other: &Self) {
        let entries = other.by_path.iter();
        self.by_path
            .extend(entries.map(|(path, source)| (path.clone(), source.clone())));
    }
}
