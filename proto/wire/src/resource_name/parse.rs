//! What reading the names of uploads and downloads has in common.

use regatta_model::{Digest, ParseDigestError, TenantId};

use super::instance_name::{keyword, parse_instance_name};
use super::{Compressor, InvalidInstanceNameError};
use crate::reapi::digest_function::Value as DigestFunction;

/// Why a text is not the name of a blob in a CAS. The sender has to fix it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseResourceNameError {
    /// The segments are not those of such a name.
    #[error("expected a resource name of the form {form}")]
    Form {
        /// What a name has to look like.
        form: &'static str,
    },
    /// What comes first cannot be an instance name.
    #[error("resource name has a bad instance name")]
    InstanceName(#[source] InvalidInstanceNameError),
    /// What follows `uploads` is not a UUID.
    #[error("upload id is not a UUID")]
    UploadId,
    /// What follows `compressed-blobs` is not the name of a compressor.
    #[error("compressor is none of zstd, deflate and brotli")]
    Compressor,
    /// The name gives a digest function other than SHA-256.
    #[error("digest function {name} is not supported, sha256 is")]
    DigestFunction {
        /// The function, as the specification names it.
        name: &'static str,
    },
    /// The hash or the size is wrong.
    #[error("resource name has a bad digest")]
    Digest(#[source] ParseDigestError),
    /// The size is more than the 64-bit signed integer of a REAPI `Digest` holds.
    #[error("size of {size_bytes} bytes is more than any blob has")]
    TooLarge {
        /// The size found.
        size_bytes: u64,
    },
}

/// What a name says of its blob, and what follows that.
pub(super) struct Blob<'a> {
    pub(super) compressor: Compressor,
    pub(super) digest: Digest,
    pub(super) rest: &'a [&'a str],
}

/// Cuts off the instance name, which ends before the first keyword. The rest begins with that keyword.
pub(super) fn split_instance_name<'a, 'b>(
    name: &str,
    segments: &'b [&'a str],
    form: &'static str,
) -> Result<(TenantId, &'b [&'a str]), ParseResourceNameError> {
    let end = segments
        .iter()
        .position(|segment| keyword(segment).is_some())
        .ok_or(ParseResourceNameError::Form { form })?;
    let (instance, rest) = segments.split_at(end);
    // The segments of the instance name lie at the start of the name, with a slash after each.
    let length = instance
        .iter()
        .map(|segment| segment.len() + 1)
        .sum::<usize>();
    let instance = name.get(..length.saturating_sub(1)).unwrap_or_default();
    let has_empty_name_and_slash = length == 1;
    if has_empty_name_and_slash {
        return Err(ParseResourceNameError::InstanceName(
            InvalidInstanceNameError::EmptySegment,
        ));
    }
    let instance = parse_instance_name(instance).map_err(ParseResourceNameError::InstanceName)?;
    Ok((instance, rest))
}

/// Reads `blobs/…` or `compressed-blobs/…` up to and including the size.
pub(super) fn parse_blob<'a>(
    segments: &'a [&'a str],
    form: &'static str,
) -> Result<Blob<'a>, ParseResourceNameError> {
    let (compressor, segments) = match segments {
        ["blobs", rest @ ..] => (Compressor::Identity, rest),
        ["compressed-blobs", compressor, rest @ ..] => {
            let compressor =
                Compressor::from_segment(compressor).ok_or(ParseResourceNameError::Compressor)?;
            (compressor, rest)
        }
        _ => return Err(ParseResourceNameError::Form { form }),
    };
    match skip_digest_function(segments)? {
        [hash, size, rest @ ..] => Ok(Blob {
            compressor,
            digest: parse_digest(hash, size)?,
            rest,
        }),
        _ => Err(ParseResourceNameError::Form { form }),
    }
}

fn skip_digest_function<'a, 'b>(
    segments: &'b [&'a str],
) -> Result<&'b [&'a str], ParseResourceNameError> {
    let Some((first, rest)) = segments.split_first() else {
        return Ok(segments);
    };
    match function_named(first) {
        None => Ok(segments),
        Some(DigestFunction::Sha256) => Ok(rest),
        Some(other) => Err(ParseResourceNameError::DigestFunction {
            name: other.as_str_name(),
        }),
    }
}

/// The digest function that a segment names in lower case.
fn function_named(segment: &str) -> Option<DigestFunction> {
    let is_lower = !segment.bytes().any(|byte| byte.is_ascii_uppercase());
    let function = DigestFunction::from_str_name(&segment.to_ascii_uppercase())?;
    (is_lower && function != DigestFunction::Unknown).then_some(function)
}

fn parse_digest(hash: &str, size: &str) -> Result<Digest, ParseResourceNameError> {
    let digest: Digest = format!("{hash}/{size}")
        .parse()
        .map_err(ParseResourceNameError::Digest)?;
    let size_bytes = digest.size_bytes();
    match i64::try_from(size_bytes) {
        Ok(_) => Ok(digest),
        Err(_) => Err(ParseResourceNameError::TooLarge { size_bytes }),
    }
}
