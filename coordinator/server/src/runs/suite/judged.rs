//! What adapters make of outcomes.

use std::time::Duration;

use bytes::Bytes;
use regatta_model::FailureClass;
use regatta_wire::convert::duration_to_wire;
use regatta_wire::{reapi, v1};

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

impl Judged {
    /// A test's result with what the outcome says of it.
    pub(super) fn result(&self, test: v1::TestResult) -> v1::TestResult {
        let message = self.verdict.as_ref().err().map(|(_, text)| text.clone());
        v1::TestResult {
            duration: Some(duration_to_wire(self.duration)),
            exit_code: self.exit_code,
            stdout_tail: self.stdout_tail.clone(),
            stderr_tail: self.stderr_tail.clone(),
            stdout_digest: self.stdout_digest.clone(),
            stderr_digest: self.stderr_digest.clone(),
            message: message.unwrap_or_default(),
            ..test
        }
    }
}
