//! The name of a file in the tier.

use std::path::{Path, PathBuf};

use regatta_model::Digest;

/// What the names of executable files end with.
const EXECUTABLE_SUFFIX: &str = "-x";
/// Disk space is given out in blocks of this many bytes.
const BLOCK_BYTES: u64 = 4096;

/// A part of the cache, by the order in which it was met. Nothing in one part is visible in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Part(pub(super) u32);

/// One file of the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct LocalFile {
    pub(super) part: Part,
    pub(super) digest: Digest,
    pub(super) executable: bool,
}

impl LocalFile {
    /// The file of the same blob with the other mode.
    pub(super) fn twin(self) -> Self {
        Self {
            executable: !self.executable,
            ..self
        }
    }

    /// Its owner may write: a view that is laid over the file shows the same mode, and a command may
    /// rewrite its inputs there. The file itself is written to by nobody, and is discarded if it was.
    pub(super) fn mode(self) -> u32 {
        if self.executable { 0o755 } else { 0o644 }
    }

    /// The disk space it takes, in bytes; at least a block, for its inode.
    pub(super) fn cost_bytes(self) -> u64 {
        let size_bytes = self.digest.size_bytes().max(1);
        size_bytes
            .checked_next_multiple_of(BLOCK_BYTES)
            .unwrap_or(u64::MAX)
    }

    /// Its path in the directory of its part.
    pub(super) fn path_in(self, directory: &Path) -> PathBuf {
        let hash = self.digest.hash_hex();
        let suffix = if self.executable {
            EXECUTABLE_SUFFIX
        } else {
            ""
        };
        let name = format!("{hash}-{}{suffix}", self.digest.size_bytes());
        directory.join(&hash[..2]).join(name)
    }

    /// The file of a part that has `name`, if any file can have it.
    pub(super) fn from_name(part: Part, name: &str) -> Option<Self> {
        let (blob, executable) = match name.strip_suffix(EXECUTABLE_SUFFIX) {
            Some(blob) => (blob, true),
            None => (name, false),
        };
        let (hash, size) = blob.split_once('-')?;
        let digest = format!("{hash}/{size}").parse().ok()?;
        Some(Self {
            part,
            digest,
            executable,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back() {
        for executable in [false, true] {
            let file = LocalFile {
                part: Part(0),
                digest: Digest::of(b"x"),
                executable,
            };
            let path = file.path_in(Path::new("d"));
            let name = path.file_name().unwrap().to_str().unwrap();
            assert_eq!(LocalFile::from_name(Part(0), name), Some(file));
        }
        for name in ["", "lock", "abc-1", "-x", "abc"] {
            assert_eq!(LocalFile::from_name(Part(0), name), None);
        }
    }
}
