//! The tests of a Go module.

use std::path::{Path, PathBuf};

use regatta_wire::v1;

use super::programs::{self, Programs};
use crate::cargo::build::Selection;
use crate::cargo::libraries::LibraryFinder;
use crate::cargo::suites::BuildLibraries;
use crate::commands::run::junit_of_ci;
use crate::commands::{blocking, connect};
use crate::directories;
use crate::exit_code::{ExitCode, Failure, OrExit};
use crate::git;
use crate::go::build::{BuildGoError, GoBuild, GoSelection, build};
use crate::go::suites::{GoSuitesError, suites};
use crate::options::{GlobalOptions, TestOptions};

/// Every package of a directory and below.
const ALL: &str = "./...";

pub(super) async fn test(
    global: &GlobalOptions,
    options: TestOptions,
    root: PathBuf,
) -> Result<ExitCode, Failure> {
    let here = std::env::current_dir().or_exit(ExitCode::Local)?;
    let before = git::head(&here);
    let selection = selection(&options, &root, here)?;
    // Nobody wants to hear after a long build that nobody answers.
    let client = connect(global).await?;
    let build = blocking(move || build(&selection)).await?;
    // They are there until the run has ended: what is uploaded is read again.
    let GoBuild { packages, programs } = build.map_err(build_failure)?;
    if packages.is_empty() {
        let message = "nothing to test: no package with test files was selected";
        return Err(Failure::new(ExitCode::NothingSelected, message));
    }
    let binaries = packages.iter().map(|package| &package.executable);
    let libraries = BuildLibraries::of(&LibraryFinder::new(Vec::new()), binaries);
    let built = Programs {
        root: root.clone(),
        shown_at: root.clone(),
        adapter: v1::SuiteAdapter::Go,
        libraries: libraries.or_exit(ExitCode::Local)?,
        without_c_library: "CGO_ENABLED=0",
        digests: directories::digest_cache(&root).or_exit(ExitCode::Local)?,
        junit: options.junit.clone().or_else(junit_of_ci),
        before,
        suites: Box::new(move |libraries, lacking| {
            suites(&packages, &root, libraries, lacking).map_err(suites_failure)
        }),
    };
    let ended = programs::run(global, &options, &client, built).await;
    drop(programs);
    ended
}

/// What to build: the packages from here downwards, as `go test ./...` has it, unless others are named.
fn selection(options: &TestOptions, root: &Path, here: PathBuf) -> Result<GoSelection, Failure> {
    let chosen = &options.selection;
    let understood = Selection {
        package: chosen.package.clone(),
        workspace: chosen.workspace,
        exclude: chosen.exclude.clone(),
        offline: chosen.offline,
        ..Selection::default()
    };
    if *chosen != understood || options.include_ignored {
        let message = format!(
            "{} is a Go module, for which --package, --workspace, --exclude and --offline alone choose what \
             to build; GOFLAGS says more, such as GOFLAGS=-race",
            root.display()
        );
        return Err(Failure::new(ExitCode::BadConfiguration, message));
    }
    Ok(GoSelection {
        directory: match chosen.workspace {
            true => root.to_owned(),
            false => here,
        },
        patterns: match chosen.package.is_empty() {
            true => vec![ALL.to_owned()],
            false => chosen.package.clone(),
        },
        exclude: chosen.exclude.clone(),
        offline: chosen.offline,
    })
}

fn build_failure(error: BuildGoError) -> Failure {
    let code = match &error {
        BuildGoError::Failed { .. } | BuildGoError::Package { .. } => ExitCode::BuildFailed,
        BuildGoError::List { .. } => ExitCode::BadConfiguration,
        BuildGoError::NoGo(_) | BuildGoError::NoPlace(_) | BuildGoError::Output(_) => {
            ExitCode::Local
        }
    };
    Failure {
        code,
        error: error.into(),
    }
}

fn suites_failure(error: GoSuitesError) -> Failure {
    Failure {
        code: ExitCode::BadConfiguration,
        error: error.into(),
    }
}
