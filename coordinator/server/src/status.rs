//! The one place that knows gRPC's status codes: every error of this crate becomes a [`Failure`] here.
//!
//! A failure is a `google.rpc.Status` in the making. As the end of a call it travels in the trailer
//! `grpc-status-details-bin`, which peers limit to a few KiB, so details that do not fit are left out
//! there; inside a message (one blob of a batch, an `ExecuteResponse`) it is never cut.
//!
//! Whatever has the code UNAVAILABLE or RESOURCE_EXHAUSTED says when to come back, wherever it travels and
//! however long it is (REAPI, `Execution.Execute`): no such failure can be made without.
#![expect(
    clippy::disallowed_methods,
    reason = "this is the module that statuses come out of"
)]

use std::fmt;
use std::time::Duration;

use prost::{Message as _, Name};
use prost_types::Any;
use regatta_cas::StoreError;
use regatta_model::Digest;
use regatta_scheduler::{AdmissionError, UnitError};
use regatta_wire::convert::{
    InvalidDigestError, RequiredDigestError, UnsupportedDigestFunctionError, check_digest_function,
    duration_to_wire, required_digest,
};
use regatta_wire::resource_name::missing_blob_subject;
use regatta_wire::rpc;
use tonic::{Code, Status};

/// How much of an error's details is sent as a trailer, in bytes: gRPC's peers commonly take 8 KiB of
/// headers altogether, and base64 adds a third.
pub(crate) const MAX_TRAILER_DETAILS_BYTES: usize = 5 * 1024;

/// How much of an error's message is sent as a trailer, in bytes, so that both fit.
const MAX_TRAILER_MESSAGE_BYTES: usize = 1024;

/// How many missing blobs are named at once: with these, some 2 MiB, an answer fits into the message that
/// every peer takes. Whoever uploads them and tries again hears of the next ones.
pub(crate) const MAX_MISSING_BLOBS: usize = 20_000;

/// When to come back if nothing better is known.
pub(crate) const DEFAULT_RETRY_DELAY: Duration = Duration::from_secs(1);

/// The `type` of a violation that names a blob the caller has to upload (REAPI, `Execution.Execute`).
const MISSING_BLOB: &str = "MISSING";

/// Why a call, or a part of one, did not succeed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Failure {
    code: Code,
    message: String,
    /// When to come back; there is such a time for some codes, and for no others.
    retry_after: Option<Duration>,
    details: Vec<Any>,
}

impl Failure {
    fn new(code: Code, message: impl Into<String>) -> Self {
        let comes_back = matches!(code, Code::Unavailable | Code::ResourceExhausted);
        Self {
            code,
            message: message.into(),
            retry_after: comes_back.then_some(DEFAULT_RETRY_DELAY),
            details: Vec::new(),
        }
    }

    fn with_detail<Detail: Name>(mut self, detail: &Detail) -> Self {
        self.details.push(to_any(detail));
        self
    }

    /// Sets when to come back, if there is such a time.
    fn with_retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = self.retry_after.map(|_| delay);
        self
    }

    fn retry_info(&self) -> Option<Any> {
        let retry_delay = Some(duration_to_wire(self.retry_after?));
        Some(to_any(&rpc::RetryInfo { retry_delay }))
    }

    /// For people: what is wrong.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Whether the details are too long for the end of a call and belong into a message.
    pub(crate) fn outgrows_trailer(&self) -> bool {
        self.to_rpc().encoded_len() > MAX_TRAILER_DETAILS_BYTES
    }

    /// The failure as a message.
    pub(crate) fn to_rpc(&self) -> rpc::Status {
        rpc::Status {
            code: i32::from(self.code),
            message: self.message.clone(),
            details: self
                .retry_info()
                .into_iter()
                .chain(self.details.iter().cloned())
                .collect(),
        }
    }

    /// What of the failure fits into a trailer: when to come back always does.
    fn to_trailer(&self) -> rpc::Status {
        let whole = self.to_rpc();
        if whole.encoded_len() <= MAX_TRAILER_DETAILS_BYTES {
            return whole;
        }
        rpc::Status {
            message: String::new(),
            details: self.retry_info().into_iter().collect(),
            ..whole
        }
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        let trailer = failure.to_trailer();
        let message = shortened(failure.message);
        if trailer.details.is_empty() {
            return Self::new(failure.code, message);
        }
        Self::with_details(failure.code, message, trailer.encode_to_vec().into())
    }
}

fn shortened(mut message: String) -> String {
    if message.len() > MAX_TRAILER_MESSAGE_BYTES {
        message.truncate(message.floor_char_boundary(MAX_TRAILER_MESSAGE_BYTES));
        message.push('\u{2026}');
    }
    message
}

fn to_any<Detail: Name>(detail: &Detail) -> Any {
    Any {
        type_url: Detail::type_url(),
        value: detail.encode_to_vec(),
    }
}

impl From<Failure> for rpc::Status {
    fn from(failure: Failure) -> Self {
        failure.to_rpc()
    }
}

/// The status of a part that succeeded.
pub(crate) fn ok() -> rpc::Status {
    rpc::Status {
        code: i32::from(Code::Ok),
        ..rpc::Status::default()
    }
}

/// Takes out of a part's status what it says in words, where those of many parts take too much room. When
/// to come back stays.
pub(crate) fn without_words(status: &mut rpc::Status) {
    let retry_info = rpc::RetryInfo::type_url();
    status.message.clear();
    status
        .details
        .retain(|detail| detail.type_url == retry_info);
}

/// A field of the request is wrong, whatever the state of the system. Fix it.
pub(crate) fn invalid_argument(field: &str, description: impl fmt::Display) -> Failure {
    let description = description.to_string();
    let message = if field.is_empty() {
        description.clone()
    } else {
        format!("{field}: {description}")
    };
    let violation = rpc::bad_request::FieldViolation {
        field: field.to_owned(),
        description,
        ..Default::default()
    };
    Failure::new(Code::InvalidArgument, message).with_detail(&rpc::BadRequest {
        field_violations: vec![violation],
    })
}

/// The thing asked for does not exist.
pub(crate) fn not_found(message: impl Into<String>) -> Failure {
    Failure::new(Code::NotFound, message)
}

/// The thing to be made exists already.
pub(crate) fn already_exists(message: impl Into<String>) -> Failure {
    Failure::new(Code::AlreadyExists, message)
}

/// The state of the system forbids it until somebody changes that state.
pub(crate) fn failed_precondition(message: impl Into<String>) -> Failure {
    Failure::new(Code::FailedPrecondition, message)
}

/// Blobs have to be uploaded first; the first [`MAX_MISSING_BLOBS`] are named in a `PreconditionFailure`.
pub(crate) fn missing_blobs(what: impl fmt::Display, missing: &[Digest]) -> Failure {
    let violations = missing
        .iter()
        .take(MAX_MISSING_BLOBS)
        .map(|digest| rpc::precondition_failure::Violation {
            r#type: MISSING_BLOB.to_owned(),
            subject: missing_blob_subject(digest),
            description: String::new(),
        })
        .collect();
    let count = match missing.len() {
        count if count < MAX_MISSING_BLOBS => count.to_string(),
        count => format!("{count} or more"),
    };
    let first = missing
        .first()
        .map(|digest| format!(", {digest} first"))
        .unwrap_or_default();
    failed_precondition(format!(
        "{what}: {count} blobs are missing{first}; upload them and try again"
    ))
    .with_detail(&rpc::PreconditionFailure { violations })
}

/// A quota, a queue or a disk is full. Come back later.
pub(crate) fn resource_exhausted(message: impl Into<String>, retry_after: Duration) -> Failure {
    Failure::new(Code::ResourceExhausted, message).with_retry_after(retry_after)
}

/// The coordinator ends. What agents do goes on, and its successor knows of it.
pub(crate) fn stopping() -> Failure {
    unavailable("the coordinator is stopping", DEFAULT_RETRY_DELAY)
}

/// Something that is needed does not answer. Come back later.
pub(crate) fn unavailable(message: impl Into<String>, retry_after: Duration) -> Failure {
    Failure::new(Code::Unavailable, message).with_retry_after(retry_after)
}

/// What the caller sends cannot be read on.
pub(crate) fn broken_stream(status: &Status) -> Failure {
    let message = format!("the stream of messages broke: {}", status.message());
    Failure::new(status.code(), message)
}

/// The caller may not do this.
pub(crate) fn permission_denied(message: impl Into<String>) -> Failure {
    Failure::new(Code::PermissionDenied, message)
}

/// Regatta does not offer this.
pub(crate) fn unimplemented(message: impl Into<String>) -> Failure {
    Failure::new(Code::Unimplemented, message)
}

/// A position lies outside what there is.
pub(crate) fn out_of_range(message: impl Into<String>) -> Failure {
    Failure::new(Code::OutOfRange, message)
}

/// Something else got in the way; start over from a higher level.
pub(crate) fn aborted(message: impl Into<String>) -> Failure {
    Failure::new(Code::Aborted, message)
}

/// Somebody gave it up.
pub(crate) fn cancelled(message: impl Into<String>) -> Failure {
    Failure::new(Code::Cancelled, message)
}

/// Its time ran out.
pub(crate) fn deadline_exceeded(message: impl Into<String>) -> Failure {
    Failure::new(Code::DeadlineExceeded, message)
}

/// Something that always holds does not: a defect of Regatta, to be reported.
pub(crate) fn internal(message: impl Into<String>) -> Failure {
    Failure::new(Code::Internal, message)
}

/// What was stored is damaged.
pub(crate) fn data_loss(message: impl Into<String>) -> Failure {
    Failure::new(Code::DataLoss, message)
}

/// A store's error for somebody who reads.
pub(crate) fn of_read(error: &StoreError) -> Failure {
    match error {
        StoreError::NotFound { .. } => not_found(format!(
            "{error}; upload it, or run again what made it (`regatta cas verify` tells what else is wrong)"
        )),
        StoreError::OutOfRange { .. } => out_of_range(error.to_string()),
        StoreError::Corrupt { expected, .. } => {
            let advice = "to replace it, or run again what made it";
            data_loss(format!("{error}; upload {expected} again {advice}"))
        }
        StoreError::Undecodable { .. } => data_loss(error.to_string()),
        StoreError::Full { .. } => resource_exhausted(error.to_string(), DEFAULT_RETRY_DELAY),
        StoreError::Exhausted { retry_after, .. } => {
            let retry_after = retry_after.unwrap_or(DEFAULT_RETRY_DELAY);
            resource_exhausted(error.to_string(), retry_after)
        }
        StoreError::Away { retry_after, .. } => unavailable(error.to_string(), *retry_after),
        StoreError::Unavailable { .. } => unavailable(error.to_string(), DEFAULT_RETRY_DELAY),
    }
}

/// A store's error for somebody who writes: bytes that do not fit their digest are the sender's fault.
pub(crate) fn of_write(error: &StoreError) -> Failure {
    match error {
        StoreError::Corrupt { .. } | StoreError::Undecodable { .. } => {
            invalid_argument("data", error)
        }
        StoreError::NotFound { .. }
        | StoreError::OutOfRange { .. }
        | StoreError::Full { .. }
        | StoreError::Exhausted { .. }
        | StoreError::Away { .. }
        | StoreError::Unavailable { .. } => of_read(error),
    }
}

/// Why the scheduler did not take work.
pub(crate) fn of_admission(error: &AdmissionError) -> Failure {
    match error {
        AdmissionError::QueueFull { retry_after, .. }
        | AdmissionError::TenantQueueFull { retry_after, .. }
        | AdmissionError::TooManyRequirements { retry_after, .. } => {
            resource_exhausted(error.to_string(), *retry_after)
        }
        AdmissionError::Empty => invalid_argument("", error),
    }
}

/// Why a unit of work has no answer.
pub(crate) fn of_unit(error: &UnitError) -> Failure {
    match error {
        UnitError::Unsatisfiable { .. } | UnitError::NoAgent => {
            failed_precondition(error.to_string())
        }
        UnitError::Held { .. } => resource_exhausted(error.to_string(), DEFAULT_RETRY_DELAY),
        UnitError::AttemptsExhausted { .. } => unavailable(error.to_string(), DEFAULT_RETRY_DELAY),
        UnitError::Cancelled => cancelled(error.to_string()),
    }
}

/// An error with everything that caused it, on one line.
pub(crate) fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// The digest in a field of a request that must be set.
///
/// # Errors
/// It is not set, or no digest.
pub(crate) fn digest_field(
    message: Option<&regatta_wire::reapi::Digest>,
    field: &'static str,
) -> Result<Digest, Failure> {
    required_digest(message, field).map_err(|error| match &error {
        RequiredDigestError::Missing { .. } => invalid_argument(field, "is not set"),
        RequiredDigestError::Invalid { source, .. } => invalid_digest(field, source),
    })
}

/// A digest that is none.
pub(crate) fn invalid_digest(field: &str, error: &InvalidDigestError) -> Failure {
    invalid_argument(field, with_sources(error))
}

/// Checks a request's `digest_function`.
///
/// # Errors
/// It is not SHA-256.
pub(crate) fn sha256_only(digest_function: i32) -> Result<(), Failure> {
    check_digest_function(digest_function)
        .map_err(|error: UnsupportedDigestFunctionError| invalid_argument("digest_function", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn details(status: &Status) -> rpc::Status {
        rpc::Status::decode(status.details()).expect("details are a google.rpc.Status")
    }

    #[test]
    fn missing_blobs_are_named_in_the_trailer() {
        let digest = Digest::of(b"gone");
        let status = Status::from(missing_blobs("inputs", &[digest]));
        assert_eq!(status.code(), Code::FailedPrecondition);
        let sent = details(&status);
        assert_eq!(sent.code, i32::from(Code::FailedPrecondition));
        let failure: rpc::PreconditionFailure = sent.details[0].to_msg().expect("a failure");
        assert_eq!(failure.violations[0].r#type, "MISSING");
        assert_eq!(failure.violations[0].subject, format!("blobs/{digest}"));
    }

    #[test]
    fn details_that_outgrow_a_trailer_stay_out_of_it() {
        let missing: Vec<_> = (0..500u32).map(|n| Digest::of(&n.to_le_bytes())).collect();
        let failure = missing_blobs("inputs", &missing);
        assert!(failure.outgrows_trailer());
        assert_eq!(failure.to_rpc().details.len(), 1);
        assert!(Status::from(failure).details().is_empty());
    }

    #[test]
    fn a_list_of_missing_blobs_is_bounded() {
        let missing: Vec<_> = (0..50_000u32)
            .map(|n| Digest::of(&n.to_le_bytes()))
            .collect();
        let sent = missing_blobs("inputs", &missing).to_rpc();
        let failure: rpc::PreconditionFailure = sent.details[0].to_msg().expect("a failure");
        assert_eq!(failure.violations.len(), MAX_MISSING_BLOBS);
        assert!(sent.encoded_len() < 3 << 20, "it fits into a message");
        assert!(sent.message.contains("50000 or more"), "{}", sent.message);
    }

    fn retry_delay(status: &rpc::Status) -> Option<prost_types::Duration> {
        let infos = status.details.iter().map(|detail| detail.to_msg());
        let infos: Vec<rpc::RetryInfo> = infos.filter_map(Result::ok).collect();
        assert!(infos.len() <= 1, "{status:?}");
        infos.into_iter().next()?.retry_delay
    }

    /// Expects both ways of a failure to its receiver to say when to come back, or neither.
    #[track_caller]
    fn check_retry(failure: Failure, expected: Option<Duration>) {
        let expected = expected.map(duration_to_wire);
        assert_eq!(retry_delay(&failure.to_rpc()), expected, "{failure:?}");
        let trailer = match Status::from(failure.clone()).details() {
            [] => rpc::Status::default(),
            bytes => rpc::Status::decode(bytes).expect("details are a google.rpc.Status"),
        };
        assert_eq!(retry_delay(&trailer), expected, "{failure:?}");
    }

    #[test]
    fn every_code_that_asks_to_come_back_says_when() {
        for number in 0..=16 {
            let code = Code::from_i32(number);
            let comes_back = matches!(code, Code::Unavailable | Code::ResourceExhausted);
            let expected = comes_back.then_some(DEFAULT_RETRY_DELAY);
            check_retry(Failure::new(code, "why"), expected);
            check_retry(broken_stream(&Status::new(code, "why")), expected);
            // However long it is.
            let failure = Failure::new(code, "\u{e9}".repeat(20_000));
            check_retry(failure.clone(), expected);
            let status = Status::from(failure.with_detail(&rpc::Help::default()));
            assert!(status.message().len() < 2 * MAX_TRAILER_MESSAGE_BYTES);
            assert!(status.details().len() <= MAX_TRAILER_DETAILS_BYTES);
        }
    }

    #[test]
    fn a_status_without_words_has_its_code_and_the_time_to_come_back() {
        let mut busy = unavailable("away", DEFAULT_RETRY_DELAY).to_rpc();
        without_words(&mut busy);
        let expected = Some(duration_to_wire(DEFAULT_RETRY_DELAY));
        assert_eq!((&busy.message[..], retry_delay(&busy)), ("", expected));
        let mut wrong = invalid_argument("field", "is wrong").to_rpc();
        without_words(&mut wrong);
        let expected = rpc::Status {
            code: i32::from(Code::InvalidArgument),
            ..Default::default()
        };
        assert_eq!(wrong, expected);
    }

    #[test]
    fn whoever_should_come_back_is_told_when() {
        let delay = Duration::from_millis(1500);
        for failure in [
            resource_exhausted("full", delay),
            unavailable("away", delay),
            of_admission(&AdmissionError::QueueFull {
                queued: 2,
                limit: 2,
                retry_after: delay,
            }),
            of_admission(&AdmissionError::TenantQueueFull {
                queued: 1,
                limit: 1,
                retry_after: delay,
            }),
        ] {
            check_retry(failure, Some(delay));
        }
    }

    #[test]
    fn bytes_that_do_not_fit_are_the_writers_fault_and_the_readers_loss() {
        let error = StoreError::Corrupt {
            expected: Digest::EMPTY,
            actual: Digest::of(b"x"),
        };
        assert_eq!(Status::from(of_write(&error)).code(), Code::InvalidArgument);
        assert_eq!(Status::from(of_read(&error)).code(), Code::DataLoss);
    }
}
