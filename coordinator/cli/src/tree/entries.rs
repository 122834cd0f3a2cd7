//! What goes into an input root.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use regatta_cas::merkle::Unfit;

use crate::files::place_in;

/// What goes into an input root, by path relative to it; parents come into being by themselves.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Entries {
    /// By path, with `/` between its parts.
    pub by_path: BTreeMap<String, Source>,
}

/// Where an entry comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// A file of this machine.
    File {
        /// Where it is.
        path: PathBuf,
        /// Whether it may be executed.
        executable: bool,
    },
    /// A file that exists only in memory.
    Bytes {
        /// What is in it.
        bytes: Bytes,
        /// Whether it may be executed.
        executable: bool,
    },
    /// A symlink.
    Symlink {
        /// Where it points, as it is written in the link.
        target: String,
    },
    /// A directory, even if nothing else is put into it.
    Directory,
    /// Something that no tree can hold: it must not be among the inputs.
    Unfit(Unfit),
}

impl Entries {
    /// Adds an entry; what was at that path before is replaced.
    ///
    /// # Errors
    /// The path, which is handed back, is not UTF-8, as the Remote Execution API wants it.
    pub fn insert(&mut self, path: &Path, source: Source) -> Result<(), PathBuf> {
        let text = path.to_str().ok_or_else(|| path.to_owned())?;
        self.by_path.insert(text.to_owned(), source);
        Ok(())
    }

    /// Adds all of `other`.
    pub fn extend(&mut self, other: &Self) {
        let entries = other.by_path.iter();
        self.by_path
            .extend(entries.map(|(path, source)| (path.clone(), source.clone())));
    }

    /// The paths of what is a file or a symlink here.
    pub fn of_here(&self) -> impl Iterator<Item = &str> {
        let of_here = self.by_path.iter().filter(|(_, source)| match source {
            Source::File { .. } | Source::Symlink { .. } => true,
            Source::Bytes { .. } | Source::Directory | Source::Unfit(_) => false,
        });
        of_here.map(|(path, _)| path.as_str())
    }

    /// Leaves out a file of the tree in `root` that Regatta itself writes, such as a report: what the last
    /// run wrote must not make the next one another one.
    pub fn leave_out(&mut self, root: &Path, file: &Path) {
        let place = place_in(root, file);
        if let Some(place) = place.as_deref().and_then(Path::to_str) {
            self.by_path.remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_left_out_however_its_path_is_written() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path().join("project");
        std::fs::create_dir_all(root.join("out")).expect("made");
        std::os::unix::fs::symlink(&root, directory.path().join("link")).expect("linked");
        let mut all = Entries::default();
        for name in ["out/report.xml", "out/other.xml"] {
            std::fs::write(root.join(name), "").expect("written");
            all.insert(Path::new(name), Source::Directory)
                .expect("UTF-8");
        }
        for (root, report, is_left_out) in [
            ("project", "project/out/report.xml", true),
            ("project", "project/out/../out/report.xml", true),
            ("link", "project/out/report.xml", true),
            ("project", "link/out/report.xml", true),
            ("project/out", "project/out/report.xml", false),
            ("project", "project/report.xml", false),
            ("project", "elsewhere/report.xml", false),
        ] {
            let mut entries = all.clone();
            entries.leave_out(&directory.path().join(root), &directory.path().join(report));
            let left: Vec<_> = entries.by_path.keys().map(String::as_str).collect();
            let wanted = match is_left_out {
                true => &["out/other.xml"][..],
                false => &["out/other.xml", "out/report.xml"],
            };
            assert_eq!(left, wanted, "{root} {report}");
        }
    }
}
