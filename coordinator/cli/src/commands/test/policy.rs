//! What a release of the project here requires, and whether tests without configuration can answer for it.

use std::path::{Path, PathBuf};

use regatta_model::Digest;
use regatta_verdict::Policy;

use crate::commands::commit_policy::CommitPolicy;
use crate::commands::run::place_of;
use crate::config;
use crate::exit_code::Failure;
use crate::git;

/// What the configuration says of a run without configured jobs.
#[derive(Debug, Default)]
pub(super) struct OwnPolicy {
    pub(super) policy: Option<Policy>,
    /// What the commit's own configuration says, if that is another.
    pub(super) commit_policy: Option<Policy>,
    /// Where the configuration is in the commit; empty for the commit's own, or if there is none.
    pub(super) place: String,
    /// Whether it has jobs of its own. Then a suite that was found without it answers for none that the policy
    /// requires, whatever its name is.
    pub(super) has_jobs: bool,
    /// The configuration, as it was read.
    pub(super) read: Vec<(PathBuf, Digest)>,
}

/// The policy of the configuration that `directory` is under, if it is in the commit that is checked out there: one that
/// is not has no say. Blocks.
pub(super) fn policy_of(directory: &Path) -> Result<OwnPolicy, Failure> {
    let Ok((file, root)) = config::find(directory) else {
        return Ok(OwnPolicy::default());
    };
    // Asked for where the tests are: what is around a submodule is in no commit of it.
    match git::knows(directory, &file) {
        true => {
            let pipeline = config::load(&file, &root)?;
            let place = place_of(&file);
            let of_commit = CommitPolicy::beside(&place, directory)?;
            Ok(OwnPolicy {
                policy: pipeline.policy,
                commit_policy: of_commit.policy,
                place,
                has_jobs: !pipeline.jobs.is_empty(),
                read: [pipeline.read, of_commit.read].concat(),
            })
        }
        false => Ok(OwnPolicy::default()),
    }
}
