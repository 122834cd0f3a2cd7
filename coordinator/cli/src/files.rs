//! Files that are there whole or not at all.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Where JUnit XML goes in a CI system if nobody says where: in the working directory.
pub const JUNIT_OF_CI: &str = "regatta-junit.xml";
/// Where GitLab's report of findings goes, in the working directory, as in GitLab's own examples.
pub const FINDINGS_OF_CI: &str = "gl-code-quality-report.json";
/// What runs leave in a project that no later run of it is about.
pub const REPORTS_OF_CI: [&str; 2] = [JUNIT_OF_CI, FINDINGS_OF_CI];

/// Puts `bytes` into `file`, whole or not at all; the directories above are made.
///
/// # Errors
/// It cannot be written; then the file is as it was.
pub fn write_atomically(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    std::fs::create_dir_all(directory)?;
    let mut temporary = tempfile::Builder::new()
        .prefix(".regatta-")
        .tempfile_in(directory)?;
    temporary.write_all(bytes)?;
    temporary.persist(file).map_err(|error| error.error)?;
    Ok(())
}

/// Where a file is below a directory, however the paths to both are written; `None` if it is not there.
#[must_use]
pub fn place_in(directory: &Path, file: &Path) -> Option<PathBuf> {
    let (directory, file) = (directory.canonicalize().ok()?, file.canonicalize().ok()?);
    file.strip_prefix(directory).ok().map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_and_nothing_else_is_left() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("a/b.txt");
        write_atomically(&file, b"one").expect("written");
        write_atomically(&file, b"two").expect("written");
        assert_eq!(std::fs::read(&file).expect("read"), b"two");
        let left = std::fs::read_dir(directory.path().join("a")).expect("listed");
        assert_eq!(left.count(), 1);
    }
}
