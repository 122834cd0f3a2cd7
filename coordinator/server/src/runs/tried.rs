//! Attempts that have failed, and that another one follows.

use regatta_scheduler::FailedAt;
use regatta_wire::v1;

use super::event::place_of;

/// What is known of the attempts at a build or a test before the next.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Tried {
    pub(super) attempts: u32,
    /// Where the last of them failed, if that is known.
    pub(super) failed_at: Option<FailedAt>,
}

impl Tried {
    /// What an attempt with this number follows, the last of which came from this place.
    pub(super) fn before(next_attempt: u32, place: Option<&v1::Provenance>) -> Self {
        Self {
            attempts: next_attempt.saturating_sub(1),
            failed_at: place.and_then(place_of),
        }
    }
}
