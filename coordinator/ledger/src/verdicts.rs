//! Verdicts that were given, which are kept as they were.

use regatta_model::{Digest, RunId, TenantId, Timestamp, Verdict};

/// A verdict that somebody was given: its signed bundle is a blob, and whoever signs it with another key says it
/// anew.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GivenVerdict {
    /// Whom it was given to.
    pub tenant: TenantId,
    /// The blob with all that was signed. It tells one verdict of a tenant from another.
    pub bundle: Digest,
    /// The commit that it speaks of; empty if files differed from it, or there was none.
    pub commit: String,
    /// The run that speaks first.
    pub run: RunId,
    /// What it says.
    pub verdict: Verdict,
    /// Of the policy that it was given by; `None` if nobody said what is required.
    pub policy: Option<Digest>,
    /// The key that verifies it, in PEM.
    pub public_key: String,
    /// When it was given first.
    pub first_given_at: Timestamp,
    /// When it was given last.
    pub last_given_at: Timestamp,
}

/// Something made that a verdict names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NamedArtefact {
    /// `job/path`.
    pub name: String,
    /// Of the file, or of the directory's `Tree`.
    pub digest: Digest,
    /// Whether it is a directory, whose files are named by its `Tree`.
    pub is_tree: bool,
}

/// Which verdicts to find.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct VerdictQuery {
    /// Only this tenant's.
    pub tenant: Option<TenantId>,
    /// Only those that speak of this commit.
    pub commit: Option<String>,
    /// Only those in which this run speaks first.
    pub run: Option<RunId>,
    /// Only this one.
    pub bundle: Option<Digest>,
    /// At most so many.
    pub limit: usize,
}

/// A blob that verdicts keep: the bundle of one, or an artefact that some name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeptBlob {
    /// Whom the verdicts were given to.
    pub tenant: TenantId,
    /// Which blob.
    pub digest: Digest,
    /// Whether it is the `Tree` of a directory, whose files are kept as well.
    pub is_tree: bool,
    /// When the last of the verdicts was given.
    pub last_given_at: Timestamp,
}
