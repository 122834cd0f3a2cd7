//! What a commit's own configuration requires of a release, where a run is of another file.

use std::path::{Path, PathBuf};

use regatta_model::Digest;
use regatta_verdict::Policy;

use crate::exit_code::Failure;
use crate::{config, git};

/// What it says, and the files that it is said in, as they were read.
#[derive(Debug, Default)]
pub(super) struct CommitPolicy {
    pub(super) policy: Option<Policy>,
    pub(super) read: Vec<(PathBuf, Digest)>,
}

impl CommitPolicy {
    /// Of the commit that is checked out around `directory`, for a run of the file at this place in it. There is none for
    /// a run of the commit's own, nor of a file that is not in the commit. Blocks.
    ///
    /// # Errors
    /// Nobody can say what it requires: the file is no configuration.
    pub(super) fn beside(place: &str, directory: &Path) -> Result<Self, Failure> {
        let top = git::top_of(directory).filter(|_| !place.is_empty());
        let Some(top) = top else {
            return Ok(Self::default());
        };
        let mut files = config::FILES.iter().map(|name| top.join(name));
        let file = files.find(|file| file.is_file() && git::knows(&top, file));
        let Some(file) = file else {
            return Ok(Self::default());
        };
        let pipeline = config::load(&file, &top)?;
        Ok(Self {
            policy: pipeline.policy,
            read: pipeline.read,
        })
    }
}
