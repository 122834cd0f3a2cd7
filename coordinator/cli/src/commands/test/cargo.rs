//! The tests of a Cargo workspace.

use regatta_wire::v1;

use super::programs::{self, Programs};
use crate::cargo::build::{BuildError, build};
use crate::cargo::suites::{BuildLibraries, SuitesError, suites};
use crate::commands::{blocking, connect};
use crate::exit_code::{ExitCode, Failure, OrExit};
use crate::options::{GlobalOptions, TestOptions};

/// Below the target directory.
const JUNIT: &str = "regatta/junit.xml";
const DIGESTS: &str = "regatta/digests";

pub(super) async fn test(
    global: &GlobalOptions,
    options: TestOptions,
) -> Result<ExitCode, Failure> {
    // Nobody wants to hear after a long build that nobody answers.
    let client = connect(global).await?;
    let selection = options.selection.clone();
    let build = blocking(move || build(&selection)).await?;
    let build = build.map_err(build_failure)?;
    if build.tests.is_empty() {
        let message = "nothing to test: no test binary was selected";
        return Err(Failure::new(ExitCode::NothingSelected, message));
    }
    let target = build.layout.target().to_owned();
    let programs = Programs {
        root: build.layout.root().to_owned(),
        adapter: v1::SuiteAdapter::Libtest,
        libraries: BuildLibraries::find(&build).or_exit(ExitCode::Local)?,
        suites: Box::new(move |libraries, lacking| {
            suites(&build, libraries, lacking).map_err(suites_failure)
        }),
        without_c_library: "--target x86_64-unknown-linux-musl",
        digests: target.join(DIGESTS),
        junit: Some(options.junit.clone().unwrap_or_else(|| target.join(JUNIT))),
    };
    programs::run(global, &options, &client, programs).await
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
