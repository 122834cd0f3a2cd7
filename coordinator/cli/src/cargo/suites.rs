//! From test binaries to the jobs of a run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cargo_metadata::PackageId;

use super::build::{Build, TestBinary};
use super::libraries::{FindLibrariesError, Libraries, LibraryFinder};
use super::package_files::PackageFilesError;
use crate::tree::{Entries, Source, WalkError, walk_everything};

/// Why a build is no run.
#[derive(Debug, thiserror::Error)]
pub enum SuitesError {
    /// The shared libraries of a binary are not known.
    #[error(transparent)]
    Libraries(#[from] FindLibrariesError),
    /// The files of a package are not known.
    #[error(transparent)]
    Files(#[from] PackageFilesError),
    /// What a build script made cannot be read.
    #[error("what a build script made is not readable")]
    OutDir(#[from] WalkError),
    /// A name cannot be sent. Rename it.
    #[error("the path {path:?} is not UTF-8")]
    NotUtf8 {
        /// The path.
        path: PathBuf,
    },
}

/// A test program with all that it needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProgramSuite {
    /// The job's name.
    pub name: String,
    /// The input root.
    pub entries: Entries,
    /// What of it nobody has built: a commit has to have it.
    pub sources: BTreeSet<String>,
    /// The binary, relative to the working directory.
    pub program: String,
    /// Where it runs: the package's directory, relative to the input root.
    pub working_directory: String,
    /// The whole environment.
    pub environment: BTreeMap<String, String>,
}

/// The shared libraries of every binary that was built.
#[derive(Clone, Debug, Default)]
pub struct BuildLibraries {
    by_binary: BTreeMap<PathBuf, Libraries>,
}

impl BuildLibraries {
    /// Finds them.
    ///
    /// # Errors
    /// A binary is no ELF file, or a library is nowhere.
    pub fn find(build: &Build) -> Result<Self, FindLibrariesError> {
        let finder = LibraryFinder::new(loader_path(build));
        let programs = build.programs.values().flat_map(BTreeMap::values);
        let tests = build.tests.iter().map(|test| &test.executable);
        Self::of(&finder, tests.chain(programs))
    }

    /// Finds those of these binaries.
    ///
    /// # Errors
    /// A binary is no ELF file, or a library is nowhere.
    pub fn of<'a>(
        finder: &LibraryFinder,
        binaries: impl Iterator<Item = &'a PathBuf>,
    ) -> Result<Self, FindLibrariesError> {
        let by_binary = binaries
            .map(|binary| Ok((binary.clone(), finder.find(binary)?)))
            .collect::<Result<_, _>>()?;
        Ok(Self { by_binary })
    }

    /// Every soname, those of the C library included: what the image is asked for.
    #[must_use]
    pub fn sonames(&self) -> BTreeSet<&str> {
        let all = self.by_binary.values();
        all.flat_map(|libraries| libraries.portable.keys().chain(&libraries.system))
            .map(String::as_str)
            .collect()
    }

    /// Those of `lacking` that belong to the C library, which cannot be taken along.
    #[must_use]
    pub fn unshippable(&self, lacking: &BTreeSet<String>) -> Vec<String> {
        let system: BTreeSet<_> = self
            .by_binary
            .values()
            .flat_map(|libraries| &libraries.system)
            .collect();
        lacking
            .iter()
            .filter(|soname| system.contains(soname))
            .cloned()
            .collect()
    }

    /// The binaries whose libraries these are.
    pub(crate) fn binaries(&self) -> impl Iterator<Item = &PathBuf> {
        self.by_binary.keys()
    }

    /// What of `lacking` a binary needs, by soname.
    pub(crate) fn shipped<'a>(
        &'a self,
        binary: &Path,
        lacking: &'a BTreeSet<String>,
    ) -> impl Iterator<Item = (&'a String, &'a PathBuf)> {
        let libraries = self.by_binary.get(binary);
        libraries
            .into_iter()
            .flat_map(|libraries| &libraries.portable)
            .filter(|(soname, _)| lacking.contains(*soname))
    }
}

/// Where cargo has the loader look when it runs tests: what build scripts linked with, the directories
/// of the binaries, and the Rust toolchain's own libraries.
fn loader_path(build: &Build) -> Vec<PathBuf> {
    let mut directories = build.loader_path.clone();
    for script in build.scripts.values() {
        for path in &script.linked_paths {
            let text = path.as_str();
            directories.push(text.split_once('=').map_or(text, |(_, path)| path).into());
        }
    }
    for test in &build.tests {
        directories.extend(test.executable.parent().map(Path::to_owned));
    }
    directories.sort();
    directories.dedup();
    let inherited = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    directories.extend(std::env::split_paths(&inherited).filter(|path| path.is_absolute()));
    directories.extend(toolchain_libraries());
    directories
}

/// Proc-macro tests are linked with the compiler's shared libraries.
fn toolchain_libraries() -> Option<PathBuf> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = std::process::Command::new(rustc)
        .args(["--print", "target-libdir"])
        .output()
        .ok()?;
    let directory = String::from_utf8(output.stdout).ok()?;
    Some(PathBuf::from(directory.trim())).filter(|path| path.is_dir())
}

/// A job for each test binary; `lacking` are the libraries that the image does not have.
///
/// # Errors
/// A file that is needed cannot be read or sent.
pub fn suites(
    build: &Build,
    libraries: &BuildLibraries,
    lacking: &BTreeSet<String>,
) -> Result<Vec<ProgramSuite>, SuitesError> {
    let mut by_package: BTreeMap<&PackageId, (Entries, BTreeSet<String>)> = BTreeMap::new();
    let mut suites = Vec::new();
    for test in &build.tests {
        if !by_package.contains_key(&test.package) {
            by_package.insert(&test.package, package_entries(build, &test.package)?);
        }
        let package = by_package.get(&test.package).cloned().unwrap_or_default();
        suites.push(suite(build, test, package, libraries, lacking)?);
    }
    Ok(suites)
}

/// What all tests of a package see: its files and what its build script made; and which those files are.
fn package_entries(
    build: &Build,
    package: &PackageId,
) -> Result<(Entries, BTreeSet<String>), SuitesError> {
    let mut entries = build.package_files(package)?;
    let sources = entries.of_here().map(str::to_owned).collect();
    let Some(script) = build.scripts.get(package) else {
        return Ok((entries, sources));
    };
    let made = script.out_dir.as_std_path();
    let Some(place) = build.layout.place(made) else {
        return Ok((entries, sources));
    };
    insert(&mut entries, &place, Source::Directory)?;
    for (path, source) in walk_everything(made, made)?.by_path {
        insert(&mut entries, &place.join(path), source)?;
    }
    Ok((entries, sources))
}

fn suite(
    build: &Build,
    test: &TestBinary,
    (mut entries, sources): (Entries, BTreeSet<String>),
    libraries: &BuildLibraries,
    lacking: &BTreeSet<String>,
) -> Result<ProgramSuite, SuitesError> {
    let layout = &build.layout;
    let directory = build
        .package_directory(&test.package)
        .unwrap_or(layout.root());
    let working_directory = layout.place(directory).unwrap_or_default();
    insert(&mut entries, &working_directory, Source::Directory)?;
    let mut programs = vec![&test.executable];
    if test.integration {
        programs.extend(
            build
                .programs
                .get(&test.package)
                .into_iter()
                .flat_map(BTreeMap::values),
        );
        insert(&mut entries, &layout.scratch(), Source::Directory)?;
    }
    let mut environment = build.environment(test);
    for program in programs {
        insert(&mut entries, &place(build, program), executable(program))?;
        for (soname, file) in libraries.shipped(program, lacking) {
            insert(&mut entries, &layout.library(soname), executable(file))?;
            let directory = layout.library_directory().display().to_string();
            environment.insert("LD_LIBRARY_PATH".to_owned(), directory);
        }
    }
    Ok(ProgramSuite {
        name: test.name.clone(),
        entries,
        sources,
        program: text(&relative_to(
            &place(build, &test.executable),
            &working_directory,
        ))?,
        working_directory: text(&working_directory)?,
        environment,
    })
}

pub(crate) fn executable(file: &Path) -> Source {
    Source::File {
        path: file.to_owned(),
        executable: true,
    }
}

fn place(build: &Build, file: &Path) -> PathBuf {
    let name = || Path::new("target").join(file.file_name().unwrap_or_default());
    build.layout.place(file).unwrap_or_else(name)
}

/// The way from a directory to a file, both relative to the same place.
pub(crate) fn relative_to(file: &Path, directory: &Path) -> PathBuf {
    let shared = file.components().zip(directory.components());
    let shared = shared.take_while(|(left, right)| left == right).count();
    let up = directory
        .components()
        .skip(shared)
        .map(|_| std::path::Component::ParentDir);
    let way: PathBuf = up.chain(file.components().skip(shared)).collect();
    // Without a slash it would be looked up in the PATH.
    if way.components().count() == 1 {
        Path::new(".").join(way)
    } else {
        way
    }
}

fn insert(entries: &mut Entries, path: &Path, source: Source) -> Result<(), SuitesError> {
    if path.as_os_str().is_empty() {
        return Ok(());
    }
    entries
        .insert(path, source)
        .map_err(|path| SuitesError::NotUtf8 { path })
}

fn text(path: &Path) -> Result<String, SuitesError> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| SuitesError::NotUtf8 {
        path: path.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    fn suites_of(fixture: &Fixture, lacking: &[&str]) -> Vec<ProgramSuite> {
        let build = super::super::build::build(&fixture.selection()).expect("it builds");
        let libraries = BuildLibraries::find(&build).expect("they are here");
        let lacking = lacking.iter().map(ToString::to_string).collect();
        suites(&build, &libraries, &lacking).expect("all is readable")
    }

    fn has(suite: &ProgramSuite, end: &str) -> bool {
        suite.entries.by_path.keys().any(|path| path.ends_with(end))
    }

    #[test]
    fn each_binary_sees_its_package_and_nothing_else() {
        let Some(fixture) = Fixture::new() else {
            return;
        };
        let suites = suites_of(&fixture, &[]);
        let (unit, integration, leaf) = (&suites[0], &suites[2], &suites[3]);
        assert_eq!(leaf.working_directory, "leaf");
        assert!(has(leaf, "leaf/fixtures/data.txt") && !has(leaf, "scratch.tmp"));
        assert!(has(leaf, "out/made.txt") && !has(leaf, "shared.txt"));
        assert!(!has(leaf, "app/src/lib.rs"));
        assert!(
            leaf.program.starts_with("../target/debug/deps/leaf-"),
            "{}",
            leaf.program
        );
        assert!(has(unit, "shared.txt") && !has(unit, "leaf/src/lib.rs"));
        assert!(has(integration, "debug/app") && !has(unit, "debug/app"));
        assert!(has(integration, "target/tmp"));
    }

    #[test]
    fn what_a_manifest_names_is_a_source_though_git_ignores_it() {
        let Some(fixture) = Fixture::new() else {
            return;
        };
        fixture.write("secret.tmp", "of this machine");
        fixture.write(
            "leaf/Cargo.toml",
            "[package]\nname = \"leaf\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\
             [package.metadata.regatta]\ninputs = [\"secret.tmp\"]\n",
        );
        let leaf = suites_of(&fixture, &[]).remove(3);
        let sources: Vec<_> = leaf.sources.iter().map(String::as_str).collect();
        let expected = [
            "leaf/Cargo.toml",
            "leaf/build.rs",
            "leaf/fixtures/data.txt",
            "leaf/src/lib.rs",
            "secret.tmp",
        ];
        assert_eq!(sources, expected, "and nothing that was built");
    }

    #[test]
    fn tests_have_the_environment_that_cargo_gives_them() {
        let Some(fixture) = Fixture::new() else {
            return;
        };
        let suites = suites_of(&fixture, &[]);
        let (integration, leaf) = (&suites[2].environment, &suites[3].environment);
        let root = fixture.root().display().to_string();
        assert_eq!(leaf["CARGO_MANIFEST_DIR"], format!("{root}/leaf"));
        assert_eq!(leaf["FROM_SCRIPT"], "yes");
        assert!(leaf["OUT_DIR"].starts_with(&root));
        assert!(!leaf.contains_key("CARGO_BIN_EXE_app") && !leaf.contains_key("LD_LIBRARY_PATH"));
        assert_eq!(
            integration["CARGO_BIN_EXE_app"],
            format!("{root}/target/debug/app")
        );
        assert_eq!(integration["CARGO_PKG_VERSION_MINOR"], "2");
        assert_eq!(integration["CARGO_PKG_AUTHORS"], "A:B");
        assert_eq!(
            integration["CARGO_TARGET_TMPDIR"],
            format!("{root}/target/tmp")
        );
    }

    #[test]
    fn libraries_that_the_image_lacks_are_taken_along() {
        let Some(fixture) = Fixture::new() else {
            return;
        };
        let build = super::super::build::build(&fixture.selection()).expect("it builds");
        let libraries = BuildLibraries::find(&build).expect("they are here");
        let lacking: BTreeSet<String> =
            libraries.sonames().into_iter().map(str::to_owned).collect();
        let suites = suites(&build, &libraries, &lacking).expect("all is readable");
        let shipped = suites[3]
            .entries
            .by_path
            .keys()
            .filter(|path| path.starts_with(".regatta/lib/"));
        let portable = lacking
            .iter()
            .filter(|name| !super::super::libraries::is_system(name));
        assert_eq!(shipped.count(), portable.count());
        assert!(
            libraries
                .unshippable(&lacking)
                .iter()
                .all(|name| super::super::libraries::is_system(name))
        );
    }

    #[test]
    fn the_way_to_a_program_always_has_a_slash() {
        let way = |file: &str, directory: &str| {
            relative_to(Path::new(file), Path::new(directory))
                .display()
                .to_string()
        };
        assert_eq!(way("target/debug/x", "a/b"), "../../target/debug/x");
        assert_eq!(way("target/debug/x", ""), "target/debug/x");
        assert_eq!(way("x", ""), "./x");
    }
}
