//! URLs into object stores.

use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;

use super::abandoned_uploads::AbandonedUploads;
use super::local_directory::LocalDirectory;
use super::upload_shape::UploadShape;

/// How old a temporary file is before it cannot belong to a write under way.
const STALE_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenStoreError {
    /// The text has no scheme. Write it as a URL.
    #[error("{url:?} is not a URL such as file:///var/lib/regatta or s3://bucket/prefix")]
    NotUrl {
        /// The text.
        url: String,
    },
    /// The scheme is none that Regatta knows. Use another.
    #[error("{url:?} has the unknown scheme {scheme:?}; known are file, memory, s3, gs and azure")]
    UnknownScheme {
        /// The URL.
        url: String,
        /// Its scheme.
        scheme: String,
    },
    /// This build cannot reach such a store. Build with the feature.
    #[error("this build cannot open {url:?}; build it with the feature {feature:?}")]
    NotBuiltIn {
        /// The URL.
        url: String,
        /// The cargo feature that is missing.
        feature: &'static str,
    },
    /// A `file:` URL that names no absolute directory. Write `file:///directory`.
    #[error("{url:?} names no absolute directory on this machine; write file:///directory")]
    NotLocalDirectory {
        /// The URL.
        url: String,
    },
    /// The directory cannot be made or written. Check its permissions.
    #[error("cannot use the directory {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What came back.
        source: std::io::Error,
    },
    /// The bucket cannot be set up: bad URL, or something missing in the environment.
    #[error("cannot set up {url:?}")]
    Bucket {
        /// The URL.
        url: String,
        /// What object_store says.
        source: object_store::Error,
    },
}

/// An object store and where in it the blobs are.
pub(super) struct Opened {
    pub(super) objects: Arc<dyn ObjectStore>,
    pub(super) prefix: Path,
    pub(super) shape: UploadShape,
    pub(super) directory: Option<LocalDirectory>,
    /// What aborts uploads that nobody will end, where they would stay.
    pub(super) uploads: Option<AbandonedUploads>,
}

pub(super) fn open(url: &str) -> Result<Opened, OpenStoreError> {
    let owned = || url.to_owned();
    let (scheme, rest) = url
        .split_once("://")
        .ok_or_else(|| OpenStoreError::NotUrl { url: owned() })?;
    match scheme {
        "file" => open_directory(url, rest),
        "memory" => {
            let prefix = Path::from(rest);
            Ok(Opened {
                objects: Arc::new(InMemory::new()),
                prefix,
                shape: UploadShape::BUCKET,
                directory: None,
                uploads: None,
            })
        }
        "s3" => bucket::s3(url, rest),
        "gs" => bucket::gcs(url, rest),
        "azure" => bucket::azure(url, rest),
        _ => Err(OpenStoreError::UnknownScheme {
            url: owned(),
            scheme: scheme.to_owned(),
        }),
    }
}

fn open_directory(url: &str, path: &str) -> Result<Opened, OpenStoreError> {
    let refused = || OpenStoreError::NotLocalDirectory {
        url: url.to_owned(),
    };
    let decoded = percent_decoded(path).ok_or_else(refused)?;
    let path = PathBuf::from(decoded);
    if !path.is_absolute() {
        return Err(refused());
    }
    in_directory(path)
}

/// The store in a directory, which is made if it is absent.
pub(super) fn in_directory(path: PathBuf) -> Result<Opened, OpenStoreError> {
    let unusable = |source| OpenStoreError::Directory {
        path: path.clone(),
        source,
    };
    std::fs::create_dir_all(&path).map_err(unusable)?;
    remove_stale_files(&path, SystemTime::now() - STALE_AFTER).map_err(unusable)?;
    let objects =
        LocalFileSystem::new_with_prefix(&path).map_err(|source| OpenStoreError::Bucket {
            url: path.display().to_string(),
            source,
        })?;
    let objects = Arc::new(objects);
    Ok(Opened {
        objects,
        prefix: Path::default(),
        shape: UploadShape::DIRECTORY,
        directory: Some(LocalDirectory::new(path)),
        uploads: None,
    })
}

/// The text of a URL's path with `%41` as `A`.
fn percent_decoded(text: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digits = [bytes.next()?, bytes.next()?];
        let digits = std::str::from_utf8(&digits).ok()?;
        decoded.push(u8::from_str_radix(digits, 16).ok()?);
    }
    String::from_utf8(decoded).ok()
}

/// Removes the temporary files of writes that were killed before `deadline`.
fn remove_stale_files(root: &FilePath, deadline: SystemTime) -> std::io::Result<()> {
    for directory in std::fs::read_dir(root)? {
        let directory = directory?;
        if directory.file_type()?.is_dir() && directory.file_name().len() == 2 {
            remove_stale_files_in(&directory.path(), deadline)?;
        }
    }
    Ok(())
}

fn remove_stale_files_in(directory: &FilePath, deadline: SystemTime) -> std::io::Result<()> {
    for file in std::fs::read_dir(directory)? {
        let file = file?;
        let is_temporary = file.file_name().as_encoded_bytes().contains(&b'#');
        if is_temporary && file.metadata()?.modified()? < deadline {
            std::fs::remove_file(file.path())?;
        }
    }
    Ok(())
}

pub(super) mod bucket;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_no_store_is_refused_by_name() {
        assert!(matches!(
            open("/var/lib"),
            Err(OpenStoreError::NotUrl { .. })
        ));
        assert!(matches!(
            open("ftp://host/x"),
            Err(OpenStoreError::UnknownScheme { .. })
        ));
        for url in ["file://relative/x", "file://", "file:///%ff", "file:///%4"] {
            let refused = open(url);
            assert!(
                matches!(refused, Err(OpenStoreError::NotLocalDirectory { .. })),
                "{url}"
            );
        }
        assert!(matches!(
            open("file:///dev/null/x"),
            Err(OpenStoreError::Directory { .. })
        ));
    }

    #[test]
    fn stale_temporary_files_go_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("ab");
        std::fs::create_dir(&directory).unwrap();
        for name in ["abc-1", "abc-1#1"] {
            std::fs::write(directory.join(name), b"x").unwrap();
        }
        let left = || std::fs::read_dir(&directory).unwrap().count();
        remove_stale_files(root.path(), SystemTime::now() - STALE_AFTER).unwrap();
        assert_eq!(left(), 2);
        remove_stale_files(root.path(), SystemTime::now() + STALE_AFTER).unwrap();
        assert_eq!(left(), 1);
        assert!(directory.join("abc-1").exists());
    }
}
