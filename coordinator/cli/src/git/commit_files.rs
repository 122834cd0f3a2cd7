//! What a commit holds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Unlike;
use super::command::{git, output};
use super::status::exists;

/// The files of a commit, those of its submodules included.
#[derive(Debug, Default)]
pub(super) struct CommitFiles {
    /// The repositories that they are in.
    pub(super) parts: Vec<Part>,
    /// By path relative to the directory that was asked for.
    pub(super) by_path: BTreeMap<String, CommitFile>,
    /// The paths of submodules that are not here.
    pub(super) absent: Vec<String>,
}

/// A commit in its repository.
#[derive(Debug)]
pub(super) struct Part {
    /// Where it is checked out.
    pub(super) directory: PathBuf,
    pub(super) commit: String,
    /// What the paths of its files begin with.
    pub(super) prefix: String,
}

/// A file as a commit has it.
#[derive(Debug)]
pub(super) struct CommitFile {
    /// Which of the parts it is in.
    pub(super) part: usize,
    /// The id of its blob.
    pub(super) object: String,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Executable,
    Symlink,
}

impl Kind {
    /// What git means by a mode; `None` if that is a submodule.
    pub(super) fn of_mode(mode: &str) -> Option<Self> {
        match mode {
            "160000" => None,
            "100755" => Some(Self::Executable),
            "120000" => Some(Self::Symlink),
            _ => Some(Self::File),
        }
    }

    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::File => "a file that cannot be executed",
            Self::Executable => "an executable file",
            Self::Symlink => "a symlink",
        }
    }
}

impl CommitFiles {
    /// What `commit` has in `directory` and below.
    pub(super) fn list(directory: &Path, commit: &str) -> Result<Self, Unlike> {
        let mut files = Self::default();
        let mut left = vec![Part {
            directory: directory.to_owned(),
            commit: commit.to_owned(),
            prefix: String::new(),
        }];
        while let Some(part) = left.pop() {
            let submodules = files.add(part)?;
            for submodule in submodules {
                // Git would take the repository around it for one that is not there.
                match exists(&submodule.directory.join(".git")) {
                    true => left.push(submodule),
                    false => files.absent.push(submodule.prefix),
                }
            }
        }
        Ok(files)
    }

    /// Adds the files of a repository, and tells the submodules that it names.
    fn add(&mut self, part: Part) -> Result<Vec<Part>, Unlike> {
        let mut git = git(&part.directory);
        let listing = output(git.args(["ls-tree", "-r", "-z", &part.commit]));
        let listing = listing.map_err(|detail| Unlike::Unknown { detail })?;
        let mut submodules = Vec::new();
        for line in listing.split(|byte| *byte == 0) {
            // No path that is not UTF-8 is ever read.
            let entry = std::str::from_utf8(line).ok().and_then(parse);
            let Some((mode, object, path)) = entry else {
                continue;
            };
            let Some(kind) = Kind::of_mode(mode) else {
                submodules.push(Part {
                    directory: part.directory.join(path),
                    commit: object.to_owned(),
                    prefix: format!("{}{path}/", part.prefix),
                });
                continue;
            };
            let file = CommitFile {
                part: self.parts.len(),
                object: object.to_owned(),
                kind,
            };
            self.by_path.insert(format!("{}{path}", part.prefix), file);
        }
        self.parts.push(part);
        Ok(submodules)
    }
}

/// A line is `MODE TYPE OBJECT<TAB>PATH` (git-ls-tree(1)).
pub(super) fn parse(line: &str) -> Option<(&str, &str, &str)> {
    let (about, path) = line.split_once('\t')?;
    let mut about = about.split(' ');
    let mode = about.next()?;
    Some((mode, about.nth(1)?, path))
}
