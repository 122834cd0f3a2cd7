//! Buckets, as far as this build has them.

use super::{OpenStoreError, Opened};

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

#[cfg(feature = "s3")]
pub(super) fn s3(url: &str, rest: &str) -> Result<Opened, OpenStoreError> {
    let (bucket, prefix) = split(rest);
    let builder = object_store::aws::AmazonS3Builder::from_env().with_bucket_name(bucket);
    opened(url, prefix, || builder.build())
}

#[cfg(feature = "gcs")]
pub(super) fn gcs(url: &str, rest: &str) -> Result<Opened, OpenStoreError> {
    let (bucket, prefix) = split(rest);
    let builder = object_store::gcp::GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket);
    opened(url, prefix, || builder.build())
}

#[cfg(feature = "azure")]
pub(super) fn azure(url: &str, rest: &str) -> Result<Opened, OpenStoreError> {
    let (container, prefix) = split(rest);
    let builder =
        object_store::azure::MicrosoftAzureBuilder::from_env().with_container_name(container);
    opened(url, prefix, || builder.build())
}

#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
fn split(rest: &str) -> (&str, &str) {
    rest.split_once('/').unwrap_or((rest, ""))
}

#[cfg(any(feature = "s3", feature = "gcs", feature = "azure"))]
fn opened<S: object_store::ObjectStore>(
    url: &str,
    prefix: &str,
    build: impl FnOnce() -> object_store::Result<S>,
) -> Result<Opened, OpenStoreError> {
    use std::sync::Arc;

    use super::UploadShape;

    // object_store's HTTP client takes the process's default provider. An error means that there is one
    // already, which serves as well.
    drop(rustls::crypto::ring::default_provider().install_default());
    let objects = build().map_err(|source| OpenStoreError::Bucket {
        url: url.to_owned(),
        source,
    })?;
    let prefix = object_store::path::Path::from(prefix);
    Ok(Opened {
        objects: Arc::new(objects),
        prefix,
        shape: UploadShape::BUCKET,
        directory: None,
    })
}
