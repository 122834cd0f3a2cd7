//! Which project a directory is in.

use std::path::{Path, PathBuf};

use clap::ValueEnum as _;

use crate::exit_code::{ExitCode, Failure};
use crate::jest::package::{self, Package};
use crate::options::ProjectKind;

/// A project whose tests need no configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Project {
    pub(super) kind: ProjectKind,
    pub(super) root: PathBuf,
}

/// Files that mark a project of that kind.
const fn marks(kind: ProjectKind) -> &'static [&'static str] {
    match kind {
        ProjectKind::Cargo => &["Cargo.toml"],
        // As pytest looks for them to find its root directory.
        ProjectKind::Python => &[
            "pyproject.toml",
            "pytest.ini",
            ".pytest.ini",
            "tox.ini",
            "setup.cfg",
            "setup.py",
        ],
        ProjectKind::Go => &["go.mod"],
        ProjectKind::Cmake => &["CMakeLists.txt"],
        ProjectKind::Jest => &[package::FILE],
    }
}

impl Project {
    /// The one that a directory is in: the nearest of that kind, or of any. Of several in the same place,
    /// the first of [`ProjectKind`]'s counts, and which one that is and how to have another is said.
    pub(super) fn of(directory: &Path, kind: Option<ProjectKind>) -> Result<Self, Failure> {
        let wanted = kind.map_or(ProjectKind::value_variants().to_vec(), |kind| vec![kind]);
        for root in directory.ancestors() {
            let there: Vec<_> = wanted.iter().filter_map(|kind| mark(root, *kind)).collect();
            let Some((kind, file)) = there.first().copied() else {
                continue;
            };
            if let [_, others @ ..] = there.as_slice()
                && !others.is_empty()
            {
                tracing::warn!("{}", choice(kind, file, root, others));
            }
            let root = root.to_owned();
            return Ok(Self { kind, root });
        }
        let marks: Vec<_> = wanted.iter().flat_map(|kind| marks(*kind)).collect();
        let marks: Vec<_> = marks.into_iter().copied().collect();
        let message = format!(
            "no project: none of {} in {} or above; `regatta run` runs the suites of a regatta.toml",
            marks.join(", "),
            directory.display()
        );
        Err(Failure::new(ExitCode::BadConfiguration, message))
    }
}

fn mark(root: &Path, kind: ProjectKind) -> Option<(ProjectKind, &'static str)> {
    let mut marks = marks(kind).iter();
    let mark = marks.find(|name| root.join(name).is_file())?;
    let is_one = match kind {
        ProjectKind::Cmake => declares_project(&root.join(mark)),
        ProjectKind::Jest => Package::of(root).is_some_and(|package| package.names_jest()),
        ProjectKind::Cargo | ProjectKind::Python | ProjectKind::Go => true,
    };
    is_one.then_some((kind, mark))
}

/// Whether a CMakeLists.txt is that of a project: those of its directories have the same name.
fn declares_project(file: &Path) -> bool {
    let text = std::fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).to_lowercase();
    let mut calls = text
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("project"));
    calls.any(|rest| rest.trim_start().starts_with('('))
}

fn choice(
    kind: ProjectKind,
    file: &str,
    root: &Path,
    others: &[(ProjectKind, &'static str)],
) -> String {
    let others = others
        .iter()
        .map(|(other, file)| format!("--project {other} that of {file}"));
    format!(
        "testing the {kind} project of {file} in {} (--project {kind} says so; {})",
        root.display(),
        others.collect::<Vec<_>>().join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_project_counts() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path();
        std::fs::create_dir_all(root.join("py/tests")).expect("made");
        std::fs::create_dir_all(root.join("py/native/src")).expect("made");
        std::fs::create_dir_all(root.join("go/pkg")).expect("made");
        let of = |path: &str, kind| {
            let project = Project::of(&root.join(path), kind);
            project.map_err(|failure| failure.code)
        };
        assert_eq!(of("py/tests", None), Err(ExitCode::BadConfiguration));
        for file in [
            "Cargo.toml",
            "py/pyproject.toml",
            // pytest does not look for it either.
            "py/tests/conftest.py",
            "py/native/Cargo.toml",
            "py/native/setup.py",
            "go/go.mod",
        ] {
            std::fs::write(root.join(file), "").expect("written");
        }
        let at = |path: &str, kind| {
            let root = root.join(path);
            Ok(Project { kind, root })
        };
        assert_eq!(of("", None), at("", ProjectKind::Cargo));
        assert_eq!(of("py/tests", None), at("py", ProjectKind::Python));
        assert_eq!(
            of("py/native/src", None),
            at("py/native", ProjectKind::Cargo)
        );
        assert_eq!(of("go/pkg", None), at("go", ProjectKind::Go));
        let python = Some(ProjectKind::Python);
        assert_eq!(
            of("py/native/src", python),
            at("py/native", ProjectKind::Python)
        );
        let cargo = Some(ProjectKind::Cargo);
        assert_eq!(of("go/pkg", cargo), at("", ProjectKind::Cargo));
        assert_eq!(
            of("", Some(ProjectKind::Go)),
            Err(ExitCode::BadConfiguration)
        );
    }

    #[test]
    fn a_directory_of_a_cmake_project_is_no_project() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path();
        std::fs::create_dir_all(root.join("src/deep")).expect("made");
        let write =
            |path: &str, text: &str| std::fs::write(root.join(path), text).expect("written");
        write(
            "CMakeLists.txt",
            "# x\n  Project (demo CXX)\nadd_subdirectory(src)\n",
        );
        write("src/CMakeLists.txt", "# project(x)\nadd_library(x x.cc)\n");
        let found = Project::of(&root.join("src/deep"), None).map_err(|failure| failure.code);
        let (kind, root) = (ProjectKind::Cmake, root.to_owned());
        assert_eq!(found, Ok(Project { kind, root }));
    }

    #[test]
    fn a_package_without_jest_is_no_project() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path();
        std::fs::create_dir_all(root.join("tool/lib")).expect("made");
        let write =
            |path: &str, text: &str| std::fs::write(root.join(path), text).expect("written");
        write("package.json", r#"{ "jest": {} }"#);
        write("tool/package.json", r#"{ "scripts": { "test": "mocha" } }"#);
        let found = Project::of(&root.join("tool/lib"), None).map_err(|failure| failure.code);
        let (kind, root) = (ProjectKind::Jest, root.to_owned());
        assert_eq!(found, Ok(Project { kind, root }));
    }

    #[test]
    fn a_choice_is_said_with_what_else_there_is() {
        let others = [
            (ProjectKind::Python, "setup.py"),
            (ProjectKind::Go, "go.mod"),
        ];
        assert_eq!(
            choice(ProjectKind::Cargo, "Cargo.toml", Path::new("/w"), &others),
            "testing the cargo project of Cargo.toml in /w (--project cargo says so; --project python that of \
             setup.py, --project go that of go.mod)"
        );
    }
}
