//! Where the files of a workspace are in an input root.

use std::path::{Path, PathBuf};

/// Where the files of a workspace are, here and in an input root.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Layout {
    root: PathBuf,
    target: PathBuf,
    shown_at: PathBuf,
    target_place: PathBuf,
}

/// Where the target directory goes if it is not below the workspace root.
const TARGET: &str = "target";
/// Where the libraries go that the image lacks.
const LIBRARIES: &str = ".regatta/lib";

impl Layout {
    /// The layout of the workspace in `root` that is built in `target`, both absolute.
    #[must_use]
    pub fn new(root: PathBuf, target: PathBuf) -> Self {
        let place = target.strip_prefix(&root).map(Path::to_owned);
        let place = place.unwrap_or_else(|_| TARGET.into());
        Self::moved(root.clone(), target, root, place)
    }

    /// The layout of the workspace in `root` with what was built elsewhere, which is in `target` now: tests see the
    /// workspace at `shown_at`, and the target directory below that, at `target_place`.
    #[must_use]
    pub fn moved(root: PathBuf, target: PathBuf, shown_at: PathBuf, target_place: PathBuf) -> Self {
        Self {
            root,
            target,
            shown_at,
            target_place,
        }
    }

    /// Where tests see the input root.
    #[must_use]
    pub fn shown_at(&self) -> &Path {
        &self.shown_at
    }

    /// The workspace root here.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The target directory here.
    #[must_use]
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Where a file goes, relative to the input root; `None` if it is outside the workspace.
    #[must_use]
    pub fn place(&self, file: &Path) -> Option<PathBuf> {
        // The target directory may be below the root.
        if let Ok(relative) = file.strip_prefix(&self.target) {
            return Some(self.target_place.join(relative));
        }
        let relative = file.strip_prefix(&self.root).ok()?;
        Some(relative.to_owned())
    }

    /// Where a file appears to a test; unchanged if it is outside the workspace.
    #[must_use]
    pub fn seen(&self, file: &Path) -> PathBuf {
        match self.place(file) {
            Some(relative) => self.shown_at.join(relative),
            None => file.to_owned(),
        }
    }

    /// Where a shared library goes, relative to the input root.
    #[must_use]
    pub fn library(&self, soname: &str) -> PathBuf {
        Path::new(LIBRARIES).join(soname)
    }

    /// The directory of shared libraries as a test sees it.
    #[must_use]
    pub fn library_directory(&self) -> PathBuf {
        self.shown_at.join(LIBRARIES)
    }

    /// `CARGO_TARGET_TMPDIR`, relative to the input root.
    #[must_use]
    pub fn scratch(&self) -> PathBuf {
        self.target_place.join("tmp")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_directory_elsewhere_is_moved_below_the_root() {
        let layout = Layout::new("/w/s".into(), "/build".into());
        assert_eq!(layout.place("/w/s/a/b".as_ref()), Some("a/b".into()));
        assert_eq!(
            layout.place("/build/debug/x".as_ref()),
            Some("target/debug/x".into())
        );
        assert_eq!(layout.place("/etc/x".as_ref()), None);
        assert_eq!(
            layout.seen("/build/debug/x".as_ref()),
            Path::new("/w/s/target/debug/x")
        );
        assert_eq!(layout.scratch(), Path::new("target/tmp"));
    }

    #[test]
    fn a_target_directory_inside_stays_where_it_is() {
        let layout = Layout::new("/w/s".into(), "/w/s/out/target".into());
        assert_eq!(
            layout.seen("/w/s/out/target/x".as_ref()),
            Path::new("/w/s/out/target/x")
        );
    }

    #[test]
    fn what_was_built_elsewhere_is_seen_where_it_was_built() {
        let layout = Layout::moved(
            "/here".into(),
            "/tmp/x/target".into(),
            "/there".into(),
            "out".into(),
        );
        for (file, seen) in [
            ("/here/a/b", "/there/a/b"),
            ("/tmp/x/target/debug/c", "/there/out/debug/c"),
            ("/etc/x", "/etc/x"),
        ] {
            assert_eq!(layout.seen(file.as_ref()), Path::new(seen));
        }
        assert_eq!(layout.scratch(), Path::new("out/tmp"));
        assert_eq!(layout.library_directory(), Path::new("/there/.regatta/lib"));
    }
}
