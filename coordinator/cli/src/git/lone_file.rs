//! Files that are no inputs and have a say all the same: what configures a run, and what has git ignore files.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use regatta_cas::merkle::OWNER_EXECUTES;
use regatta_model::Digest;

use super::blob_digests::BlobDigests;
use super::command::{git, output};
use super::commit_files::{CommitFiles, Kind, Part, parse};
use super::comparison::{same_checkout, same_kind};
use super::{Content, Unlike};

/// How many symlinks may lead to a file, as Linux has it (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// Whether a file, which held `digest` when it was read, is what the commit holds, and so are the symlinks of the
/// commit's checkout that lead to it.
pub(super) fn is_of(
    files: &CommitFiles,
    file: &Path,
    digest: Digest,
    blobs: &mut BlobDigests,
) -> Result<(), Unlike> {
    let Some(first) = files.parts.first() else {
        return Err(not_in_commit(file));
    };
    let top = top_of(&first.directory)?;
    let way = way(&top, file, digest);
    let way = way.map_err(|error| unknown(format!("{}: {error}", file.display())))?;
    let mut way = way.iter();
    way.try_for_each(|(place, content)| {
        // The submodule that it is in. The first part has all of its repository, wherever its own directory is there.
        let is_in = |part: &&Part| !part.prefix.is_empty() && place.starts_with(&part.directory);
        let submodules = files.parts.iter().filter(is_in);
        match submodules.max_by_key(|part| part.prefix.len()) {
            Some(part) => is_there(part, &part.directory, place, content, blobs),
            None => is_there(first, &top, place, content, blobs),
        }
    })
}

/// Whether a part, which is checked out in `top`, has this at this place.
fn is_there(
    part: &Part,
    top: &Path,
    place: &Path,
    content: &Content,
    blobs: &mut BlobDigests,
) -> Result<(), Unlike> {
    let nowhere = || not_in_commit(place);
    let (Some(directory), Some(name)) = (place.parent(), place.file_name()) else {
        return Err(nowhere());
    };
    let path = place.to_str().ok_or_else(nowhere)?;
    // Git has no answer where nothing is checked out.
    if top_of(directory).ok().as_deref() != Some(top) {
        return Err(nowhere());
    }
    let mut git = git(directory);
    git.env("GIT_LITERAL_PATHSPECS", "1");
    let found = output(git.args(["ls-tree", "-z", &part.commit, "--"]).arg(name));
    let found = found.map_err(unknown)?;
    let found = String::from_utf8_lossy(&found);
    let entry = found.strip_suffix('\0').and_then(parse);
    let (mode, object, _) = entry.ok_or_else(nowhere)?;
    let kind = Kind::of_mode(mode).ok_or_else(nowhere)?;
    same_kind(path, content, kind)?;
    let learnt = blobs.learn(directory, &HashSet::from([object]));
    learnt.map_err(unknown)?;
    if blobs
        .get(object)
        .is_some_and(|blob| blob.is(content.digest()))
    {
        return Ok(());
    }
    let here = Part {
        directory: directory.to_owned(),
        commit: part.commit.clone(),
        prefix: format!("{}/", directory.display()),
    };
    same_checkout(&here, std::iter::once((path, content)))
}

/// The symlinks below `top` through which a path leads, in their order, and the file at its end. No part of their own
/// paths is a symlink.
fn way(top: &Path, file: &Path, digest: Digest) -> io::Result<Vec<(PathBuf, Content)>> {
    let (mut way, mut at) = (Vec::new(), PathBuf::new());
    let mut left = names(file);
    let mut links = 0;
    while let Some(name) = left.pop() {
        if name == ".." {
            at.pop();
            continue;
        }
        let next = at.join(&name);
        if !next.symlink_metadata()?.is_symlink() {
            at = next;
            continue;
        }
        links += 1;
        if links > MOST_LINKS {
            return Err(io::Error::other("too many symlinks lead to it"));
        }
        let target = next.read_link()?;
        left.extend(names(&target));
        if next.starts_with(top) {
            let target = target.to_string_lossy().into_owned();
            way.push((next, Content::Symlink { target }));
        }
    }
    let executable = at.metadata()?.permissions().mode() & OWNER_EXECUTES != 0;
    way.push((at, Content::File { digest, executable }));
    Ok(way)
}

/// The names in a path, the last of them first.
fn names(path: &Path) -> Vec<OsString> {
    let names = path.components().map(|name| name.as_os_str());
    let names = names.filter(|name| *name != OsStr::new("."));
    names.rev().map(OsStr::to_owned).collect()
}

/// The top of the checkout that a directory is in.
pub(super) fn top_of(directory: &Path) -> Result<PathBuf, Unlike> {
    let mut git = git(directory);
    let top = output(git.args(["rev-parse", "--show-toplevel"])).map_err(unknown)?;
    let top = String::from_utf8_lossy(&top);
    Ok(PathBuf::from(top.trim_end_matches('\n')))
}

fn not_in_commit(path: &Path) -> Unlike {
    let path = path.display().to_string();
    Unlike::NotInCommit { path }
}

fn unknown(detail: String) -> Unlike {
    Unlike::Unknown { detail }
}
