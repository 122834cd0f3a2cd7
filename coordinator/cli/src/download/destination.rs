//! A directory that outputs are put into, and out of which nothing leads.
//!
//! What an earlier download or anybody else put there is not trusted: no symlink below the directory is
//! followed, whatever it points to.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, mkdirat, openat, renameat, symlinkat, unlinkat};
use uuid::Uuid;

use super::DownloadError;

/// The directory's open root.
#[derive(Debug)]
pub(super) struct Destination {
    root: OwnedFd,
    /// For messages.
    shown: PathBuf,
}

/// Where one output goes: its directory, open, and its name there.
struct Place<'a> {
    directory: OwnedFd,
    name: &'a OsStr,
    shown: PathBuf,
}

/// A file that is not yet under its name; it goes away again unless it gets there.
#[derive(Debug)]
pub(super) struct NewFile {
    pub(super) file: File,
    directory: OwnedFd,
    temporary: Option<String>,
    name: std::ffi::OsString,
    shown: PathBuf,
}

impl Destination {
    /// Makes the directory if need be. It may be reached through symlinks; they are its owner's.
    pub(super) fn open(directory: &Path) -> Result<Self, DownloadError> {
        let failed = |source| DownloadError::Write {
            path: directory.to_owned(),
            source,
        };
        std::fs::create_dir_all(directory).map_err(failed)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(CWD, directory, flags, Mode::empty());
        Ok(Self {
            root: root.map_err(io::Error::from).map_err(failed)?,
            shown: directory.to_owned(),
        })
    }

    /// Makes a directory, and those above it.
    pub(super) fn create_directory(&self, path: &str) -> Result<(), DownloadError> {
        self.descend(Path::new(path), path).map(drop)
    }

    /// Begins a file.
    pub(super) fn create_file(
        &self,
        path: &str,
        executable: bool,
    ) -> Result<NewFile, DownloadError> {
        let place = self.place(path)?;
        let temporary = temporary_name();
        let mode = if executable { 0o755 } else { 0o644 };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(mode);
        let file = openat(&place.directory, &temporary, flags, mode)
            .map(File::from)
            .map_err(|error| place.failed(error.into()))?;
        Ok(NewFile {
            file,
            temporary: Some(temporary),
            name: place.name.to_owned(),
            shown: place.shown,
            directory: place.directory,
        })
    }

    /// Makes a symlink; one that is there already is replaced.
    pub(super) fn create_symlink(&self, path: &str, target: &str) -> Result<(), DownloadError> {
        let place = self.place(path)?;
        let temporary = temporary_name();
        let made = symlinkat(target, &place.directory, &temporary).and_then(|()| {
            let renamed = renameat(&place.directory, &temporary, &place.directory, place.name);
            if renamed.is_err() {
                remove(&place.directory, &temporary);
            }
            renamed
        });
        made.map_err(|error| place.failed(error.into()))
    }

    fn place<'a>(&self, path: &'a str) -> Result<Place<'a>, DownloadError> {
        let path_ = Path::new(path);
        let (Some(name), Some(parent)) = (path_.file_name(), path_.parent()) else {
            return Err(outside(path));
        };
        Ok(Place {
            directory: self.descend(parent, path)?,
            name,
            shown: self.shown.join(path),
        })
    }

    /// Opens a directory below the root, making it and those above it; `path` is what is told if that
    /// leads out.
    fn descend(&self, directory: &Path, path: &str) -> Result<OwnedFd, DownloadError> {
        let failed = |reached: &Path, error: rustix::io::Errno| {
            let source = match error {
                rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR => {
                    io::Error::other("it is no directory, and symlinks are not followed; remove it")
                }
                error => error.into(),
            };
            DownloadError::Write {
                path: self.shown.join(reached),
                source,
            }
        };
        let mut reached = PathBuf::new();
        let mut open = rustix::io::fcntl_dupfd_cloexec(&self.root, 0)
            .map_err(|error| failed(&reached, error))?;
        for part in directory.components() {
            let Component::Normal(name) = part else {
                return Err(outside(path));
            };
            reached.push(name);
            match mkdirat(&open, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(failed(&reached, error)),
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            open = openat(&open, name, flags, Mode::empty())
                .map_err(|error| failed(&reached, error))?;
        }
        Ok(open)
    }
}

impl Place<'_> {
    fn failed(&self, source: io::Error) -> DownloadError {
        DownloadError::Write {
            path: self.shown.clone(),
            source,
        }
    }
}

impl NewFile {
    /// Puts the file under its name; what was there before is replaced.
    pub(super) fn keep(mut self) -> Result<(), DownloadError> {
        let Some(temporary) = self.temporary.take() else {
            return Ok(());
        };
        let kept = renameat(&self.directory, &temporary, &self.directory, &*self.name);
        kept.map_err(|error| {
            remove(&self.directory, &temporary);
            self.failed(error.into())
        })
    }

    /// Writing it failed.
    pub(super) fn failed(&self, source: io::Error) -> DownloadError {
        DownloadError::Write {
            path: self.shown.clone(),
            source,
        }
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            remove(&self.directory, temporary);
        }
    }
}

fn temporary_name() -> String {
    format!(".regatta-{}", Uuid::new_v4().simple())
}

/// Removes what was not finished; if even that fails, there is nothing more to do about it.
fn remove(directory: &OwnedFd, name: &str) {
    if let Err(error) = unlinkat(directory, name, AtFlags::empty()) {
        tracing::warn!(name, %error, "an unfinished download is left behind");
    }
}

fn outside(path: &str) -> DownloadError {
    DownloadError::Invalid {
        path: path.to_owned(),
        problem: "is no path inside the working directory",
    }
}
