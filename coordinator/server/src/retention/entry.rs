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

    /// Whether it names others and is named by none. Of several uses of it in one moment the first counts for its
    /// order: whoever uses it goes on to use what it names, but may go away in between.
    pub(crate) const fn is_named_by_none(self) -> bool {
        match self {
            Self::Result | Self::Asset => true,
            Self::Mapping | Self::Blob => false,
        }
    }

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
    /// Verdicts that were given to nobody in particular, which name artefacts.
    const VERDICTS: Self = Self(1);
    /// The first tenant.
    pub(crate) const FIRST_TENANT: Self = Self(2);
    /// What the numbers of tenants have in addition where verdicts that they were given use something.
    const FOR_VERDICTS: u16 = 1 << 15;

    /// The verdicts that were given to this one.
    pub(crate) const fn for_verdicts(self) -> Self {
        match self {
            Self::NOBODY => Self::VERDICTS,
            Self(number) => Self(number | Self::FOR_VERDICTS),
        }
    }

    /// Whether this is for verdicts.
    pub(crate) const fn is_for_verdicts(self) -> bool {
        self.0 == Self::VERDICTS.0 || self.0 & Self::FOR_VERDICTS != 0
    }

    /// Whose limit it counts towards: that of whom the verdicts were given to, if it is for some.
    pub(crate) const fn payer(self) -> Self {
        match self {
            Self::VERDICTS => Self::NOBODY,
            Self(number) => Self(number & !Self::FOR_VERDICTS),
        }
    }
}

/// That somebody used something, and when last; for verdicts, when the last was given that names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) claimant: Claimant,
    pub(crate) used: Seconds,
}

/// Whom something counts for that is used by these: each once, the payers among them.
pub(crate) fn charged<'a>(
    claims: impl Iterator<Item = &'a Claim> + Clone,
) -> impl Iterator<Item = Claimant> {
    let all = claims.clone();
    claims.flat_map(move |claim| {
        let (claimant, payer) = (claim.claimant, claim.claimant.payer());
        let is_charged = all.clone().any(|other| other.claimant == payer);
        let payer = (!is_charged).then_some(payer);
        std::iter::once(claimant).chain(payer)
    })
}

/// Something stored, and who used it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) key: Key,
    pub(crate) size_bytes: u64,
    /// Never empty; one for each claimant.
    pub(crate) claims: Vec<Claim>,
    /// Tells which of several uses in one moment came first. Of what was used before the coordinator started it is
    /// 0, as the log does not tell.
    pub(crate) order: u64,
}

impl Entry {
    /// When anybody used it last.
    pub(crate) fn last_used(&self) -> Seconds {
        let used = self.claims.iter().map(|claim| claim.used);
        used.max().unwrap_or(Seconds::MAX)
    }

    /// Counts it as used by whoever has used it. What verdicts keep has its time from when they were given; others may
    /// have used it since all the same.
    pub(crate) fn use_now(&mut self, now: Seconds) {
        let others = |claim: &&mut Claim| !claim.claimant.is_for_verdicts();
        let mut is_used = false;
        for claim in self.claims.iter_mut().filter(others) {
            (claim.used, is_used) = (now, true);
        }
        if !is_used {
            let claimant = Claimant::NOBODY;
            self.claims.push(Claim {
                claimant,
                used: now,
            });
        }
    }
}
