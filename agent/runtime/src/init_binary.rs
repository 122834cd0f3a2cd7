//! The embedded init.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The static `regatta-init` for this architecture. In a container it is also its own multi-call
/// program at [`IN_CONTAINER`](crate::docker::INIT_PATH).
pub const INIT_BINARY: &[u8] = include_bytes!(env!("REGATTA_INIT"));

/// The static program that the conformance suite runs in containers.
#[cfg(feature = "testing")]
pub const TESTEE_BINARY: &[u8] = include_bytes!(env!("REGATTA_INIT_TESTEE"));

/// Writes an executable such that a reader sees all of it or nothing.
pub(crate) fn install(bytes: &[u8], path: &Path) -> std::io::Result<()> {
    let partial = path.with_extension("partial");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o755)
        .open(&partial)?;
    file.write_all(bytes)?;
    drop(file);
    fs::rename(partial, path)
}
