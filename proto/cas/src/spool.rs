//! Blobs on their way into a store, in files.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use regatta_model::{Digest, DigestHasher};

use crate::{BlobStream, StoreError, file_body};

/// A file that a blob is written to as it comes. The file is this value's own: nobody else writes to it.
#[derive(Debug)]
pub struct Spool {
    file: File,
    size_bytes: u64,
    /// `None` if what comes is not hashed.
    hasher: Option<DigestHasher>,
}

/// What a spool came to: a file that nobody writes to any more. A store in the same file system can take
/// the file itself instead of copying it.
#[derive(Debug, Clone)]
pub struct SpooledBlob(Arc<Spool>);

impl Spool {
    /// Writes to `file`, which is empty. What comes is hashed if it `is_hashed`: that pays unless the file
    /// has the blob in another form.
    #[must_use]
    pub fn new(file: File, is_hashed: bool) -> Self {
        Self {
            file,
            size_bytes: 0,
            hasher: is_hashed.then(DigestHasher::new),
        }
    }

    /// Adds the next bytes. It blocks. After an error nothing was added.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.size_bytes)?;
        self.size_bytes += bytes.len() as u64;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        Ok(())
    }

    /// How much has been added, in bytes.
    #[must_use]
    pub const fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Ends the writing.
    #[must_use]
    pub fn seal(self) -> SpooledBlob {
        SpooledBlob(Arc::new(self))
    }
}

impl SpooledBlob {
    /// The digest of what was written, if it was hashed.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        let hasher = self.0.hasher.clone();
        hasher.map(DigestHasher::finish)
    }

    /// Everything that was written.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: the process has no file descriptor left.
    pub fn body(&self) -> Result<BlobStream, StoreError> {
        let file = self.0.file.try_clone();
        let file = file.map_err(|error| StoreError::Unavailable {
            detail: format!("opening what was written of a blob: {error}"),
        })?;
        Ok(file_body(file, 0, self.0.size_bytes))
    }

    /// Goes on writing; `None` if somebody still uses the blob, or if a store may have taken its file.
    #[must_use]
    pub fn reopen(self) -> Option<Spool> {
        let spool = Arc::into_inner(self.0)?;
        let is_taken = spool.has_name().unwrap_or(true);
        (!is_taken).then_some(spool)
    }

    pub(crate) fn file(&self) -> &File {
        &self.0.file
    }
}

impl Spool {
    fn has_name(&self) -> io::Result<bool> {
        use std::os::unix::fs::MetadataExt as _;
        Ok(self.file.metadata()?.nlink() > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use futures::TryStreamExt as _;

    #[tokio::test]
    async fn what_was_written_is_the_blob() {
        for is_hashed in [true, false] {
            let mut spool = Spool::new(tempfile::tempfile().unwrap(), is_hashed);
            for piece in ["one", "", "two"] {
                spool.append(piece.as_bytes()).unwrap();
            }
            let blob = spool.seal();
            let pieces: Vec<Bytes> = blob.body().unwrap().try_collect().await.unwrap();
            assert_eq!(pieces.concat(), b"onetwo");
            assert_eq!(blob.digest(), is_hashed.then(|| Digest::of(b"onetwo")));
        }
    }

    #[test]
    fn a_blob_that_nobody_has_can_be_gone_on_with() {
        let mut spool = Spool::new(tempfile::tempfile().unwrap(), true);
        spool.append(b"one").unwrap();
        let blob = spool.seal();
        let other = blob.clone();
        assert!(other.reopen().is_none());
        let mut spool = blob.reopen().unwrap();
        spool.append(b"two").unwrap();
        assert_eq!(spool.seal().digest(), Some(Digest::of(b"onetwo")));
    }

    #[test]
    fn a_file_with_a_name_is_left_alone() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let blob = Spool::new(file.reopen().unwrap(), true).seal();
        assert!(blob.reopen().is_none());
    }
}
