//! What the log of uses is made of.

use regatta_model::{Digest, TenantId};

use super::entry::{Claim, Claimant, Key, Kind, Seconds};

/// Something that the log is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    /// A tenant has a number.
    Tenant {
        claimant: Claimant,
        tenant: TenantId,
    },
    /// Something is there and was used.
    Used {
        key: Key,
        size_bytes: u64,
        claim: Claim,
    },
    /// Somebody has no claim to it any more.
    Released { key: Key, claimant: Claimant },
    /// It is not there any more.
    Gone { key: Key },
    /// A coordinator began to use it.
    Opened,
    /// The coordinator stopped in good order, and everything that is stored is in the log.
    Complete,
    /// The coordinator stopped in good order. Not everything that is stored may be in the log, but all that it was
    /// asked for is.
    Stopped,
    /// What an earlier coordinator, which did not stop in good order, was asked for is not in the log: nothing goes
    /// before this moment. It comes before how the log ends.
    Held { until: Seconds },
}

const TENANT: u8 = 1;
const USED: u8 = 2;
const RELEASED: u8 = 3;
const GONE: u8 = 4;
const COMPLETE: u8 = 5;
const OPENED: u8 = 6;
const STOPPED: u8 = 7;
const HELD: u8 = 8;

impl Record {
    /// Adds its bytes: a tag, then fields in little-endian order.
    pub(super) fn encode(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Tenant { claimant, tenant } => {
                bytes.push(TENANT);
                bytes.extend(claimant.0.to_le_bytes());
                // An instance name has at most 1024 bytes.
                let length = u16::try_from(tenant.as_str().len()).unwrap_or(u16::MAX);
                bytes.extend(length.to_le_bytes());
                bytes.extend(&tenant.as_str().as_bytes()[..usize::from(length)]);
            }
            Self::Used {
                key,
                size_bytes,
                claim,
            } => {
                bytes.push(USED);
                encode_key(key, bytes);
                bytes.extend(size_bytes.to_le_bytes());
                bytes.extend(claim.claimant.0.to_le_bytes());
                bytes.extend(claim.used.to_le_bytes());
            }
            Self::Released { key, claimant } => {
                bytes.push(RELEASED);
                encode_key(key, bytes);
                bytes.extend(claimant.0.to_le_bytes());
            }
            Self::Gone { key } => {
                bytes.push(GONE);
                encode_key(key, bytes);
            }
            Self::Complete => bytes.push(COMPLETE),
            Self::Opened => bytes.push(OPENED),
            Self::Stopped => bytes.push(STOPPED),
            Self::Held { until } => {
                bytes.push(HELD);
                bytes.extend(until.to_le_bytes());
            }
        }
    }

    /// The record that the bytes begin with, which are taken from them; `None` if they are none.
    pub(super) fn decode(bytes: &mut &[u8]) -> Option<Self> {
        let [tag] = take(bytes)?;
        match tag {
            TENANT => {
                let claimant = Claimant(u16::from_le_bytes(take(bytes)?));
                let length = usize::from(u16::from_le_bytes(take(bytes)?));
                let (name, rest) = bytes.split_at_checked(length)?;
                *bytes = rest;
                let tenant = std::str::from_utf8(name).ok()?.parse().ok()?;
                Some(Self::Tenant { claimant, tenant })
            }
            USED => Some(Self::Used {
                key: decode_key(bytes)?,
                size_bytes: u64::from_le_bytes(take(bytes)?),
                claim: Claim {
                    claimant: Claimant(u16::from_le_bytes(take(bytes)?)),
                    used: Seconds::from_le_bytes(take(bytes)?),
                },
            }),
            RELEASED => Some(Self::Released {
                key: decode_key(bytes)?,
                claimant: Claimant(u16::from_le_bytes(take(bytes)?)),
            }),
            GONE => Some(Self::Gone {
                key: decode_key(bytes)?,
            }),
            COMPLETE => Some(Self::Complete),
            OPENED => Some(Self::Opened),
            STOPPED => Some(Self::Stopped),
            HELD => Some(Self::Held {
                until: Seconds::from_le_bytes(take(bytes)?),
            }),
            _ => None,
        }
    }
}

fn encode_key(key: &Key, bytes: &mut Vec<u8>) {
    bytes.push(match key.kind {
        Kind::Result => 1,
        Kind::Asset => 2,
        Kind::Mapping => 3,
        Kind::Blob => 4,
    });
    bytes.extend(key.digest.hash());
    bytes.extend(key.digest.size_bytes().to_le_bytes());
}

fn decode_key(bytes: &mut &[u8]) -> Option<Key> {
    let [kind] = take(bytes)?;
    let kind = match kind {
        1 => Kind::Result,
        2 => Kind::Asset,
        3 => Kind::Mapping,
        4 => Kind::Blob,
        _ => return None,
    };
    let hash = take(bytes)?;
    let size_bytes = u64::from_le_bytes(take(bytes)?);
    Some(Key {
        kind,
        digest: Digest::new(hash, size_bytes),
    })
}

fn take<const LENGTH: usize>(bytes: &mut &[u8]) -> Option<[u8; LENGTH]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}
