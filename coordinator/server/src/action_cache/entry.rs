//! How a result is kept in a store whose keys are not the digests of its values.
//!
//! A content-addressed store notices damage by itself; here a checksum before the result does it.

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use regatta_model::{Digest, DigestHasher, TenantId};
use regatta_wire::reapi::ActionResult;

/// The largest entry, in bytes: outputs are named by their digests, and inline ones are small.
pub(super) const MAX_ENTRY_SIZE_BYTES: u64 = 8 << 20;
/// Sets these keys apart from every other digest, and from the keys of other versions of this format.
const KEY_DOMAIN: &[u8] = b"regatta action cache 1\0";
const CHECKSUM_BYTES: usize = 32;

/// The key of an action's entry.
pub(super) fn key_of(tenant: &TenantId, action: &Digest) -> Digest {
    let mut hasher = DigestHasher::new();
    hasher.update(KEY_DOMAIN);
    hasher.update(&(tenant.as_str().len() as u64).to_le_bytes());
    hasher.update(tenant.as_str().as_bytes());
    hasher.update(action.hash());
    hasher.update(&action.size_bytes().to_le_bytes());
    hasher.finish()
}

/// An entry's bytes, or the size of a result that is too large for one.
pub(super) fn seal_entry(result: &ActionResult) -> Result<Bytes, usize> {
    let encoded = result.encode_to_vec();
    if encoded.len() as u64 + CHECKSUM_BYTES as u64 > MAX_ENTRY_SIZE_BYTES {
        return Err(encoded.len());
    }
    let mut sealed = BytesMut::with_capacity(CHECKSUM_BYTES + encoded.len());
    sealed.extend_from_slice(Digest::of(&encoded).hash());
    sealed.extend_from_slice(&encoded);
    Ok(sealed.freeze())
}

/// The result in an entry; `None` if the entry is damaged.
pub(super) fn open_entry(sealed: &Bytes) -> Option<ActionResult> {
    let (checksum, encoded) = sealed.split_at_checked(CHECKSUM_BYTES)?;
    if Digest::of(encoded).hash() != checksum {
        return None;
    }
    ActionResult::decode(sealed.slice(CHECKSUM_BYTES..)).ok()
}
