//! Buckets, as far as this build has them.

use super::{OpenStoreError, Opened};
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
use crate::object_store_blob_store::refusals::RefusalTellingConnector;

#[cfg(not(feature = "s3"))]
pub(super) fn s3(url: &str, _rest: &str) -> Result<Opened, OpenStoreError> {
    Err(OpenStoreError::NotBuiltIn {
        url: url.to_owned(),
        feature: "s3",
    })
}

#[cfg(not(feature = "gcs"))]
pub(super) fn gcs(url: &str, _rest: &str) -> Result<Opened, OpenStoreError> {
    Err(OpenStoreError::NotBuiltIn {
        url: url.to_owned(),
        feature: "gcs",
    })
}

#[cfg(not(feature = "azure"))]
pub(super) fn azure(url: &str, _rest: &str) -> Result<Opened, OpenStoreError> {
    Err(OpenStoreError::NotBuiltIn {
        url: url.to_owned(),
        feature: "azure",
    })
}

/// How long a request may take with all of its body, for object_store: long enough to never cut what makes
/// progress. The guard limits every wait.
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
const TRANSFER_LIMIT: &str = "1day";

/// The guard repeats requests, and so nobody else does.
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
fn never_again() -> object_store::RetryConfig {
    object_store::RetryConfig {
        max_retries: 0,
        ..Default::default()
    }
}

#[cfg(feature = "s3")]
pub(super) fn s3(url: &str, rest: &str) -> Result<Opened, OpenStoreError> {
    let (bucket, prefix) = split(rest);
    let builder = object_store::aws::AmazonS3Builder::from_env().with_bucket_name(bucket);
    opened(url, prefix, Unfinished::Kept, || {
        to_be_guarded(builder).build()
    })
}

/// S3 as the guard wants it.
#[cfg(feature = "s3")]
pub(in crate::object_store_blob_store) fn to_be_guarded(
    builder: object_store::aws::AmazonS3Builder,
) -> object_store::aws::AmazonS3Builder {
    let timeout = object_store::ClientConfigKey::Timeout;
    let timeout = object_store::aws::AmazonS3ConfigKey::Client(timeout);
    builder
        .with_config(timeout, TRANSFER_LIMIT)
        .with_retry(never_again())
        .with_http_connector(RefusalTellingConnector::default())
}

#[cfg(feature = "gcs")]
pub(super) fn gcs(url: &str, rest: &str) -> Result<Opened, OpenStoreError> {
    use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
    let (bucket, prefix) = split(rest);
    let timeout = GoogleConfigKey::Client(object_store::ClientConfigKey::Timeout);
    let builder = GoogleCloudStorageBuilder::from_env()
        .with_config(timeout, TRANSFER_LIMIT)
        .with_retry(never_again())
        .with_http_connector(RefusalTellingConnector::default())
        .with_bucket_name(bucket);
    opened(url, prefix, Unfinished::Kept, || builder.build())
}

#[cfg(feature = "azure")]
pub(super) fn azure(url: &str, rest: &str) -> Result<Opened, OpenStoreError> {
    use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
    let (container, prefix) = split(rest);
    let timeout = AzureConfigKey::Client(object_store::ClientConfigKey::Timeout);
    let builder = MicrosoftAzureBuilder::from_env()
        .with_config(timeout, TRANSFER_LIMIT)
        .with_retry(never_again())
        .with_http_connector(RefusalTellingConnector::default())
        .with_container_name(container);
    opened(url, prefix, Unfinished::Expires, || builder.build())
}

#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
fn split(rest: &str) -> (&str, &str) {
    rest.split_once('/').unwrap_or((rest, ""))
}

/// What becomes of an upload that nobody completes or aborts.
#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
enum Unfinished {
    /// It stays.
    #[cfg(any(feature = "s3", feature = "gcs"))]
    Kept,
    /// It goes after a week, and not before (Azure, `Put Block`).
    #[cfg(feature = "azure")]
    Expires,
}

#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
fn opened<S: object_store::ObjectStore + object_store::multipart::MultipartStore>(
    url: &str,
    prefix: &str,
    unfinished: Unfinished,
    build: impl FnOnce() -> object_store::Result<S>,
) -> Result<Opened, OpenStoreError> {
    use std::sync::Arc;

    use super::UploadShape;
    use crate::object_store_blob_store::guarded::GuardedObjectStore;

    // object_store's HTTP client takes the process's default provider. An error means that there is one
    // already, which serves as well.
    drop(rustls::crypto::ring::default_provider().install_default());
    let objects = build().map_err(|source| OpenStoreError::Bucket {
        url: url.to_owned(),
        source,
    })?;
    let prefix = object_store::path::Path::from(prefix);
    let objects = GuardedObjectStore::new(objects, url);
    let (objects, uploads) = match unfinished {
        #[cfg(any(feature = "s3", feature = "gcs"))]
        Unfinished::Kept => {
            let (objects, uploads) = objects.with_uploads_marked(prefix.clone());
            (objects, Some(uploads))
        }
        #[cfg(feature = "azure")]
        Unfinished::Expires => (Arc::new(objects), None),
    };
    Ok(Opened {
        objects,
        prefix,
        shape: UploadShape::BUCKET,
        directory: None,
        uploads,
    })
}
