//! Finding the files of a project's directory.

mod repository;
mod symlink;
#[cfg(test)]
mod tests;

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ignore::{DirEntry, WalkBuilder, WalkParallel, WalkState};
use repository::{exclude_file, is_checkout};

/// The bit of a mode by which git tells whether a file is executable, as Bazel does; REAPI leaves it open.
pub const OWNER_EXECUTES: u32 = 0o100;

/// Which files to find.
#[derive(Debug, Clone)]
pub struct WalkOptions {
    /// The directory (or file) whose files are found.
    pub directory: PathBuf,
    /// The top of the tree that they are for, which `directory` is in: paths are relative to it, and
    /// symlinks must not lead out of it.
    pub root: PathBuf,
    /// What is left out with all that is in it, by path as it is met below `directory`.
    pub without: Vec<PathBuf>,
    /// What becomes of files that git ignores.
    pub ignored: Ignored,
}

/// What becomes of files that git ignores. `.git` itself is left out in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ignored {
    /// They are left out. What counts are the `.gitignore` files from the top of the repository (or from
    /// `root` where there is none) downwards and the repository's `.git/info/exclude`; nothing above it,
    /// and nothing of other tools. In a repository within the repository (a submodule, say) its own rules
    /// count, and none from around it. A directory that is itself ignored, and walked all the same, has
    /// only the `.gitignore` files in it.
    LeftOut,
    /// They are found like any others.
    Found,
}

/// Something in the directory; directories are found only through what is in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its path below the root, with `/` between its parts.
    pub path: String,
    /// What it is.
    pub kind: FoundKind,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundKind {
    /// A file.
    File {
        /// Whether its owner may execute it: what git calls executable.
        executable: bool,
    },
    /// A symlink within the tree.
    Symlink {
        /// Where it points, as it is written in the link.
        target: String,
    },
    /// Nothing that a tree can hold. It is for the caller to say whether that matters.
    Unfit(Unfit),
}

/// Why something cannot be in a tree. Leave it out, or change it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// A symlink that leads where no agent can follow it. Copy its target in.
    #[error("it is a symlink that points out of the tree, to {}", target.display())]
    LeavesTree {
        /// Its target.
        target: PathBuf,
    },
    /// A socket, pipe or device.
    #[error("it is neither a file, a directory nor a symlink")]
    Special,
    /// A name or target that REAPI cannot express. Rename it.
    #[error("its name or its target is not UTF-8")]
    NotUtf8,
}

/// The files of a directory cannot be listed. Fix what is named.
#[derive(Debug, thiserror::Error)]
#[error("the files below {} cannot be listed", directory.display())]
pub struct WalkError {
    /// The directory.
    pub directory: PathBuf,
    /// What could not be read, and why.
    pub source: ignore::Error,
}

/// Finds the files of a directory on all processors, in the order of their paths. It blocks: call it from
/// a thread that may.
///
/// # Errors
/// Something cannot be read.
pub fn walk(options: &WalkOptions) -> Result<Vec<Found>, WalkError> {
    let failed = |source| WalkError {
        directory: options.directory.clone(),
        source,
    };
    let root = options.root.canonicalize();
    let root = root.map_err(|error| failed(with_path(&options.root, error)))?;
    let walk = Walk {
        canonical_root: root,
        options: options.clone(),
        reached: AtomicBool::new(false),
        repositories: Mutex::default(),
    };
    let walk = Arc::new(walk);
    let mut found = Walk::run(&walk, &walk.top()).map_err(failed)?;
    if !walk.reached.load(Ordering::Relaxed) {
        // It is ignored itself.
        found = Walk::run(&walk, &options.directory).map_err(failed)?;
    }
    found.sort_unstable_by(|left, right| left.path.cmp(&right.path));
    Ok(found)
}

fn with_path(path: &Path, error: io::Error) -> ignore::Error {
    ignore::Error::WithPath {
        path: path.to_owned(),
        err: Box::new(error.into()),
    }
}

#[derive(Debug)]
struct Walk {
    options: WalkOptions,
    canonical_root: PathBuf,
    /// Whether the walk got to the directory, coming from above.
    reached: AtomicBool,
    /// Repositories that were met and not entered yet: each has rules of its own.
    repositories: Mutex<Vec<PathBuf>>,
}

impl Walk {
    /// Where to begin, so that every rule is met that counts for the directory.
    fn top(&self) -> PathBuf {
        let options = &self.options;
        match options.ignored {
            Ignored::Found => options.directory.clone(),
            Ignored::LeftOut => {
                let mut above = options.root.ancestors();
                let repository = above.find(|directory| is_checkout(directory));
                repository.unwrap_or(&options.root).to_owned()
            }
        }
    }

    fn run(self: &Arc<Self>, top: &Path) -> Result<Vec<Found>, ignore::Error> {
        if top == self.options.directory {
            self.reached.store(true, Ordering::Relaxed);
        }
        let (sender, receiver) = mpsc::channel();
        let mut next = Some(top.to_owned());
        while let Some(top) = next {
            self.walker(&top).run(|| {
                let sender = sender.clone();
                Box::new(move |entry| self.visit(entry, &sender))
            });
            next = self.repositories().pop();
        }
        drop(sender);
        receiver.into_iter().collect()
    }

    fn repositories(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        let repositories = self.repositories.lock();
        repositories.unwrap_or_else(PoisonError::into_inner)
    }

    fn walker(self: &Arc<Self>, top: &Path) -> WalkParallel {
        let respect = self.options.ignored == Ignored::LeftOut;
        let walk = Arc::clone(self);
        let mut builder = WalkBuilder::new(top);
        if let Some(exclude) = exclude_file(top).filter(|file| respect && file.is_file()) {
            // Like git, it makes the best of a rule that is none.
            drop(builder.current_dir(top).add_ignore(exclude));
        }
        builder
            .standard_filters(false)
            .git_ignore(respect)
            .parents(false)
            .require_git(false)
            .follow_links(false)
            .filter_entry(move |entry| walk.enters(entry) && !walk.puts_off(entry))
            .build_parallel()
    }

    /// Whether an entry is on the way to the directory, or in it and not left out.
    fn enters(&self, entry: &DirEntry) -> bool {
        let (path, directory) = (entry.path(), &self.options.directory);
        if path == directory {
            self.reached.store(true, Ordering::Relaxed);
        }
        if !path.starts_with(directory) {
            return directory.starts_with(path);
        }
        entry.file_name() != ".git" && !self.options.without.iter().any(|without| without == path)
    }

    /// Whether an entry is a repository of its own, which is then walked later.
    fn puts_off(&self, entry: &DirEntry) -> bool {
        let is_directory = entry.file_type().is_some_and(|kind| kind.is_dir());
        let is_of_rules = self.options.ignored == Ignored::LeftOut;
        if !is_directory || !is_of_rules || entry.depth() == 0 || !is_checkout(entry.path()) {
            return false;
        }
        self.repositories().push(entry.path().to_owned());
        true
    }

    fn visit(
        &self,
        entry: Result<DirEntry, ignore::Error>,
        sender: &Sender<Result<Found, ignore::Error>>,
    ) -> WalkState {
        let message = match entry.and_then(|entry| self.found(&entry)) {
            Ok(None) => return WalkState::Continue,
            Ok(Some(found)) => Ok(found),
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

    fn found(&self, entry: &DirEntry) -> Result<Option<Found>, ignore::Error> {
        let path = entry.path();
        let kind = entry.file_type();
        let Some(kind) = kind.filter(|kind| !kind.is_dir()) else {
            return Ok(None);
        };
        if !path.starts_with(&self.options.directory) {
            return Ok(None);
        }
        let relative = path.strip_prefix(&self.options.root).unwrap_or(path);
        let Some(relative) = relative.to_str() else {
            return Ok(Some(Found {
                path: relative.to_string_lossy().into_owned(),
                kind: FoundKind::Unfit(Unfit::NotUtf8),
            }));
        };
        let kind = if kind.is_symlink() {
            symlink::read(&self.canonical_root, path, relative)?
        } else if kind.is_file() {
            let mode = entry.metadata()?.permissions().mode();
            let executable = mode & OWNER_EXECUTES != 0;
            FoundKind::File { executable }
        } else {
            FoundKind::Unfit(Unfit::Special)
        };
        Ok(Some(Found {
            path: relative.to_owned(),
            kind,
        }))
    }
}
