//! A CMake project as a run: built here, tested by CTest on the fleet.
//!
//! CMake writes absolute paths into its build directory, so that both it and the sources are shown where they
//! are here. What only building needs stays here: it is large, and every build changes it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use crate::cargo::layout::Layout;
use crate::cargo::libraries::LibraryFinder;
use crate::cargo::suites::{BuildLibraries, ProgramSuite, executable};
use crate::tree::{Entries, Source, WalkError, walk, walk_everything};

/// Where the project is built, below its root.
pub const BUILD_DIRECTORY: &str = "build";
/// In a build directory if it has been configured.
const CACHE: &str = "CMakeCache.txt";
/// Directories of a build directory that no test needs: objects, and how they were made.
const OBJECTS: &str = "CMakeFiles";
/// What CTest wrote. Below it a project may have a directory of this name, with tests in it.
const OF_CTEST: &str = "build/Testing/Temporary/";
/// Files that tell CTest of tests, wherever they are: of a directory without one it says nothing.
const TELLS_OF_TESTS: [&str; 2] = ["CTestTestfile.cmake", "_tests.cmake"];
/// What Ninja remembers of its work.
const NINJA: &str = ".ninja_";

/// Why a project is not built. It has said so itself, on standard error.
#[derive(Debug, thiserror::Error)]
pub enum BuildCmakeError {
    /// CMake cannot be started. Install it or fix the PATH.
    #[error("cmake cannot be started; is CMake installed and in the PATH?")]
    NoCmake(#[source] std::io::Error),
    /// The project cannot be configured.
    #[error("the project cannot be configured ({status}); `cmake -S . -B build` says why")]
    Configure {
        /// How CMake ended.
        status: ExitStatus,
    },
    /// The code does not compile.
    #[error("the build failed ({status})")]
    Failed {
        /// How the build ended.
        status: ExitStatus,
    },
}

/// Builds a project in its directory `build`, which is configured first unless it is. What is built says goes to
/// standard error. Blocks until it is done.
///
/// # Errors
/// See [`BuildCmakeError`].
pub fn build(root: &Path) -> Result<(), BuildCmakeError> {
    if !root.join(BUILD_DIRECTORY).join(CACHE).is_file() {
        let status = cmake(root, &["-S", ".", "-B", BUILD_DIRECTORY])?;
        if !status.success() {
            return Err(BuildCmakeError::Configure { status });
        }
    }
    let jobs = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let jobs = jobs.to_string();
    let status = cmake(root, &["--build", BUILD_DIRECTORY, "--parallel", &jobs])?;
    match status.success() {
        true => Ok(()),
        false => Err(BuildCmakeError::Failed { status }),
    }
}

fn cmake(root: &Path, arguments: &[&str]) -> Result<ExitStatus, BuildCmakeError> {
    let mut cmake = Command::new("cmake");
    cmake
        .args(arguments)
        .current_dir(root)
        // What it believes before what it finds out itself: another name of the same directory would end
        // up in the build directory.
        .env("PWD", root)
        .stdin(Stdio::null())
        .stdout(std::io::stderr());
    cmake.status().map_err(BuildCmakeError::NoCmake)
}

/// What a project's tests may need: its sources, less what git ignores, and what was built of them.
///
/// # Errors
/// Something cannot be read.
pub fn files(root: &Path) -> Result<Entries, WalkError> {
    let build = root.join(BUILD_DIRECTORY);
    let mut entries = walk(root, root, std::slice::from_ref(&build))?;
    let mut built = walk_everything(&build, root)?;
    built.by_path.retain(|path, _| is_of_use(path));
    entries.extend(&built);
    Ok(entries)
}

fn is_of_use(path: &str) -> bool {
    if TELLS_OF_TESTS.iter().any(|name| path.ends_with(name)) {
        return true;
    }
    let mut parts = path.split('/');
    let is_left =
        path.starts_with(OF_CTEST) || parts.any(|part| part == OBJECTS || part.starts_with(NINJA));
    !is_left
}

/// The shared libraries of the programs that were built. Of one that lacks some even here nothing is known.
#[must_use]
pub fn libraries(entries: &Entries) -> BuildLibraries {
    let finder = LibraryFinder::new(Vec::new());
    let programs = entries.by_path.values().filter_map(|source| match source {
        Source::File { path, executable } => executable.then_some(path),
        Source::Bytes { .. } | Source::Symlink { .. } | Source::Directory | Source::Unfit(_) => {
            None
        }
    });
    let programs: Vec<&PathBuf> = programs.filter(|path| finder.find(path).is_ok()).collect();
    BuildLibraries::of(&finder, programs.into_iter()).unwrap_or_default()
}

/// The suite; `lacking` are the libraries that the image does not have.
///
/// # Errors
/// A path, which is handed back, is not UTF-8.
pub fn suite(
    mut entries: Entries,
    root: &Path,
    libraries: &BuildLibraries,
    lacking: &BTreeSet<String>,
) -> Result<ProgramSuite, PathBuf> {
    let layout = Layout::new(root.to_owned(), root.join(BUILD_DIRECTORY));
    let sources = entries.of_here();
    let sources = sources.filter(|path| !Path::new(path).starts_with(BUILD_DIRECTORY));
    let sources = sources.map(str::to_owned).collect();
    let mut environment = crate::jobs::base_environment();
    let programs: Vec<PathBuf> = libraries.binaries().cloned().collect();
    for program in programs {
        // The project's own libraries are where the programs look for them.
        let shipped = libraries.shipped(&program, lacking);
        for (soname, file) in shipped.filter(|(_, file)| !file.starts_with(root)) {
            entries.insert(&layout.library(soname), executable(file))?;
            let directory = layout.library_directory().display().to_string();
            environment.insert("LD_LIBRARY_PATH".to_owned(), directory);
        }
    }
    Ok(ProgramSuite {
        name: "ctest".to_owned(),
        entries,
        sources,
        program: "ctest".to_owned(),
        working_directory: BUILD_DIRECTORY.to_owned(),
        environment,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_building_needs_stays_here() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path();
        let kept = [
            ".gitignore",
            "CMakeLists.txt",
            "build/CTestTestfile.cmake",
            "build/sub/CMakeFiles/a_tests.cmake",
            "build/sub/Testing/CTestTestfile.cmake",
            "build/sub/Testing/tests",
            "build/sub/tests",
            "data/CMakeFiles/x",
        ];
        let left_out = [
            "ignored",
            "build/.ninja_log",
            "build/CMakeFiles/a.o",
            "build/Testing/Temporary/LastTest.log",
            "build/sub/CMakeFiles/b.o",
        ];
        for file in kept.iter().chain(&left_out) {
            let file = root.join(file);
            std::fs::create_dir_all(file.parent().expect("it is below")).expect("made");
            std::fs::write(file, "").expect("written");
        }
        std::fs::write(root.join(".gitignore"), "/build\nignored\n").expect("written");
        let entries = files(root).expect("all is readable");
        let paths: Vec<_> = entries.by_path.keys().map(String::as_str).collect();
        assert_eq!(paths, kept);
        let made = suite(entries, root, &BuildLibraries::default(), &BTreeSet::new());
        let made = made.expect("all is UTF-8");
        assert_eq!(
            (made.program.as_str(), made.working_directory.as_str()),
            ("ctest", "build")
        );
    }
}
