//! How a large blob is cut.

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// How many parts an upload may have. The smallest limit of the buckets is 10,000.
const MAX_PARTS: u64 = 9_000;

/// How uploads to a store are cut into parts.
#[derive(Debug, Clone, Copy)]
pub(super) struct UploadShape {
    /// The size of a part, in bytes, unless the blob is so large that it would have too many. A blob that
    /// has no more is sent in one request.
    part_bytes: usize,
    /// How many parts are on their way at a time.
    pub(super) parts_in_flight: usize,
}

impl UploadShape {
    /// Parts of a bucket's upload have at least 5 MiB, and waiting for one must not stall the others. They
    /// are in memory while they are on their way, and one more while it is read.
    pub(super) const BUCKET: Self = Self {
        part_bytes: 5 * MIB,
        parts_in_flight: 3,
    };
    /// Writing to a file needs no more than the next part ready while one is written.
    pub(super) const DIRECTORY: Self = Self {
        part_bytes: MIB,
        parts_in_flight: 2,
    };

    /// The size of the parts of a blob that is expected to have `size_bytes`.
    pub(super) fn part_bytes(&self, size_bytes: u64) -> usize {
        let needed = usize::try_from(size_bytes.div_ceil(MAX_PARTS)).unwrap_or(usize::MAX);
        let is_local = self.part_bytes < Self::BUCKET.part_bytes;
        if is_local {
            self.part_bytes
        } else {
            self.part_bytes.max(needed)
        }
    }
}
