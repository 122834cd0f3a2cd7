//! What a lease asks of a container, and who may share one.

use regatta_model::{
    ImageReference, Isolation, NetworkAccess, Resources, RootDirectory, RunId, TenantId,
};

/// What containers must agree in to be interchangeable before they have run anything.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Shape {
    /// The image; `None` for a runtime without images.
    pub image: Option<ImageReference>,
    /// Where the input tree appears; absolute.
    pub work_path: String,
    /// What commands see at `/`.
    pub root: RootDirectory,
    /// Limits; zero means no limit.
    pub resources: Resources,
    /// Whether there is a network beyond loopback.
    pub network: NetworkAccess,
}

/// Who may use a container after it has run something.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ShareKey {
    /// The tenant: nothing is ever shared between two.
    pub tenant: TenantId,
    /// The run, or REAPI tool invocation.
    pub run: RunId,
    /// What the container is like.
    pub shape: Shape,
}

/// What a lease asks of its container.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Demand {
    /// Whom it may share with, and what it needs.
    pub key: ShareKey,
    /// Whether it shares at all.
    pub isolation: Isolation,
}

/// What a slot holds while no lease works in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Held {
    /// No container.
    Nothing,
    /// A container that has run nothing.
    Unused(Shape),
    /// A container that has served leases of one key.
    Bound(ShareKey),
}

impl Held {
    /// Whether a lease may run in it as it is.
    pub(crate) fn serves(&self, demand: &Demand) -> bool {
        match (self, demand.isolation) {
            (Self::Unused(shape), _) => *shape == demand.key.shape,
            (Self::Bound(key), Isolation::Run) => *key == demand.key,
            (Self::Bound(_), Isolation::Fresh) | (Self::Nothing, _) => false,
        }
    }

    /// How willingly it is given up for a lease: least first.
    pub(crate) fn cost_for(&self, demand: &Demand) -> u8 {
        match self {
            Self::Bound(_) if self.serves(demand) => 0,
            Self::Unused(_) if self.serves(demand) => 1,
            Self::Nothing => 2,
            Self::Unused(_) | Self::Bound(_) => 3,
        }
    }
}
