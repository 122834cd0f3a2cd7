//! `Digest` and `DigestFunction` (REAPI, messages of those names).

use regatta_model::{Digest, ParseDigestError};

use crate::reapi;
use crate::reapi::digest_function::Value as DigestFunction;

/// Why a REAPI `Digest` is not the digest of any blob. The sender has to fix it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDigestError {
    /// The hash is not that of SHA-256 in lower-case hexadecimal.
    #[error("digest has a bad hash")]
    Hash(#[source] ParseDigestError),
    /// The size is negative.
    #[error("digest has the negative size {size_bytes}")]
    NegativeSize {
        /// The size found, in bytes.
        size_bytes: i64,
    },
}

impl TryFrom<&reapi::Digest> for Digest {
    type Error = InvalidDigestError;

    /// Takes 64 lower-case hexadecimal digits and a size of zero or more, and nothing else.
    fn try_from(message: &reapi::Digest) -> Result<Self, Self::Error> {
        let size_bytes =
            u64::try_from(message.size_bytes).map_err(|_| InvalidDigestError::NegativeSize {
                size_bytes: message.size_bytes,
            })?;
        Self::parse_hash(&message.hash, size_bytes).map_err(InvalidDigestError::Hash)
    }
}

impl TryFrom<reapi::Digest> for Digest {
    type Error = InvalidDigestError;

    fn try_from(message: reapi::Digest) -> Result<Self, Self::Error> {
        Self::try_from(&message)
    }
}

impl From<Digest> for reapi::Digest {
    /// A size above [`i64::MAX`], which no blob has and the message cannot hold, becomes [`i64::MAX`].
    fn from(digest: Digest) -> Self {
        Self {
            hash: digest.hash_hex(),
            size_bytes: i64::try_from(digest.size_bytes()).unwrap_or(i64::MAX),
        }
    }
}

impl From<&Digest> for reapi::Digest {
    fn from(digest: &Digest) -> Self {
        (*digest).into()
    }
}

/// Why a field does not hold the digest it must hold. The sender has to fix it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequiredDigestError {
    /// The field is not set.
    #[error("{field} is not set")]
    Missing {
        /// The path to the field, as `google.rpc.BadRequest` wants it.
        field: &'static str,
    },
    /// The field is set to something that is no digest.
    #[error("{field} is not a digest")]
    Invalid {
        /// The path to the field, as `google.rpc.BadRequest` wants it.
        field: &'static str,
        /// What is wrong with it.
        source: InvalidDigestError,
    },
}

/// The digest in a field that must be set; `field` is the path to it, for the error.
///
/// # Errors
/// The field is not set or holds no valid digest.
pub fn required_digest(
    message: Option<&reapi::Digest>,
    field: &'static str,
) -> Result<Digest, RequiredDigestError> {
    message
        .ok_or(RequiredDigestError::Missing { field })?
        .try_into()
        .map_err(|source| RequiredDigestError::Invalid { field, source })
}

/// The request wants a digest function other than SHA-256, the only one Regatta has. The sender has to
/// choose another, out of those the capabilities offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("digest function {name} ({number}) is not supported, SHA256 is", name = name_of(*number))]
pub struct UnsupportedDigestFunctionError {
    /// The number found.
    pub number: i32,
}

fn name_of(number: i32) -> &'static str {
    DigestFunction::try_from(number).map_or("of unknown name", |function| function.as_str_name())
}

/// Checks the `digest_function` of a request: SHA-256, or UNKNOWN, which leaves it to the length of the
/// hashes (REAPI, `ExecuteRequest.digest_function`).
///
/// # Errors
/// It is any other function.
pub fn check_digest_function(number: i32) -> Result<(), UnsupportedDigestFunctionError> {
    match DigestFunction::try_from(number) {
        Ok(DigestFunction::Unknown | DigestFunction::Sha256) => Ok(()),
        Ok(_) | Err(_) => Err(UnsupportedDigestFunctionError { number }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check_refused(hash: &str, size_bytes: i64, error: InvalidDigestError) {
        let message = reapi::Digest {
            hash: hash.to_owned(),
            size_bytes,
        };
        assert_eq!(Digest::try_from(&message), Err(error));
    }

    #[test]
    fn what_is_not_a_digest_is_refused_by_name() {
        use InvalidDigestError::{Hash, NegativeSize};
        let lower = "a".repeat(64);
        check_refused(&lower, -1, NegativeSize { size_bytes: -1 });
        check_refused(&"A".repeat(64), 0, Hash(ParseDigestError::NotLowerHex));
        check_refused("", 0, Hash(ParseDigestError::WrongLength { length: 0 }));
        let multibyte = "é".repeat(32);
        check_refused(&multibyte, 0, Hash(ParseDigestError::NotLowerHex));
    }

    #[test]
    fn an_absent_digest_is_an_error_that_names_the_field() {
        let missing = required_digest(None, "action_digest");
        let error = missing.expect_err("nothing is there");
        assert_eq!(error.to_string(), "action_digest is not set");
    }

    #[test]
    fn only_sha256_passes() {
        assert_eq!(check_digest_function(0), Ok(()));
        assert_eq!(check_digest_function(1), Ok(()));
        let blake3 = check_digest_function(9).expect_err("not offered");
        assert_eq!(
            blake3.to_string(),
            "digest function BLAKE3 (9) is not supported, SHA256 is"
        );
        assert!(check_digest_function(-7).is_err());
    }

    #[test]
    fn a_size_no_blob_has_saturates() {
        let message = reapi::Digest::from(Digest::new([0; 32], u64::MAX));
        assert_eq!(message.size_bytes, i64::MAX);
    }

    proptest! {
        #[test]
        fn digests_survive_the_wire(hash: [u8; 32], size_bytes in 0..=u64::MAX / 2) {
            let digest = Digest::new(hash, size_bytes);
            prop_assert_eq!(Digest::try_from(reapi::Digest::from(digest)), Ok(digest));
        }

        #[test]
        fn no_message_makes_it_panic(hash in ".*|[0-9a-fA-F]{62,66}", size_bytes: i64) {
            let message = reapi::Digest { hash, size_bytes };
            if let Ok(digest) = Digest::try_from(&message) {
                prop_assert_eq!(reapi::Digest::from(digest), message);
            }
        }
    }
}
