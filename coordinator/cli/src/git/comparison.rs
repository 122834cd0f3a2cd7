//! What was read, beside what a commit holds.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

use regatta_model::Digest;

use super::Unlike;
use super::blob_digests::BlobDigests;
use super::checkout::checked_out;
use super::command::{git, output_about};
use super::commit_files::{CommitFile, CommitFiles, Kind, Part};
use super::lone_file::{is_of, top_of};
use super::status::exists;

/// What git says of each path that it may ignore: the file, the line, the pattern, the path (git-check-ignore(1)).
const FIELDS_OF_IGNORED: usize = 4;

/// What was read of a project.
pub struct Reading<'a> {
    /// Where the project is.
    pub root: &'a Path,
    /// What was read, by path relative to the root.
    pub contents: BTreeMap<String, Content>,
    /// Other files that had a say, as they were read: what configures the run.
    pub configuration: &'a [(PathBuf, Digest)],
    /// Whether a file of the commit should have been read if it was there, by path relative to the root.
    pub is_wanted: &'a dyn Fn(&str) -> bool,
}

/// What was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Content {
    /// A file.
    File {
        /// What it held.
        digest: Digest,
        /// Whether it may be executed.
        executable: bool,
    },
    /// A symlink.
    Symlink {
        /// Where it points.
        target: String,
    },
}

impl Content {
    const fn kind(&self) -> Kind {
        match self {
            Self::File {
                executable: false, ..
            } => Kind::File,
            Self::File {
                executable: true, ..
            } => Kind::Executable,
            Self::Symlink { .. } => Kind::Symlink,
        }
    }

    pub(super) fn digest(&self) -> Digest {
        match self {
            Self::File { digest, .. } => *digest,
            Self::Symlink { target } => Digest::of(target.as_bytes()),
        }
    }
}

impl fmt::Debug for Reading<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Reading")
            .field("root", &self.root)
            .field("contents", &self.contents)
            .field("configuration", &self.configuration)
            .finish_non_exhaustive()
    }
}

/// Finds the first thing in which what was read is not what the commit holds.
pub(super) fn compare(
    commit: &str,
    reading: &Reading<'_>,
    cache_file: &Path,
) -> Result<(), Unlike> {
    let files = CommitFiles::list(reading.root, commit)?;
    let pairs = pairs(&files, reading)?;
    let mut blobs = BlobDigests::open(cache_file);
    same_contents(&files, &pairs, &mut blobs)?;
    nothing_left_out(&files, reading, &mut blobs)?;
    let mut configuration = reading.configuration.iter();
    configuration.try_for_each(|(file, digest)| is_of(&files, file, *digest, &mut blobs))
}

type Pair<'a> = (&'a str, &'a Content, &'a CommitFile);

/// What was read, each with what the commit has at its path.
fn pairs<'a>(files: &'a CommitFiles, reading: &'a Reading<'_>) -> Result<Vec<Pair<'a>>, Unlike> {
    let pair = |(path, content): (&'a String, &'a Content)| {
        let path = path.as_str();
        let Some(file) = files.by_path.get(path) else {
            let path = path.to_owned();
            return Err(Unlike::NotInCommit { path });
        };
        same_kind(path, content, file.kind)?;
        Ok((path, content, file))
    };
    reading.contents.iter().map(pair).collect()
}

pub(super) fn same_kind(path: &str, content: &Content, kind: Kind) -> Result<(), Unlike> {
    match content.kind() == kind {
        true => Ok(()),
        false => Err(Unlike::OtherKind {
            path: path.to_owned(),
            here: content.kind().words(),
            there: kind.words(),
        }),
    }
}

fn same_contents(
    files: &CommitFiles,
    pairs: &[Pair<'_>],
    blobs: &mut BlobDigests,
) -> Result<(), Unlike> {
    for (index, part) in files.parts.iter().enumerate() {
        let of_part: Vec<_> = pairs
            .iter()
            .filter(|(_, _, file)| file.part == index)
            .collect();
        let ids: HashSet<&str> = of_part
            .iter()
            .map(|(_, _, file)| file.object.as_str())
            .collect();
        let learnt = blobs.learn(&part.directory, &ids);
        learnt.map_err(|detail| Unlike::Unknown { detail })?;
        let is_same = |(_, content, file): &&&Pair<'_>| {
            let blob = blobs.get(&file.object);
            blob.is_some_and(|blob| blob.is(content.digest()))
        };
        let others = of_part.iter().filter(|pair| !is_same(pair));
        same_checkout(part, others.map(|(path, content, _)| (*path, *content)))?;
    }
    Ok(())
}

/// Whether files that do not hold what git has stored hold what a checkout makes of it.
pub(super) fn same_checkout<'a>(
    part: &Part,
    others: impl Iterator<Item = (&'a str, &'a Content)>,
) -> Result<(), Unlike> {
    let others: Vec<_> = others.collect();
    let Some((first, _)) = others.first() else {
        return Ok(());
    };
    let below = |path: &'a str| path.strip_prefix(part.prefix.as_str()).unwrap_or(path);
    let files = others
        .iter()
        .filter(|(_, content)| content.kind() != Kind::Symlink);
    let paths: Vec<&str> = files.map(|(path, _)| below(path)).collect();
    let made = checked_out(part, &paths).unwrap_or_else(|error| {
        tracing::debug!(
            error,
            path = first,
            "the commit cannot be checked out aside"
        );
        HashMap::new()
    });
    let is_other =
        |(path, content): &&(&'a str, &Content)| made.get(below(path)) != Some(&content.digest());
    match others.iter().find(is_other) {
        Some((path, _)) => Err(Unlike::OtherContent {
            path: (*path).to_owned(),
        }),
        None => Ok(()),
    }
}

/// Whether all was read that the inputs mean, less what the commit itself has git ignore.
fn nothing_left_out(
    files: &CommitFiles,
    reading: &Reading<'_>,
    blobs: &mut BlobDigests,
) -> Result<(), Unlike> {
    // A file of any name in it stands for those that are not known.
    let is_wanted = |submodule: &&String| (reading.is_wanted)(&format!("{submodule}file"));
    if let Some(path) = files.absent.iter().find(is_wanted) {
        let path = path.trim_end_matches('/').to_owned();
        return Err(Unlike::AbsentSubmodule { path });
    }
    let mut left_out: Vec<Vec<&str>> = vec![Vec::new(); files.parts.len()];
    for (path, file) in &files.by_path {
        if reading.contents.contains_key(path) || !(reading.is_wanted)(path) {
            continue;
        }
        if !exists(&reading.root.join(path)) {
            let path = path.clone();
            return Err(Unlike::Absent { path });
        }
        left_out[file.part].push(path);
    }
    let with_parts = files.parts.iter().zip(&left_out);
    let mut with_parts = with_parts.filter(|(_, left_out)| !left_out.is_empty());
    with_parts.try_for_each(|(part, left_out)| ignored_by_commit(files, part, left_out, blobs))
}

/// Whether the commit itself has git ignore all these files, though it holds them: then no checkout's are read.
fn ignored_by_commit(
    files: &CommitFiles,
    part: &Part,
    paths: &[&str],
    blobs: &mut BlobDigests,
) -> Result<(), Unlike> {
    // Where a submodule is ignored by what is around it, so is all that is in it.
    let is_around = |other: &&Part| part.prefix.starts_with(&other.prefix);
    let around = files.parts.iter().filter(is_around);
    let around = around.filter(|other| other.prefix.len() < part.prefix.len());
    if let Some(around) = around.max_by_key(|other| other.prefix.len()) {
        let submodule = part.prefix.trim_end_matches('/');
        if ignored_by_commit(files, around, &[submodule], blobs).is_ok() {
            return Ok(());
        }
    }
    let unknown = |detail| Unlike::Unknown { detail };
    let below = |path: &'_ str| {
        path.strip_prefix(part.prefix.as_str())
            .unwrap_or(path)
            .to_owned()
    };
    let asked: Vec<String> = paths.iter().map(|path| below(path)).collect();
    let mut check = git(&part.directory);
    check.args([
        "check-ignore",
        "--no-index",
        "--verbose",
        "--non-matching",
        "-z",
        "--stdin",
    ]);
    // 1 says that it ignores none of them.
    let said = output_about(&mut check, asked.iter().map(String::as_str), |code| {
        code <= 1
    });
    let said = said.map_err(unknown)?;
    let said = String::from_utf8_lossy(&said);
    let said: Vec<&str> = said.split('\0').collect();
    let top = top_of(&part.directory)?;
    let mut own = HashSet::new();
    for (path, said) in paths.iter().zip(said.chunks(FIELDS_OF_IGNORED)) {
        let by = said.first().copied().filter(|by| !by.is_empty());
        let mut is_own = |by: &str| {
            let file = top.join(by);
            let digest = std::fs::read(&file).map(|bytes| Digest::of(&bytes));
            digest.is_ok_and(|digest| is_of(files, &file, digest, blobs).is_ok())
        };
        if by.is_none_or(|by| !own.contains(by) && !is_own(by)) {
            return Err(Unlike::Ignored {
                path: (*path).to_owned(),
                by: by.map(str::to_owned),
            });
        }
        own.extend(by);
    }
    Ok(())
}
