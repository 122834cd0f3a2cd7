//! Names of blobs, as clients spell them.

use regatta_model::{Digest, TenantId};
use regatta_wire::resource_name::{
    Compressor, KEYWORDS, ReadResource, WriteResource, parse_instance_name,
};
use uuid::Uuid;

/// Takes a text for each kind of name in turn. What is taken for one prints to what is taken for the same,
/// and no text is the name of both an upload and a download.
pub fn resource_name(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let reads = check_read(text);
    let writes = check_write(text);
    assert!(!(reads && writes), "{text:?} reads and writes");
    check_instance_name(text);
}

fn check_read(text: &str) -> bool {
    let name: ReadResource = match text.parse() {
        Ok(name) => name,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return false;
        }
    };
    check_parts(name.instance(), name.digest());
    let printed = name.to_string();
    assert_eq!(
        printed.parse().as_ref(),
        Ok(&name),
        "printed as {printed:?}"
    );
    check_spelling(text, &printed);
    let rebuilt = ReadResource::new(name.instance().clone(), name.compressor(), name.digest());
    assert_eq!(rebuilt, Ok(name));
    true
}

fn check_write(text: &str) -> bool {
    let name: WriteResource = match text.parse() {
        Ok(name) => name,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return false;
        }
    };
    check_parts(name.instance(), name.digest());
    let printed = name.to_string();
    assert_eq!(
        printed.parse().as_ref(),
        Ok(&name),
        "printed as {printed:?}"
    );
    let rebuilt = WriteResource::new(
        name.instance().clone(),
        name.upload_id(),
        name.compressor(),
        name.digest(),
    );
    assert_eq!(rebuilt, Ok(name));
    true
}

fn check_parts(instance: &TenantId, digest: Digest) {
    let instance = instance.as_str();
    let is_fine = |segment: &str| !segment.is_empty() && !KEYWORDS.contains(&segment);
    assert!(
        instance.is_empty() || instance.split('/').all(is_fine),
        "{instance:?}"
    );
    assert!(!instance.contains(char::is_control), "{instance:?}");
    assert!(i64::try_from(digest.size_bytes()).is_ok(), "{digest}");
}

/// A name says no more than it prints, but for the digest function and zeros before the size.
fn check_spelling(text: &str, printed: &str) {
    let split = |name: &str| -> Option<(String, u64)> {
        let (start, size) = name.rsplit_once('/')?;
        Some((start.to_owned(), size.parse().ok()?))
    };
    let spelled = split(text);
    let shorter = spelled.clone().and_then(|(start, size)| {
        let (before, hash) = start.rsplit_once("sha256/")?;
        Some((format!("{before}{hash}"), size))
    });
    let printed_parts = split(printed);
    assert!(
        printed_parts.is_some() && (printed_parts == spelled || printed_parts == shorter),
        "{text:?} prints as {printed:?}"
    );
}

/// A text that names a tenant is a part of names that are read back as that tenant's.
fn check_instance_name(text: &str) {
    let tenant = match parse_instance_name(text) {
        Ok(tenant) => tenant,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    assert_eq!(tenant.as_str(), text);
    let digest = Digest::of(b"blob");
    for compressor in [Compressor::Identity, Compressor::Zstd] {
        let read = ReadResource::new(tenant.clone(), compressor, digest).map(|it| it.to_string());
        let write = WriteResource::new(tenant.clone(), Uuid::nil(), compressor, digest);
        let write = write.map(|it| it.to_string());
        assert!(read.is_ok_and(|it| check_read(&it)), "{text:?}");
        assert!(write.is_ok_and(|it| check_write(&it)), "{text:?}");
    }
}
