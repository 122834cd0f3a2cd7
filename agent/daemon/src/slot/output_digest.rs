//! The digest of a file that a job left behind, however large it pretends to be.

use std::fs::File;
use std::io::{self, Read as _};

use bytes::Bytes;
use regatta_model::{Digest, DigestHasher};
use tokio_util::sync::CancellationToken;

/// How much is read between two looks at whether it is still wanted.
const READ_BYTES: usize = 128 << 10;
/// Files of at most so many bytes need not be read again.
const SMALL_BYTES: usize = 16 << 10;

/// Why a file has no digest.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DigestError {
    #[error("it is larger than it may be")]
    TooLarge,
    #[error("nobody wants it any more")]
    Cancelled,
    #[error("it cannot be read")]
    Io(#[from] io::Error),
}

/// A file that was read to its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Digested {
    pub(crate) digest: Digest,
    /// All of it, if it has at most [`SMALL_BYTES`].
    pub(crate) content: Option<Bytes>,
}

/// Reads a file of at most `max_bytes`. One that says that it is larger is not read at all.
pub(crate) fn digest_of(
    mut file: File,
    max_bytes: u64,
    cancel: &CancellationToken,
) -> Result<Digested, DigestError> {
    let said_bytes = file.metadata()?.len();
    if said_bytes > max_bytes {
        return Err(DigestError::TooLarge);
    }
    let mut hasher = DigestHasher::new();
    // One more than it says, for a file that says the truth is then read at once.
    let enough = usize::try_from(said_bytes).unwrap_or(READ_BYTES);
    let mut buffer = vec![0; enough.saturating_add(1).min(READ_BYTES)];
    let mut content = Some(Vec::new());
    loop {
        if cancel.is_cancelled() {
            return Err(DigestError::Cancelled);
        }
        let read = file.read(&mut buffer)?;
        let piece = &buffer[..read];
        hasher.update(piece);
        content = content.filter(|content| content.len() + read <= SMALL_BYTES);
        if let Some(content) = &mut content {
            content.extend_from_slice(piece);
        }
        if read == 0 {
            return Ok(Digested {
                digest: hasher.finish(),
                content: content.map(Bytes::from),
            });
        }
        if hasher.size_bytes() > max_bytes {
            return Err(DigestError::TooLarge);
        }
    }
}
