//! What is different from one kind of suite to another.

use std::borrow::Cow;
use std::time::Duration;

use super::worker::worker_arguments;
use super::{contract, harness, sharding};
use crate::runs::plan::Adapter;

impl Adapter {
    /// Whether one execution runs all tests of a batch.
    pub(super) const fn runs_together(&self) -> bool {
        match self {
            Self::Harness(_) | Self::Sharding { .. } => false,
            Self::Contract { .. } => true,
        }
    }

    /// What starting a batch costs before it has been measured.
    pub(super) fn usual_overhead(&self) -> Duration {
        match self {
            Self::Harness(_) | Self::Sharding { .. } => harness::BATCH_OVERHEAD,
            Self::Contract {
                worker_arguments, ..
            } if worker_arguments.is_empty() => contract::BATCH_OVERHEAD,
            Self::Contract { .. } => contract::WORKER_BATCH_OVERHEAD,
        }
    }

    /// How long a test is expected to take of which nothing is known.
    pub(super) const fn usual_duration(&self) -> Duration {
        match self {
            Self::Harness(_) | Self::Sharding { .. } => harness::USUAL_DURATION,
            Self::Contract { .. } => contract::USUAL_DURATION,
        }
    }

    /// Changes whenever tests are run or judged in another way.
    pub(super) fn version(&self) -> Cow<'static, str> {
        match self {
            Self::Harness(harness) => harness.version().into(),
            Self::Sharding { .. } => sharding::VERSION.into(),
            Self::Contract { .. } => match worker_arguments(self) {
                [] => contract::VERSION.into(),
                worker => format!("{} by {worker:?}", contract::VERSION).into(),
            },
        }
    }
}
