//! The name of a blob to download.

use std::fmt;
use std::str::FromStr;

use regatta_model::{Digest, TenantId};

use super::instance_name::check_segments;
use super::parse::{parse_blob, split_instance_name};
use super::{Compressor, InvalidInstanceNameError, ParseResourceNameError};

const FORM: &str = "[instance/]blobs/hash/size or [instance/]compressed-blobs/compressor/hash/size";

/// The name of a blob to download: `ReadRequest.resource_name`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ReadResource {
    instance: TenantId,
    compressor: Compressor,
    digest: Digest,
}

impl ReadResource {
    /// The name of a blob of a tenant, sent in the given form.
    ///
    /// # Errors
    /// The tenant's id cannot be an instance name.
    pub fn new(
        instance: TenantId,
        compressor: Compressor,
        digest: Digest,
    ) -> Result<Self, InvalidInstanceNameError> {
        check_segments(instance.as_str())?;
        Ok(Self {
            instance,
            compressor,
            digest,
        })
    }

    /// Whose blob it is.
    #[must_use]
    pub const fn instance(&self) -> &TenantId {
        &self.instance
    }

    /// How the data is to be compressed.
    #[must_use]
    pub const fn compressor(&self) -> Compressor {
        self.compressor
    }

    /// The identity of the blob, uncompressed.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }
}

impl FromStr for ReadResource {
    type Err = ParseResourceNameError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let segments: Vec<&str> = name.split('/').collect();
        let (instance, rest) = split_instance_name(name, &segments, FORM)?;
        let blob = parse_blob(rest, FORM)?;
        if !blob.rest.is_empty() {
            return Err(ParseResourceNameError::Form { form: FORM });
        }
        Ok(Self {
            instance,
            compressor: blob.compressor,
            digest: blob.digest,
        })
    }
}

impl fmt::Display for ReadResource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_instance(formatter, &self.instance)?;
        write_blob(formatter, self.compressor, &self.digest)
    }
}

/// How a missing blob is named in a `google.rpc.PreconditionFailure`: a resource name without the
/// instance name (REAPI, `Execution.Execute`). It reads back as a [`ReadResource`].
#[must_use]
pub fn missing_blob_subject(digest: &Digest) -> String {
    format!("blobs/{digest}")
}

pub(super) fn write_instance(
    formatter: &mut fmt::Formatter<'_>,
    instance: &TenantId,
) -> fmt::Result {
    match instance.as_str() {
        "" => Ok(()),
        name => write!(formatter, "{name}/"),
    }
}

pub(super) fn write_blob(
    formatter: &mut fmt::Formatter<'_>,
    compressor: Compressor,
    digest: &Digest,
) -> fmt::Result {
    match compressor.segment() {
        None => write!(formatter, "blobs/{digest}"),
        Some(compressor) => write!(formatter, "compressed-blobs/{compressor}/{digest}"),
    }
}
