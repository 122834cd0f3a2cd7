//! What is known of what is stored.

use regatta_model::Digest;

/// What something stored is. What names others comes before what it names: that is the order in which things
/// go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// An action result, which names blobs.
    Result,
    /// An asset, which names blobs.
    Asset,
    /// What a blob is made of, which names chunks: blobs that are stored as wholes.
    Mapping,
    /// A blob that is stored as a whole.
    Blob,
}

impl Kind {
    /// All kinds, in the order in which they go.
    pub(crate) const ALL: [Self; 4] = [Self::Result, Self::Asset, Self::Mapping, Self::Blob];

    /// The name of the place below the storage's URL where things of this kind are.
    pub(crate) const fn place(self) -> &'static str {
        match self {
            Self::Result => "ac",
            Self::Asset => "assets",
            Self::Mapping => "chunks",
            Self::Blob => "cas",
        }
    }
}

/// Where something is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) kind: Kind,
    pub(crate) digest: Digest,
}

/// A moment of use, in seconds since 1970; the log rounds it down.
pub(crate) type Seconds = u32;

/// Who uses something: a tenant by a number that the log knows, or one of those that are none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Claimant(pub(crate) u16);

impl Claimant {
    /// Nobody in particular: what was found in the store, and what the coordinator itself uses. Its uses
    /// count for everybody who has used the same.
    pub(crate) const NOBODY: Self = Self(0);
    /// The verdicts that were given, which name artefacts.
    pub(crate) const VERDICTS: Self = Self(1);
    /// The first tenant.
    pub(crate) const FIRST_TENANT: Self = Self(2);
}

/// That somebody used something, and when last. A moment in the future keeps it until then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) claimant: Claimant,
    pub(crate) used: Seconds,
}

/// Something stored, and who used it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: Key,
    pub(crate) size_bytes: u64,
    /// Never empty; one for each claimant.
    pub(crate) claims: Vec<Claim>,
}

impl Entry {
    /// When anybody used it last.
    pub(crate) fn last_used(&self) -> Seconds {
        let used = self.claims.iter().map(|claim| claim.used);
        used.max().unwrap_or(Seconds::MAX)
    }
}
