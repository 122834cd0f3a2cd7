//! What a checkout of a commit holds, where filters or line endings make that something else than git has stored.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use regatta_cas::merkle::digest_files;
use regatta_model::Digest;

use super::command::{git, output, output_about};
use super::commit_files::Part;

/// What files of a commit hold once they are checked out, by path relative to the part's directory. The commit is
/// checked out aside: the repository's own index and files are left alone.
pub(super) fn checked_out(part: &Part, paths: &[&str]) -> Result<HashMap<String, Digest>, String> {
    let aside = tempfile::tempdir().map_err(|error| error.to_string())?;
    let index = aside.path().join("index");
    let in_aside = || {
        let mut git = git(&part.directory);
        git.env("GIT_INDEX_FILE", &index)
            .args(["-c", "core.sparseCheckout=false"]);
        git
    };
    output(in_aside().args(["read-tree", &part.commit]))?;
    let mut to = OsString::from("--prefix=");
    to.push(aside.path().join("files"));
    to.push("/");
    let mut checkout = in_aside();
    checkout.args(["checkout-index", "--stdin", "-z"]).arg(to);
    output_about(&mut checkout, paths.iter().copied(), |code| code == 0)?;
    let top = aside.path().join("files").join(place(&part.directory)?);
    let files: Vec<PathBuf> = paths.iter().map(|path| top.join(path)).collect();
    let digests = digest_files(&files, None).map_err(|error| error.to_string())?;
    let paths = paths.iter().map(|path| (*path).to_owned());
    Ok(paths.zip(digests.digests).collect())
}

/// Where a directory is in its repository.
fn place(directory: &Path) -> Result<String, String> {
    let place = output(git(directory).args(["rev-parse", "--show-prefix"]))?;
    let place = String::from_utf8(place).map_err(|error| error.to_string())?;
    Ok(place.trim_end_matches('\n').to_owned())
}
