//! Where files are kept that belong to the user and not to a repository.

use std::path::{Path, PathBuf};

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

/// Where the digests of the files below `root` are remembered.
///
/// # Errors
/// The environment does not say where the user's files are.
pub fn digest_cache(root: &Path) -> Result<PathBuf, NoHomeError> {
    let base = base("XDG_CACHE_HOME", ".cache", "XDG_CACHE_HOME")?;
    let name = Digest::of(root.as_os_str().as_encoded_bytes()).hash_hex();
    Ok(base.join("regatta").join("digests").join(name))
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
