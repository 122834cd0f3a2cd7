//! What a checkout of a commit holds, where filters or line endings make that something else than git has stored.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use regatta_cas::merkle::digest_files;
use regatta_model::Digest;

use super::command::{git, output, output_about};
use super::commit_files::Part;

/// What files of a commit hold once they are checked out, by path relative to the part's directory. The commit is
/// checked out aside: the repository's own index and files are left alone.
pub(super) fn checked_out(part: &Part, paths: &[&str]) -> Result<HashMap<String, Digest>, String> {
    refuse_own_attributes(part)?;
    let aside = tempfile::tempdir().map_err(|error| error.to_string())?;
    let (index, nothing) = (aside.path().join("index"), aside.path().join("nothing"));
    std::fs::create_dir(&nothing).map_err(|error| error.to_string())?;
    let place = place(&part.directory)?;
    let repository = line(git(&part.directory).args(["rev-parse", "--absolute-git-dir"]))?;
    // As if nothing were checked out: files of attributes that are would count before the commit's.
    let in_aside = || {
        let mut git = git(&part.directory);
        git.env("GIT_INDEX_FILE", &index)
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_DIR", &repository)
            .env("GIT_WORK_TREE", &nothing)
            .current_dir(&nothing)
            .args(["-c", "core.sparseCheckout=false"]);
        git
    };
    output(in_aside().args(["read-tree", &part.commit]))?;
    let mut to = OsString::from("--prefix=");
    to.push(aside.path().join("files"));
    to.push("/");
    let mut checkout = in_aside();
    checkout.args(["checkout-index", "--stdin", "-z"]).arg(to);
    let placed: Vec<String> = paths.iter().map(|path| format!("{place}{path}")).collect();
    let placed = placed.iter().map(String::as_str);
    output_about(&mut checkout, placed, |code| code == 0)?;
    let top = aside.path().join("files").join(place);
    let files: Vec<PathBuf> = paths.iter().map(|path| top.join(path)).collect();
    let digests = digest_files(&files, None).map_err(|error| error.to_string())?;
    let paths = paths.iter().map(|path| (*path).to_owned());
    Ok(paths.zip(digests.digests).collect())
}

/// A repository's own attributes, which are in no commit, count whatever git is told.
fn refuse_own_attributes(part: &Part) -> Result<(), String> {
    let file = line(git(&part.directory).args(["rev-parse", "--git-path", "info/attributes"]))?;
    let file = part.directory.join(file);
    match std::fs::read_to_string(&file) {
        Ok(text) if !text.trim().is_empty() => Err(format!(
            "{} has attributes that are in no commit: move them to .gitattributes",
            file.display()
        )),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Where a directory is in its repository.
fn place(directory: &Path) -> Result<String, String> {
    line(git(directory).args(["rev-parse", "--show-prefix"]))
}

fn line(git: &mut Command) -> Result<String, String> {
    let line = String::from_utf8(output(git)?).map_err(|error| error.to_string())?;
    Ok(line.trim_end_matches('\n').to_owned())
}
