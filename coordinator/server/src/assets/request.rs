//! Requests whose parts are all valid.

use std::collections::BTreeMap;

use regatta_model::{Digest, Timestamp};
use regatta_wire::convert::timestamp_from_wire;
use regatta_wire::{asset, reapi};

use super::key::{AssetKind, AssetScope};
use super::store::Asset;
use crate::action_cache::tenant_of;
use crate::status::{self, Failure};

/// How many URIs, or qualifiers, a request may have.
const MAX_NAMES: usize = 256;

/// The fields that say which assets a request is about.
pub(super) struct Naming {
    pub(super) kind: AssetKind,
    pub(super) instance_name: String,
    pub(super) uris: Vec<String>,
    pub(super) qualifiers: Vec<asset::Qualifier>,
    pub(super) digest_function: i32,
}

/// Which assets a request is about.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) scope: AssetScope,
    pub(super) uris: Vec<String>,
}

impl Naming {
    /// Checks the fields. That there is no URI comes first: clients probe with empty requests, and take
    /// INVALID_ARGUMENT for a yes.
    pub(super) fn check(self) -> Result<Named, Failure> {
        if self.uris.is_empty() {
            return Err(status::invalid_argument("uris", "is empty"));
        }
        if self.uris.len() > MAX_NAMES || self.qualifiers.len() > MAX_NAMES {
            let description = format!("more than {MAX_NAMES} uris or qualifiers");
            return Err(status::invalid_argument("uris", description));
        }
        status::sha256_only(self.digest_function)?;
        let mut qualifiers = BTreeMap::new();
        for asset::Qualifier { name, value } in self.qualifiers {
            if qualifiers.contains_key(&name) {
                let description = format!("`{name}` is there twice");
                return Err(status::invalid_argument("qualifiers", description));
            }
            qualifiers.insert(name, value);
        }
        Ok(Named {
            scope: AssetScope {
                tenant: tenant_of(&self.instance_name)?,
                kind: self.kind,
                qualifiers,
            },
            uris: self.uris,
        })
    }
}

/// The fields that say what is pushed.
pub(super) struct Content {
    pub(super) digest: Option<reapi::Digest>,
    pub(super) digest_field: &'static str,
    pub(super) blobs: Vec<reapi::Digest>,
    pub(super) directories: Vec<reapi::Digest>,
    pub(super) expire_at: Option<prost_types::Timestamp>,
}

impl Content {
    /// The asset, pushed now.
    pub(super) fn check(self, now: Timestamp) -> Result<Asset, Failure> {
        Ok(Asset {
            digest: status::digest_field(self.digest.as_ref(), self.digest_field)?,
            blobs: digests_of(&self.blobs, "references_blobs")?,
            directories: digests_of(&self.directories, "references_directories")?,
            pushed: now,
            expires: time_of(self.expire_at.as_ref(), "expire_at")?,
        })
    }
}

fn digests_of(messages: &[reapi::Digest], field: &str) -> Result<Vec<Digest>, Failure> {
    let digests = messages.iter().map(|message| {
        Digest::try_from(message).map_err(|error| status::invalid_digest(field, &error))
    });
    digests.collect()
}

/// A point in time that may be left out.
pub(super) fn time_of(
    message: Option<&prost_types::Timestamp>,
    field: &str,
) -> Result<Option<Timestamp>, Failure> {
    message
        .map(timestamp_from_wire)
        .transpose()
        .map_err(|error| status::invalid_argument(field, error))
}
