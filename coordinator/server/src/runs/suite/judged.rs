//! What adapters make of outcomes.

use std::time::Duration;

use bytes::Bytes;
use regatta_model::FailureClass;
use regatta_wire::convert::duration_to_wire;
use regatta_wire::{reapi, v1};

/// The exit code under which a skip is cached: automake's for a test that was skipped.
const SKIPPED_CODE: i32 = 77;

/// How a test ended that did not fail.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Ended {
    Passed,
    /// It failed, and the runner itself ran it again.
    PassedAgain,
    /// The runner itself says that it does not run here, and maybe why.
    Skipped(String),
}

/// A skip as it is cached.
pub(super) fn cached_skip(reason: &str) -> reapi::ActionResult {
    reapi::ActionResult {
        exit_code: SKIPPED_CODE,
        stdout_raw: Bytes::copy_from_slice(reason.as_bytes()),
        ..Default::default()
    }
}

/// Why a test was skipped whose cached result this is; `None` if it has passed.
pub(super) fn reason_of_skip(cached: &reapi::ActionResult) -> Option<String> {
    let is_skip = cached.exit_code == SKIPPED_CODE;
    is_skip.then(|| String::from_utf8_lossy(&cached.stdout_raw).into_owned())
}

/// What an adapter makes of an outcome.
#[derive(Clone, Debug)]
pub(super) struct Judged {
    pub(super) verdict: Result<Ended, (FailureClass, String)>,
    /// What is to be said of a pass; nothing of most.
    pub(super) note: String,
    /// What fails the suite and is no failure of the test.
    pub(super) complaint: Option<String>,
    pub(super) duration: Duration,
    pub(super) exit_code: Option<i32>,
    pub(super) stdout_tail: Bytes,
    pub(super) stderr_tail: Bytes,
    pub(super) stdout_digest: Option<reapi::Digest>,
    pub(super) stderr_digest: Option<reapi::Digest>,
    /// What to store under the test's key; set only if it passed or was skipped, and if that can be relied on.
    pub(super) cacheable: Option<reapi::ActionResult>,
}

impl Judged {
    /// A test that failed and is skipped when it is tried again has not been shown to be good.
    pub(super) fn refuse_late_skip(&mut self, attempts: u32) {
        if attempts > 1 && matches!(self.verdict, Ok(Ended::Skipped(_))) {
            let text = "it failed, and the runner skipped it when it was tried again";
            self.verdict = Err((FailureClass::Test, text.to_owned()));
            self.cacheable = None;
        }
    }

    /// Another attempt at a test that passed was late and has not ended: that is said, and the pass not remembered,
    /// for it would hide the next time that the test hangs.
    pub(super) fn note_overtaken(&mut self, text: String) {
        if self.verdict == Ok(Ended::Passed) {
            self.note = text;
            self.cacheable = None;
        }
    }

    /// A test's result with what the outcome says of it.
    pub(super) fn result(&self, test: v1::TestResult) -> v1::TestResult {
        let message = match &self.verdict {
            Ok(Ended::Passed) => self.note.clone(),
            Ok(Ended::PassedAgain) => "it failed, and its runner ran it again".to_owned(),
            Ok(Ended::Skipped(text)) | Err((_, text)) => text.clone(),
        };
        v1::TestResult {
            duration: Some(duration_to_wire(self.duration)),
            exit_code: self.exit_code,
            stdout_tail: self.stdout_tail.clone(),
            stderr_tail: self.stderr_tail.clone(),
            stdout_digest: self.stdout_digest.clone(),
            stderr_digest: self.stderr_digest.clone(),
            message,
            ..test
        }
    }
}
