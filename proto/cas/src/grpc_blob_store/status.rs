//! What gRPC statuses mean. No other module of this crate looks at a code.

use std::time::Duration;

use prost::Message as _;
use regatta_model::Digest;
use regatta_wire::convert::retry_delay;
use regatta_wire::rpc;
use tonic::{Code, Status};

use crate::StoreError;

/// Whether the same request may succeed in a moment. Every request of this crate can be repeated safely.
///
/// A connection that breaks shows as one of several codes, depending on where it broke.
pub(super) fn is_passing(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable | Code::Unknown | Code::Internal | Code::Aborted
    )
}

/// How long the server wants not to be asked again.
pub(super) fn told_to_wait(status: &Status) -> Duration {
    retry_delay(status).unwrap_or_default()
}

/// Whether the server refused bytes because they are not those of their digest.
pub(super) fn is_mismatch(status: &Status) -> bool {
    status.code() == Code::InvalidArgument
}

/// Whether the server does not know the method.
pub(super) fn is_unimplemented(status: &Status) -> bool {
    status.code() == Code::Unimplemented
}

/// Whether the server refuses to put chunks together that another request may bring it as a whole: it does
/// not do that, or not with these.
pub(super) fn is_refusal(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unimplemented | Code::InvalidArgument | Code::PermissionDenied
    )
}

/// Whether the server has the blob, of whatever chunks.
pub(super) fn is_there_already(status: &Status) -> bool {
    status.code() == Code::AlreadyExists
}

/// Why a blob was not put together of chunks that were all there.
pub(super) fn splice_error(digest: &Digest, status: &Status) -> StoreError {
    match status.code() {
        Code::NotFound => StoreError::Unavailable {
            detail: format!(
                "chunks of blob {digest} vanished from the server: {}",
                status.message()
            ),
        },
        _ => store_error(Some(digest), status),
    }
}

/// What the status of a request about a blob means to the caller of the store.
pub(super) fn store_error(digest: Option<&Digest>, status: &Status) -> StoreError {
    // Only who has something to come back for says when.
    if status.code() == Code::Unavailable
        && let Some(retry_after) = retry_delay(status)
    {
        let detail = status.message().to_owned();
        return StoreError::Away {
            detail,
            retry_after,
        };
    }
    match (status.code(), digest) {
        (Code::NotFound, Some(digest)) => StoreError::NotFound { digest: *digest },
        (Code::ResourceExhausted, _) => StoreError::Exhausted {
            detail: status.message().to_owned(),
            retry_after: retry_delay(status),
        },
        (code, _) => StoreError::Unavailable {
            detail: format!("{}: {}", code.description(), status.message()),
        },
    }
}

/// What the status of a read from `offset` means.
pub(super) fn read_error(digest: &Digest, offset: u64, status: &Status) -> StoreError {
    match status.code() {
        Code::OutOfRange => StoreError::OutOfRange {
            digest: *digest,
            offset,
        },
        _ => store_error(Some(digest), status),
    }
}

/// What the status of one blob of a batch means; `None` if it is good.
pub(super) fn batch_status(status: Option<rpc::Status>) -> Option<Status> {
    let status = status?;
    match Code::from_i32(status.code) {
        Code::Ok => None,
        code => {
            let details = status.encode_to_vec();
            Some(Status::with_details(code, status.message, details.into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use regatta_wire::convert::duration_to_wire;

    use super::super::retry::wait_after;
    use super::*;

    #[test]
    fn codes_become_what_the_caller_can_act_on() {
        let digest = Digest::of(b"x");
        let error = |code| store_error(Some(&digest), &Status::new(code, "why"));
        assert!(matches!(error(Code::NotFound), StoreError::NotFound { .. }));
        assert!(matches!(
            error(Code::ResourceExhausted),
            StoreError::Exhausted {
                retry_after: None,
                ..
            }
        ));
        assert!(matches!(
            error(Code::Unavailable),
            StoreError::Unavailable { .. }
        ));
        let denied = error(Code::PermissionDenied).to_string();
        assert!(
            denied.ends_with("permission to execute the specified operation: why"),
            "{denied}"
        );
        let beyond = read_error(&digest, 7, &Status::out_of_range("why"));
        assert!(matches!(beyond, StoreError::OutOfRange { offset: 7, .. }));
    }

    #[test]
    fn a_server_that_takes_nothing_is_heard_about_when_to_come_back() {
        let delay = Duration::from_millis(1500);
        let info = rpc::RetryInfo {
            retry_delay: Some(duration_to_wire(delay)),
        };
        for code in [Code::ResourceExhausted, Code::Unavailable] {
            let sent = rpc::Status {
                code: code.into(),
                message: "the store is full".to_owned(),
                details: vec![prost_types::Any::from_msg(&info).unwrap()],
            };
            let status = batch_status(Some(sent)).expect("it is an error");
            let (detail, wanted) = match store_error(None, &status) {
                StoreError::Exhausted {
                    detail,
                    retry_after,
                } if code == Code::ResourceExhausted => (detail, retry_after),
                StoreError::Away {
                    detail,
                    retry_after,
                } if code == Code::Unavailable => (detail, Some(retry_after)),
                other => panic!("{other:?}"),
            };
            assert_eq!(
                (detail.as_str(), wanted),
                ("the store is full", Some(delay))
            );
            assert!(wait_after(1, told_to_wait(&status)) >= delay);
        }
    }
}
