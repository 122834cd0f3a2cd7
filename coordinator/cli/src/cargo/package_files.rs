//! The files that the tests of a package may read.

use std::path::{Path, PathBuf};

use cargo_metadata::{Package, PackageId};

use super::build::Build;
use crate::tree::{Entries, ExpandError, WalkError, expand, walk};

/// Why the files of a package are not known.
#[derive(Debug, thiserror::Error)]
pub enum PackageFilesError {
    /// They cannot be listed.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// What the manifest names is not there. Fix the manifest.
    #[error("{manifest}: package.metadata.regatta.inputs: {source}")]
    Inputs {
        /// The manifest.
        manifest: PathBuf,
        /// What is wrong.
        source: ExpandError,
    },
    /// The manifest's table makes no sense. Fix it.
    #[error("{manifest}: package.metadata.regatta: {detail}")]
    Metadata {
        /// The manifest.
        manifest: PathBuf,
        /// What is wrong.
        detail: String,
    },
}

/// The table `package.metadata.regatta`.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RegattaTable {
    /// More files that the tests read: patterns that begin at the workspace root.
    #[serde(default)]
    inputs: Vec<String>,
}

impl Build {
    /// The files of a package by path relative to the workspace root: those in its directory that git does
    /// not ignore, less those of other packages, and what its manifest names.
    ///
    /// # Errors
    /// They cannot be listed, or the manifest names what is not there.
    pub fn package_files(&self, package: &PackageId) -> Result<Entries, PackageFilesError> {
        let (Some(directory), Some(package)) =
            (self.package_directory(package), self.packages.get(package))
        else {
            return Ok(Entries::default());
        };
        let mut entries = walk(
            directory,
            self.layout.root(),
            &self.foreign_directories(directory),
        )?;
        entries.extend(&self.named_files(package)?);
        Ok(entries)
    }

    /// The target directory, and the directories of other packages below this one's.
    fn foreign_directories(&self, directory: &Path) -> Vec<PathBuf> {
        let others = self
            .packages
            .keys()
            .filter_map(|id| self.package_directory(id));
        others
            .filter(|other| *other != directory && other.starts_with(directory))
            .chain([self.layout.target()])
            .map(Path::to_owned)
            .collect()
    }

    fn named_files(&self, package: &Package) -> Result<Entries, PackageFilesError> {
        let manifest = || package.manifest_path.as_std_path().to_owned();
        let table = match package.metadata.get("regatta") {
            Some(table) => RegattaTable::deserialize_from(table).map_err(|detail| {
                PackageFilesError::Metadata {
                    manifest: manifest(),
                    detail,
                }
            })?,
            None => return Ok(Entries::default()),
        };
        let root = self.layout.root();
        let files = walk(root, root, &[self.layout.target().to_owned()])?;
        let patterns = table.inputs.iter().map(String::as_str);
        expand(root, &files, patterns).map_err(|source| PackageFilesError::Inputs {
            manifest: manifest(),
            source,
        })
    }
}

impl RegattaTable {
    fn deserialize_from(table: &serde_json::Value) -> Result<Self, String> {
        serde::Deserialize::deserialize(table).map_err(|error: serde_json::Error| error.to_string())
    }
}
