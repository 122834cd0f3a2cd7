//! Values in a store whose keys are not the digests of its values.
//!
//! A content-addressed store notices damage by itself; here a checksum before the value does it.

use bytes::{Bytes, BytesMut};
use regatta_model::Digest;

/// The largest sealed value, in bytes: values name blobs, and what is inline in them is small.
pub(crate) const MAX_SEALED_SIZE_BYTES: u64 = 8 << 20;
const CHECKSUM_BYTES: usize = 32;

/// A value with its checksum, or its size if it is too large.
pub(crate) fn seal(value: &[u8]) -> Result<Bytes, usize> {
    if value.len() as u64 + CHECKSUM_BYTES as u64 > MAX_SEALED_SIZE_BYTES {
        return Err(value.len());
    }
    let mut sealed = BytesMut::with_capacity(CHECKSUM_BYTES + value.len());
    sealed.extend_from_slice(Digest::of(value).hash());
    sealed.extend_from_slice(value);
    Ok(sealed.freeze())
}

/// The value; `None` if it is damaged.
pub(crate) fn unseal(sealed: &Bytes) -> Option<Bytes> {
    let (checksum, value) = sealed.split_at_checked(CHECKSUM_BYTES)?;
    (Digest::of(value).hash() == checksum).then(|| sealed.slice(CHECKSUM_BYTES..))
}
