//! Where files are kept that belong to the user and not to a repository.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use regatta_model::Digest;

/// Neither the directory's variable nor HOME is set. Set one of them.
#[derive(Debug, thiserror::Error)]
#[error("{variable} and HOME are not set; set one of them, or name a directory with {option}")]
pub struct NoHomeError {
    variable: &'static str,
    option: &'static str,
}

/// Where daemons keep what must outlive them, unless they are told (XDG Base Directory Specification).
///
/// # Errors
/// The environment does not say where the user's files are.
pub fn state(name: &str) -> Result<PathBuf, NoHomeError> {
    let base = base("XDG_STATE_HOME", ".local/state", "--state-dir")?;
    Ok(base.join("regatta").join(name))
}

/// How long the digests of a project that nobody works on are remembered.
const DIGESTS_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// Where the digests of the files below `root` are remembered. Those of other projects that were not used
/// for a month are forgotten on the way.
///
/// # Errors
/// The environment does not say where the user's files are.
pub fn digest_cache(root: &Path) -> Result<PathBuf, NoHomeError> {
    let base = base("XDG_CACHE_HOME", ".cache", "XDG_CACHE_HOME")?;
    let directory = base.join("regatta").join("digests");
    let name = Digest::of(root.as_os_str().as_encoded_bytes()).hash_hex();
    let file = directory.join(name);
    if let Err(error) = keep_in_use(&directory, &file, SystemTime::now()) {
        tracing::debug!(directory = %directory.display(), %error, "old digests are not forgotten");
    }
    Ok(file)
}

/// Notes that `file` is in use, and removes the files beside it that were not for too long.
fn keep_in_use(directory: &Path, file: &Path, now: SystemTime) -> io::Result<()> {
    if let Ok(file) = File::options().append(true).open(file) {
        file.set_modified(now)?;
    }
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let used = entry.metadata()?.modified()?;
        if now.duration_since(used).is_ok_and(|age| age > DIGESTS_KEPT) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn base(
    variable: &'static str,
    below_home: &str,
    option: &'static str,
) -> Result<PathBuf, NoHomeError> {
    let absolute = |name: &str| {
        let path = std::env::var_os(name).map(PathBuf::from);
        path.filter(|path| path.is_absolute())
    };
    absolute(variable)
        .or_else(|| absolute("HOME").map(|home| home.join(below_home)))
        .ok_or(NoHomeError { variable, option })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_that_nobody_used_for_a_month_are_forgotten() {
        let directory = tempfile::tempdir().expect("a directory");
        let at = |name: &str| directory.path().join(name);
        let now = SystemTime::now();
        for (name, age) in [("ours", 40), ("old", 31), ("recent", 29)] {
            let file = File::create(at(name)).expect("a file");
            let used = now - Duration::from_secs(age * 24 * 3600);
            file.set_modified(used).expect("a time");
        }
        keep_in_use(directory.path(), &at("ours"), now).expect("they can be removed");
        let left = ["ours", "old", "recent"].map(|name| at(name).exists());
        assert_eq!(left, [true, false, true]);
        let nowhere = at("nowhere");
        keep_in_use(&nowhere, &nowhere.join("x"), now).expect("there is nothing to do");
    }
}
