//! In what a tree differs from a commit.

/// In what a tree, or what was read of it, differs from its commit. Each names what to look at; put it right, or take
/// it that the run says nothing of the commit.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unlike {
    /// `git status` says so: somebody is at work.
    #[error("{path} {how}")]
    Status {
        /// Relative to the repository.
        path: String,
        /// What is with it.
        how: &'static str,
    },
    /// A file has been changed, and `git status` does not show it. Check it out with other settings.
    #[error(
        "{path} has been changed since the commit, though `git status` does not show it, as it is configured here \
         (`core.autocrlf`, `core.fileMode`, `core.fsmonitor`, say)"
    )]
    Hidden {
        /// Relative to the repository.
        path: String,
    },
    /// Another commit was checked out meanwhile. Run again.
    #[error("{} was checked out when reading began, and {after} when it ended", before.as_deref().unwrap_or("nothing"))]
    Moved {
        /// The commit before.
        before: Option<String>,
        /// The commit after.
        after: String,
    },
    /// Git does not look at a file. Have it look again.
    #[error(
        "git has been told to overlook what becomes of {path}; `git update-index {option} {path}` ends that"
    )]
    Overlooked {
        /// Relative to the directory.
        path: String,
        /// Which option of `git update-index` has it look.
        option: &'static str,
    },
    /// Something is read that nobody else gets with the commit. Add it, or leave it out of the inputs.
    #[error("{path} was read, and the commit has no such file")]
    NotInCommit {
        /// Its path.
        path: String,
    },
    /// A file is not the commit's. It has been changed, or what is configured on this machine (`core.autocrlf`,
    /// say) has made another one of it.
    #[error("{path}, as it was read, is not the file that a checkout of the commit holds")]
    OtherContent {
        /// Its path.
        path: String,
    },
    /// A file is not what it is in the commit.
    #[error("{path} is {here} here, and {there} in the commit")]
    OtherKind {
        /// Its path.
        path: String,
        /// What it is here.
        here: &'static str,
        /// What the commit has.
        there: &'static str,
    },
    /// A file is not here (`git sparse-checkout`, say), though the inputs mean it.
    #[error("{path} is not here, and the commit has it")]
    Absent {
        /// Its path.
        path: String,
    },
    /// A submodule is not here. Check it out, or leave it out of the inputs.
    #[error("the submodule {path} is not here; `git submodule update --init {path}` checks it out")]
    AbsentSubmodule {
        /// Its path.
        path: String,
    },
    /// What has git ignore a file of the commit is not of the commit itself.
    #[error("{path} was not read, since {} has git ignore it: that is not the commit's own", by.as_deref().unwrap_or("something"))]
    Ignored {
        /// Its path.
        path: String,
        /// The file that says so, if git says which.
        by: Option<String>,
    },
    /// It is not known what the commit holds.
    #[error("what the commit holds is not known: {detail}")]
    Unknown {
        /// Why.
        detail: String,
    },
}
