//! How a result is kept, and under which key.

use bytes::Bytes;
use prost::Message as _;
use regatta_model::{Digest, DigestHasher, TenantId};
use regatta_wire::reapi::ActionResult;

pub(super) use crate::sealed::MAX_SEALED_SIZE_BYTES as MAX_ENTRY_SIZE_BYTES;
use crate::sealed::{seal, unseal};

/// Sets these keys apart from every other digest, and from the keys of other versions of this format.
const KEY_DOMAIN: &[u8] = b"regatta action cache 2\0";

/// The key of an action's entry. `unsaid` is the fingerprint of what is not in the action.
pub(super) fn key_of(tenant: &TenantId, unsaid: &Digest, action: &Digest) -> Digest {
    let mut hasher = DigestHasher::new();
    hasher.update(KEY_DOMAIN);
    hasher.update(&(tenant.as_str().len() as u64).to_le_bytes());
    hasher.update(tenant.as_str().as_bytes());
    for digest in [unsaid, action] {
        hasher.update(digest.hash());
        hasher.update(&digest.size_bytes().to_le_bytes());
    }
    hasher.finish()
}

/// An entry's bytes, or the size of a result that is too large for one.
pub(super) fn seal_entry(result: &ActionResult) -> Result<Bytes, usize> {
    seal(&result.encode_to_vec())
}

/// The result in an entry; `None` if the entry is damaged.
pub(super) fn open_entry(sealed: &Bytes) -> Option<ActionResult> {
    ActionResult::decode(unseal(sealed)?).ok()
}
