//! What adapters make of outcomes.

use std::time::Duration;

use bytes::Bytes;
use regatta_model::FailureClass;
use regatta_wire::reapi;

use crate::runs::tally::Ending;

/// What an adapter makes of an outcome.
#[derive(Clone, Debug)]
pub(super) struct Judged {
    pub(super) verdict: Result<(), (FailureClass, String)>,
    pub(super) duration: Duration,
    pub(super) exit_code: Option<i32>,
    pub(super) stdout_tail: Bytes,
    pub(super) stderr_tail: Bytes,
    pub(super) stdout_digest: Option<reapi::Digest>,
    pub(super) stderr_digest: Option<reapi::Digest>,
    /// What to store under the test's key; set only if it passed, and if that can be relied on.
    pub(super) cacheable: Option<reapi::ActionResult>,
}

/// Whether another attempt could end otherwise.
pub(super) const fn may_be_retried(ending: Ending) -> bool {
    matches!(
        ending,
        Ending::Failed(FailureClass::Test | FailureClass::Timeout | FailureClass::Oom)
    )
}
