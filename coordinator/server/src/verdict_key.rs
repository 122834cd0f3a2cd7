//! The key that signs verdicts.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use regatta_verdict::{InvalidKeyError, NewKeyError, SigningKey};

/// Why there is no key to sign with.
#[derive(Debug, thiserror::Error)]
pub enum VerdictKeyError {
    /// The file cannot be read or made. Check the path and its permissions.
    #[error("the verdict key {} cannot be used", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What came back.
        source: io::Error,
    },
    /// The file holds something else. Use one that `regatta keys --new FILE` made.
    #[error("the verdict key {} cannot be used", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: InvalidKeyError,
    },
    /// There is none yet, and none can be made.
    #[error("no verdict key can be made")]
    New(#[from] NewKeyError),
}

/// The key in `path`, which must be there.
pub(crate) fn read(path: &Path) -> Result<SigningKey, VerdictKeyError> {
    let path = path.to_owned();
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            SigningKey::from_pem(&text).map_err(|source| VerdictKeyError::Invalid { path, source })
        }
        Err(source) => Err(VerdictKeyError::Unusable { path, source }),
    }
}

/// The key in `path`, made if there is none.
pub(crate) fn read_or_make(path: &Path) -> Result<SigningKey, VerdictKeyError> {
    match make(path) {
        Err(VerdictKeyError::Unusable { source, .. })
            if source.kind() == io::ErrorKind::AlreadyExists =>
        {
            read(path)
        }
        made => made,
    }
}

/// Makes a key in a file that must not be there.
///
/// # Errors
/// [`VerdictKeyError`]; a key that exists stays as it is.
pub fn make(path: &Path) -> Result<SigningKey, VerdictKeyError> {
    let unusable = |source| VerdictKeyError::Unusable {
        path: path.to_owned(),
        source,
    };
    let key = SigningKey::generate()?;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    // Whole or not at all, and nobody else's: the file is new, has a name that nobody knows, and may be read
    // by its owner alone.
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(unusable)?;
    file.write_all(key.to_pem().as_bytes()).map_err(unusable)?;
    file.as_file().sync_all().map_err(unusable)?;
    let kept = file.persist_noclobber(path);
    kept.map_err(|error| unusable(error.error))?;
    let directory = std::fs::File::open(directory).map_err(unusable)?;
    directory.sync_all().map_err(unusable)?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_kept_from_others() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("key.pem");
        let made = read_or_make(&path).expect("is made");
        let again = read_or_make(&path).expect("is there");
        assert_eq!(made.public(), again.public());
        assert!(make(&path).is_err(), "it is not written over");
        assert_eq!(read(&path).expect("is there").public(), made.public());
        let mode = path.metadata().expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(directory.path().read_dir().expect("lists").count(), 1);
        std::fs::write(&path, "no key").expect("written");
        assert!(matches!(
            read_or_make(&path),
            Err(VerdictKeyError::Invalid { .. })
        ));
        assert!(read(&directory.path().join("none")).is_err());
    }
}
