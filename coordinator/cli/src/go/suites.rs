//! From test programs of Go packages to the jobs of a run.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::build::GoPackage;
use crate::cargo::layout::Layout;
use crate::cargo::suites::{BuildLibraries, ProgramSuite, executable, relative_to};
use crate::tree::{Entries, Source, WalkError, walk};

/// Why a build is no run.
#[derive(Debug, thiserror::Error)]
pub enum GoSuitesError {
    /// The files of a package cannot be listed.
    #[error(transparent)]
    Files(#[from] WalkError),
    /// A package is of another module. Choose packages of this one.
    #[error("{package} is in {directory}, outside of the module in {root}")]
    Elsewhere {
        /// The package.
        package: String,
        /// Where it is.
        directory: PathBuf,
        /// Where the module is.
        root: PathBuf,
    },
    /// A name cannot be sent. Rename it.
    #[error("the path {path:?} is not UTF-8")]
    NotUtf8 {
        /// The path.
        path: PathBuf,
    },
}

/// Where test programs go, relative to the input root.
const PROGRAMS: &str = ".regatta/go";

/// A job for each test program; `lacking` are the libraries that the image does not have.
///
/// # Errors
/// A file that is needed cannot be read or sent.
pub fn suites(
    packages: &[GoPackage],
    root: &Path,
    libraries: &BuildLibraries,
    lacking: &BTreeSet<String>,
) -> Result<Vec<ProgramSuite>, GoSuitesError> {
    packages
        .iter()
        .map(|package| suite(package, root, libraries, lacking))
        .collect()
}

fn suite(
    package: &GoPackage,
    root: &Path,
    libraries: &BuildLibraries,
    lacking: &BTreeSet<String>,
) -> Result<ProgramSuite, GoSuitesError> {
    let directory = &package.directory;
    let working_directory = directory
        .strip_prefix(root)
        .map_err(|_| GoSuitesError::Elsewhere {
            package: package.import_path.clone(),
            directory: directory.clone(),
            root: root.to_owned(),
        })?;
    let mut entries = walk(directory, root, &[])?;
    let sources = entries.of_here().map(str::to_owned).collect();
    insert(&mut entries, working_directory, Source::Directory)?;
    let program = Path::new(PROGRAMS)
        .join(&package.import_path)
        .join("go.test");
    insert(&mut entries, &program, executable(&package.executable))?;
    let layout = Layout::new(root.to_owned(), root.to_owned());
    let mut environment = crate::jobs::base_environment();
    for (soname, file) in libraries.shipped(&package.executable, lacking) {
        insert(&mut entries, &layout.library(soname), executable(file))?;
        let directory = layout.library_directory().display().to_string();
        environment.insert("LD_LIBRARY_PATH".to_owned(), directory);
    }
    Ok(ProgramSuite {
        name: package.import_path.clone(),
        entries,
        sources,
        program: text(&relative_to(&program, working_directory))?,
        working_directory: text(working_directory)?,
        environment,
    })
}

fn insert(entries: &mut Entries, path: &Path, source: Source) -> Result<(), GoSuitesError> {
    if path.as_os_str().is_empty() {
        return Ok(());
    }
    let added = entries.insert(path, source);
    added.map_err(|path| GoSuitesError::NotUtf8 { path })
}

fn text(path: &Path) -> Result<String, GoSuitesError> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| GoSuitesError::NotUtf8 {
        path: path.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(directory: PathBuf) -> GoPackage {
        GoPackage {
            import_path: "example.com/m/sub".to_owned(),
            directory,
            executable: "/tmp/0.test".into(),
        }
    }

    #[test]
    fn a_package_sees_its_directory() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path();
        std::fs::create_dir_all(root.join("sub/testdata/deep")).expect("made");
        for file in ["go.mod", "sub/a_test.go", "sub/testdata/deep/x"] {
            std::fs::write(root.join(file), "").expect("written");
        }
        let suite = |package| suite(&package, root, &BuildLibraries::default(), &BTreeSet::new());
        let made = suite(package(root.join("sub"))).expect("all is readable");
        let paths: Vec<_> = made.entries.by_path.keys().map(String::as_str).collect();
        let program = ".regatta/go/example.com/m/sub/go.test";
        assert_eq!(
            paths,
            [program, "sub", "sub/a_test.go", "sub/testdata/deep/x"]
        );
        assert_eq!(made.program, format!("../{program}"));
        assert_eq!(made.working_directory, "sub");
        let error = suite(package("/elsewhere".into())).expect_err("it is outside");
        assert!(
            error.to_string().contains("outside of the module"),
            "{error}"
        );
    }
}
