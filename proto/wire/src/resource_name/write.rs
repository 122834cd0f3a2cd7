//! The name of a blob to upload.

use std::fmt;
use std::str::FromStr;

use regatta_model::{Digest, TenantId};
use uuid::Uuid;

use super::instance_name::check_segments;
use super::parse::{parse_blob, split_instance_name};
use super::read::{write_blob, write_instance};
use super::{Compressor, InvalidInstanceNameError, ParseResourceNameError};

const FORM: &str = "[instance/]uploads/uuid/blobs/hash/size or \
                    [instance/]uploads/uuid/compressed-blobs/compressor/hash/size";

/// The name of a blob to upload: `WriteRequest.resource_name`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WriteResource {
    instance: TenantId,
    upload_id: Uuid,
    compressor: Compressor,
    digest: Digest,
}

impl WriteResource {
    /// The name of a blob of a tenant, sent in the given form. The upload id sets this upload apart from
    /// others of the same blob; a client makes it at random.
    ///
    /// # Errors
    /// The tenant's id cannot be an instance name.
    pub fn new(
        instance: TenantId,
        upload_id: Uuid,
        compressor: Compressor,
        digest: Digest,
    ) -> Result<Self, InvalidInstanceNameError> {
        check_segments(instance.as_str())?;
        Ok(Self {
            instance,
            upload_id,
            compressor,
            digest,
        })
    }

    /// Whose blob it is.
    #[must_use]
    pub const fn instance(&self) -> &TenantId {
        &self.instance
    }

    /// What sets this upload apart from others of the same blob.
    #[must_use]
    pub const fn upload_id(&self) -> Uuid {
        self.upload_id
    }

    /// How the data is compressed.
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

impl FromStr for WriteResource {
    type Err = ParseResourceNameError;

    /// Takes a UUID of any version and spelling, and ignores whatever follows the size.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let segments: Vec<&str> = name.split('/').collect();
        let (instance, rest) = split_instance_name(name, &segments, FORM)?;
        let ["uploads", upload_id, rest @ ..] = rest else {
            return Err(ParseResourceNameError::Form { form: FORM });
        };
        let upload_id = Uuid::try_parse(upload_id).map_err(|_| ParseResourceNameError::UploadId)?;
        let blob = parse_blob(rest, FORM)?;
        Ok(Self {
            instance,
            upload_id,
            compressor: blob.compressor,
            digest: blob.digest,
        })
    }
}

impl fmt::Display for WriteResource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_instance(formatter, &self.instance)?;
        write!(formatter, "uploads/{}/", self.upload_id)?;
        write_blob(formatter, self.compressor, &self.digest)
    }
}
