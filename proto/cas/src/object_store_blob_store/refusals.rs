//! Servers of buckets that have no room.
//!
//! object_store tells of a refusal by the server no more than that there was one, in words. So what asks the server tells
//! those for want of room from all others, as an error of the kind that a disk has.

use std::io;

use async_trait::async_trait;
use bytes::BytesMut;
use futures::TryStreamExt as _;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};

/// HTTP's own status for it (RFC 4918, section 11.5): whatever else is said, there is no room.
const INSUFFICIENT_STORAGE: u16 = 507;
/// With these a server may say of its quotas what is in the body.
const REFUSALS: [u16; 2] = [400, 403];
/// The codes of such bodies: of Ceph's gateway, and of MinIO. S3 itself knows none.
const CODES: [&str; 3] = [
    "QuotaExceeded",
    "XMinioAdminBucketQuotaExceeded",
    "XMinioStorageFull",
];
/// How much is read of the body of a refusal, in bytes: the code is at its beginning.
const MAX_BODY_BYTES: usize = 64 << 10;

/// Connects with whatever tells a refusal for want of room from others.
#[derive(Debug, Default)]
pub(super) struct RefusalTellingConnector(ReqwestConnector);

impl HttpConnector for RefusalTellingConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let client = self.0.connect(options)?;
        Ok(HttpClient::new(RefusalTellingService { client }))
    }
}

#[derive(Debug)]
struct RefusalTellingService {
    client: HttpClient,
}

#[async_trait]
impl HttpService for RefusalTellingService {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let response = self.client.execute(request).await?;
        let status = response.status().as_u16();
        if status != INSUFFICIENT_STORAGE && !REFUSALS.contains(&status) {
            return Ok(response);
        }
        let (parts, body) = response.into_parts();
        let mut body = body.bytes_stream();
        let mut read = BytesMut::new();
        while let Some(piece) = body.try_next().await? {
            read.extend_from_slice(&piece);
            if read.len() >= MAX_BODY_BYTES {
                read.truncate(MAX_BODY_BYTES);
                break;
            }
        }
        match lack_of_room(status, &read) {
            Some(error) => Err(HttpError::new(HttpErrorKind::Unknown, error)),
            None => Ok(HttpResponse::from_parts(parts, read.freeze().into())),
        }
    }
}

/// What a refusal is as an error of a disk, if it is one for want of room.
fn lack_of_room(status: u16, body: &[u8]) -> Option<io::Error> {
    let text = String::from_utf8_lossy(body);
    let code = text.split_once("<Code>").map_or("", |(_, rest)| rest);
    let code = code.split_once("</Code>").map_or("", |(code, _)| code);
    let is_full = status == INSUFFICIENT_STORAGE || CODES.contains(&code);
    is_full.then(|| {
        let text = format!("the server has no room: {status} {code}");
        io::Error::new(io::ErrorKind::QuotaExceeded, text.trim_end().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_bucket_is_told_from_a_wrong_request() {
        let body = |code: &str| format!("<Error><Code>{code}</Code><Message>m</Message></Error>");
        for (status, body, is_full) in [
            (400, body("XMinioAdminBucketQuotaExceeded"), true),
            (403, body("QuotaExceeded"), true),
            (507, body("XMinioStorageFull"), true),
            (507, String::new(), true),
            (400, body("BadDigest"), false),
            (403, body("AccessDenied"), false),
            (403, "<Code>".to_owned(), false),
        ] {
            let error = lack_of_room(status, body.as_bytes());
            let kind = error.map(|error| error.kind());
            let expected = is_full.then_some(io::ErrorKind::QuotaExceeded);
            assert_eq!(kind, expected, "{status} {body}");
        }
    }
}
