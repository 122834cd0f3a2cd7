//! The directory that makes an agent the same agent after a restart.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use regatta_model::AgentId;
use rustix::fs::{FlockOperation, flock};

use crate::error::AgentError;

/// How much of the hostname an agent's made-up name starts with, in characters.
const HOSTNAME_PREFIX_CHARS: usize = 63;

/// A state directory, locked against other agents for as long as this value lives.
#[derive(Debug)]
pub(crate) struct StateDirectory {
    path: PathBuf,
    _lock: File,
}

impl StateDirectory {
    /// Makes the directory if need be and locks it. Scratch space of earlier processes is removed.
    pub(crate) fn open(path: &Path) -> Result<Self, AgentError> {
        fs::create_dir_all(path).map_err(failed("creating it", path))?;
        let path = fs::canonicalize(path).map_err(failed("resolving it", path))?;
        let lock_path = path.join("lock");
        let lock = File::create(&lock_path).map_err(failed("opening its lock", &lock_path))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(AgentError::Locked { path }),
            Err(error) => return Err(failed("locking it", &lock_path)(error.into())),
        }
        let directory = Self { path, _lock: lock };
        directory.remove_scratch()?;
        let scratch = directory.scratch();
        fs::create_dir_all(&scratch).map_err(failed("creating scratch space", &scratch))?;
        Ok(directory)
    }

    /// Where temporary files go.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.path.join("scratch")
    }

    /// Where blobs are cached.
    pub(crate) fn blobs(&self) -> PathBuf {
        self.path.join("blobs")
    }

    /// Where input trees are laid out.
    pub(crate) fn trees(&self) -> PathBuf {
        self.path.join("trees")
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn remove_scratch(&self) -> Result<(), AgentError> {
        let scratch = self.scratch();
        match fs::remove_dir_all(&scratch) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("removing scratch space", &scratch)(error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// The name kept here, made at the first start.
    pub(crate) fn agent_id(&self) -> Result<AgentId, AgentError> {
        let path = self.path.join("agent-id");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let made = format!("{}-{}", hostname_prefix(), uuid::Uuid::new_v4().simple());
                self.keep(&path, &made)
                    .map_err(failed("keeping the agent's name", &path))?;
                made
            }
            Err(error) => return Err(failed("reading the agent's name", &path)(error)),
        };
        text.trim()
            .parse()
            .map_err(|source| AgentError::InvalidAgentId { path, source })
    }

    /// Whole or not at all, across a crash.
    fn keep(&self, path: &Path, text: &str) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.path)?;
        writeln!(file, "{text}")?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    }
}

/// This machine's name.
pub(crate) fn hostname() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

fn hostname_prefix() -> String {
    let plain = |character: &char| character.is_ascii_alphanumeric() || "-._".contains(*character);
    let name: String = hostname()
        .chars()
        .filter(plain)
        .take(HOSTNAME_PREFIX_CHARS)
        .collect();
    if name.is_empty() {
        "agent".to_owned()
    } else {
        name
    }
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> AgentError {
    let path = path.to_owned();
    move |source| AgentError::StateDirectory {
        operation,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_made_once() {
        let directory = tempfile::tempdir().unwrap();
        let first = StateDirectory::open(directory.path())
            .unwrap()
            .agent_id()
            .unwrap();
        let second = StateDirectory::open(directory.path())
            .unwrap()
            .agent_id()
            .unwrap();
        assert_eq!(first, second);
    }

    #[test]
    fn a_second_agent_is_told_that_the_directory_is_taken() {
        let directory = tempfile::tempdir().unwrap();
        let _first = StateDirectory::open(directory.path()).unwrap();
        let error = StateDirectory::open(directory.path()).unwrap_err();
        assert!(matches!(error, AgentError::Locked { .. }), "{error}");
    }

    #[test]
    fn stale_scratch_space_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let stale = directory.path().join("scratch/slot/file");
        fs::create_dir_all(stale.parent().unwrap()).unwrap();
        fs::write(&stale, "x").unwrap();
        let _opened = StateDirectory::open(directory.path()).unwrap();
        assert!(!stale.exists());
    }
}
