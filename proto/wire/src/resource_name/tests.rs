use proptest::prelude::*;
use regatta_model::{Digest, ParseDigestError, TenantId};
use uuid::Uuid;

use super::*;

const HASH: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const UPLOAD_ID: &str = "6ba7b810-9dad-41d1-80b4-00c04fd430c8";

fn fill(pattern: &str) -> String {
    pattern.replace("HASH", HASH).replace("UUID", UPLOAD_ID)
}

#[track_caller]
fn check_read(pattern: &str, instance: &str, compressor: Compressor, size_bytes: u64) {
    let digest = Digest::parse_hash(HASH, size_bytes).expect("a valid hash");
    let tenant = parse_instance_name(instance).expect("a valid instance name");
    let expected = ReadResource::new(tenant, compressor, digest).expect("a valid name");
    assert_eq!(fill(pattern).parse(), Ok(expected));
}

#[track_caller]
fn check_write(pattern: &str, instance: &str, compressor: Compressor) {
    let digest = Digest::parse_hash(HASH, 7).expect("a valid hash");
    let tenant = parse_instance_name(instance).expect("a valid instance name");
    let upload_id = UPLOAD_ID.parse().expect("a valid UUID");
    let expected = WriteResource::new(tenant, upload_id, compressor, digest).expect("a valid name");
    assert_eq!(fill(pattern).parse(), Ok(expected));
}

#[test]
fn downloads_are_read() {
    use Compressor::{Brotli, Deflate, Identity, Zstd};
    check_read("blobs/HASH/0", "", Identity, 0);
    check_read("main/blobs/HASH/12", "main", Identity, 12);
    check_read("a/b/c/blobs/HASH/12", "a/b/c", Identity, 12);
    check_read("blobs/sha256/HASH/12", "", Identity, 12);
    check_read("compressed-blobs/zstd/HASH/12", "", Zstd, 12);
    check_read("x/compressed-blobs/deflate/sha256/HASH/1", "x", Deflate, 1);
    check_read("Blobs/compressed-blobs/brotli/HASH/1", "Blobs", Brotli, 1);
    let largest = format!("blobs/HASH/{}", i64::MAX);
    check_read(&largest, "", Identity, i64::MAX.unsigned_abs());
}

#[test]
fn uploads_are_read() {
    use Compressor::{Identity, Zstd};
    check_write("uploads/UUID/blobs/HASH/7", "", Identity);
    check_write("a/b/uploads/UUID/blobs/HASH/7", "a/b", Identity);
    check_write("uploads/UUID/blobs/sha256/HASH/7", "", Identity);
    check_write("uploads/UUID/blobs/HASH/7/src/main.c", "", Identity);
    check_write("uploads/UUID/blobs/HASH/7/", "", Identity);
    check_write("uploads/UUID/blobs/HASH/7/blobs/uploads", "", Identity);
    check_write("i/uploads/UUID/compressed-blobs/zstd/HASH/7", "i", Zstd);
}

#[track_caller]
fn check_read_refused(pattern: &str, check: fn(&ParseResourceNameError) -> bool) {
    let error = fill(pattern).parse::<ReadResource>().expect_err("refused");
    assert!(check(&error), "{pattern}: {error:?}");
}

#[track_caller]
fn check_write_refused(pattern: &str, check: fn(&ParseResourceNameError) -> bool) {
    let error = fill(pattern).parse::<WriteResource>().expect_err("refused");
    assert!(check(&error), "{pattern}: {error:?}");
}

fn is_form(error: &ParseResourceNameError) -> bool {
    matches!(error, ParseResourceNameError::Form { .. })
}

fn is_empty_segment(error: &ParseResourceNameError) -> bool {
    *error == ParseResourceNameError::InstanceName(InvalidInstanceNameError::EmptySegment)
}

fn is_bad_size(error: &ParseResourceNameError) -> bool {
    *error == ParseResourceNameError::Digest(ParseDigestError::BadSize)
}

#[test]
fn what_names_no_download_is_refused() {
    use ParseResourceNameError as Error;
    for pattern in ["", "blobs", "blobs/HASH", "HASH/1", "a/b/c", "blobs/sha256"] {
        check_read_refused(pattern, is_form);
    }
    check_read_refused("blobs/HASH/1/extra", is_form);
    check_read_refused("operations/blobs/HASH/1", is_form);
    check_read_refused("uploads/UUID/blobs/HASH/1", is_form);
    check_read_refused("compressed-blobs", is_form);
    check_read_refused("/blobs/HASH/1", is_empty_segment);
    check_read_refused("//blobs/HASH/1", is_empty_segment);
    check_read_refused("a//blobs/HASH/1", is_empty_segment);
    check_read_refused("a\n/blobs/HASH/1", |error| {
        matches!(error, Error::InstanceName(InvalidInstanceNameError::Id(_)))
    });
    for compressor in ["identity", "lz4", "ZSTD"] {
        check_read_refused(&format!("compressed-blobs/{compressor}/HASH/1"), |error| {
            matches!(error, Error::Compressor)
        });
    }
    check_read_refused("blobs/blake3/HASH/1", |error| {
        *error == Error::DigestFunction { name: "BLAKE3" }
    });
    check_read_refused("blobs/abc/1", |error| {
        *error == Error::Digest(ParseDigestError::WrongLength { length: 3 })
    });
    check_read_refused("blobs/HASH/-1", is_bad_size);
    check_read_refused("blobs/HASH/", is_bad_size);
    check_read_refused("blobs/HASH/99999999999999999999", is_bad_size);
    check_read_refused("blobs/HASH/9223372036854775808", |error| {
        matches!(error, Error::TooLarge { .. })
    });
}

#[test]
fn what_names_no_upload_is_refused() {
    for pattern in [
        "uploads",
        "uploads/UUID",
        "uploads/UUID/HASH/1",
        "uploads/UUID/blobs/HASH",
        "blobs/HASH/1",
        "actions/uploads/UUID/blobs/HASH/1",
    ] {
        check_write_refused(pattern, is_form);
    }
    check_write_refused("/uploads/UUID/blobs/HASH/1", is_empty_segment);
    check_write_refused("uploads/not-a-uuid/blobs/HASH/1", |error| {
        matches!(error, ParseResourceNameError::UploadId)
    });
}

#[test]
fn keywords_are_no_part_of_an_instance_name() {
    for keyword in KEYWORDS {
        let tenant: TenantId = format!("a/{keyword}/b").parse().expect("a tenant id");
        let expected = Err(InvalidInstanceNameError::Keyword { keyword });
        assert_eq!(parse_instance_name(tenant.as_str()), expected);
        let resource = ReadResource::new(tenant, Compressor::Identity, Digest::EMPTY);
        assert!(resource.is_err());
    }
}

#[test]
fn a_missing_blob_is_named_like_a_download() {
    let subject = missing_blob_subject(&Digest::EMPTY);
    let resource: ReadResource = subject.parse().expect("a resource name");
    assert_eq!(resource.digest(), Digest::EMPTY);
    assert_eq!(resource.instance().as_str(), "");
}

fn instance_names() -> impl Strategy<Value = TenantId> {
    prop::collection::vec("[a-zA-Z0-9 ._é-]{1,8}", 0..4)
        .prop_map(|segments| segments.join("/"))
        .prop_filter_map("an instance name", |name| parse_instance_name(&name).ok())
}

fn compressors() -> impl Strategy<Value = Compressor> {
    prop::sample::select(vec![
        Compressor::Identity,
        Compressor::Zstd,
        Compressor::Deflate,
        Compressor::Brotli,
    ])
}

fn digests() -> impl Strategy<Value = Digest> {
    (any::<[u8; 32]>(), 0..=i64::MAX.unsigned_abs())
        .prop_map(|(hash, size_bytes)| Digest::new(hash, size_bytes))
}

/// Texts made of the parts of names in any order, which get further than random ones.
fn near_names() -> impl Strategy<Value = String> {
    let segments = prop_oneof![
        prop::sample::select(KEYWORDS.to_vec()).prop_map(str::to_owned),
        prop::sample::select(vec!["zstd", "sha256", "blake3", "", HASH, UPLOAD_ID, "12"])
            .prop_map(str::to_owned),
        "[a-f0-9é\0-]{0,3}",
    ];
    prop::collection::vec(segments, 0..9).prop_map(|segments| segments.join("/"))
}

fn check_any_text(text: &str) {
    if let Ok(resource) = text.parse::<ReadResource>() {
        assert_eq!(resource.to_string().parse(), Ok(resource));
    }
    if let Ok(resource) = text.parse::<WriteResource>() {
        assert_eq!(resource.to_string().parse(), Ok(resource));
    }
}

proptest! {
    #[test]
    fn downloads_read_back(
        instance in instance_names(), compressor in compressors(), digest in digests(),
    ) {
        let resource = ReadResource::new(instance, compressor, digest).expect("a valid name");
        prop_assert_eq!(resource.to_string().parse(), Ok(resource));
    }

    #[test]
    fn uploads_read_back(
        instance in instance_names(), upload_id: u128, compressor in compressors(),
        digest in digests(), metadata in "(/.{0,20})?",
    ) {
        let upload_id = Uuid::from_u128(upload_id);
        let resource =
            WriteResource::new(instance, upload_id, compressor, digest).expect("a valid name");
        prop_assert_eq!(format!("{resource}{metadata}").parse(), Ok(resource));
    }

    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        check_any_text(&text);
    }

    #[test]
    fn no_near_name_makes_it_panic(text in near_names()) {
        check_any_text(&text);
    }
}
