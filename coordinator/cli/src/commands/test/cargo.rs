//! The tests of a Cargo workspace.

use std::path::Path;

use regatta_wire::v1;

use super::programs::{self, Programs};
use crate::cargo::archive::open;
use crate::cargo::build::{Build, BuildError, Selection, build};
use crate::cargo::suites::{BuildLibraries, SuitesError, suites};
use crate::commands::{blocking, connect};
use crate::exit_code::{ExitCode, Failure, OrExit};
use crate::git;
use crate::options::{GlobalOptions, TestOptions};

/// Below the target directory.
const JUNIT: &str = "regatta/junit.xml";
const DIGESTS: &str = "regatta/digests";
/// Cargo's, where it is not said otherwise.
const TARGET: &str = "target";

pub(super) async fn test(
    global: &GlobalOptions,
    options: TestOptions,
) -> Result<ExitCode, Failure> {
    // Nobody wants to hear after a long build that nobody answers.
    let client = connect(global).await?;
    // Until the run has ended, its files are here.
    let unpacked = tempfile::tempdir().or_exit(ExitCode::Local)?;
    let before = git::head(&std::env::current_dir().or_exit(ExitCode::Local)?);
    let build = built(&options, unpacked.path()).await?;
    if build.tests.is_empty() {
        let message = "nothing to test: no test binary was selected";
        return Err(Failure::new(ExitCode::NothingSelected, message));
    }
    let root = build.layout.root().to_owned();
    let target = match &options.archive {
        Some(_) => root.join(TARGET),
        None => build.layout.target().to_owned(),
    };
    let programs = Programs {
        root,
        shown_at: build.layout.shown_at().to_owned(),
        adapter: v1::SuiteAdapter::Libtest,
        libraries: BuildLibraries::find(&build).or_exit(ExitCode::Local)?,
        before,
        suites: Box::new(move |libraries, lacking| {
            suites(&build, libraries, lacking).map_err(suites_failure)
        }),
        without_c_library: "--target x86_64-unknown-linux-musl",
        digests: target.join(DIGESTS),
        junit: Some(options.junit.clone().unwrap_or_else(|| target.join(JUNIT))),
    };
    programs::run(global, &options, &client, programs).await
}

/// What cargo builds now, or has built elsewhere.
async fn built(options: &TestOptions, unpacked: &Path) -> Result<Build, Failure> {
    let Some(archive) = options.archive.clone() else {
        let selection = options.selection.clone();
        let build = blocking(move || build(&selection)).await?;
        return build.map_err(build_failure);
    };
    if options.selection != Selection::default() {
        let message = "an archive is what was built already: leave out what says what to build";
        return Err(Failure::new(ExitCode::BadConfiguration, message));
    }
    let here = std::env::current_dir().or_exit(ExitCode::Local)?;
    let unpacked = unpacked.to_owned();
    let opened = blocking(move || open(&archive, &unpacked, &here)).await?;
    opened.or_exit(ExitCode::BadConfiguration)
}

fn build_failure(error: BuildError) -> Failure {
    let code = match &error {
        BuildError::Failed { .. } => ExitCode::BuildFailed,
        BuildError::Metadata { .. } => ExitCode::BadConfiguration,
        BuildError::NoCargo(_) | BuildError::Output(_) => ExitCode::Local,
    };
    Failure {
        code,
        error: error.into(),
    }
}

fn suites_failure(error: SuitesError) -> Failure {
    let code = match &error {
        SuitesError::Files(_) | SuitesError::NotUtf8 { .. } => ExitCode::BadConfiguration,
        SuitesError::Libraries(_) | SuitesError::OutDir(_) => ExitCode::Local,
    };
    Failure {
        code,
        error: error.into(),
    }
}
