//! The tests of a CMake project.

use std::path::PathBuf;

use regatta_wire::v1;

use super::programs::{self, Programs};
use crate::cargo::build::Selection;
use crate::cmake::{BuildCmakeError, build, files, libraries, suite};
use crate::commands::run::junit_of_ci;
use crate::commands::{blocking, connect};
use crate::directories;
use crate::exit_code::{ExitCode, Failure, OrExit};
use crate::git;
use crate::options::{GlobalOptions, TestOptions};

pub(super) async fn test(
    global: &GlobalOptions,
    options: TestOptions,
    root: PathBuf,
) -> Result<ExitCode, Failure> {
    if options.selection != Selection::default() || options.include_ignored {
        let message = format!(
            "{} is a CMake project, whose directory `build` says how it is built; choose tests by (part of) \
             their names, or say more in a regatta.toml (`regatta run`)",
            root.display()
        );
        return Err(Failure::new(ExitCode::BadConfiguration, message));
    }
    // Nobody wants to hear after a long build that nobody answers.
    let client = connect(global).await?;
    let before = git::head(&std::env::current_dir().or_exit(ExitCode::Local)?);
    let built = blocking({
        let root = root.clone();
        move || build(&root)
    });
    built.await?.map_err(build_failure)?;
    let entries = files(&root).or_exit(ExitCode::Local)?;
    let programs = Programs {
        root: root.clone(),
        shown_at: root.clone(),
        adapter: v1::SuiteAdapter::Ctest,
        libraries: libraries(&entries),
        without_c_library: "in that image",
        digests: directories::digest_cache(&root).or_exit(ExitCode::Local)?,
        junit: options.junit.clone().or_else(junit_of_ci),
        before,
        suites: Box::new(move |libraries, lacking| {
            let suite = suite(entries, &root, libraries, lacking);
            Ok(vec![suite.map_err(not_utf8)?])
        }),
    };
    programs::run(global, &options, &client, programs).await
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "it is handed on as a function"
)]
fn not_utf8(path: PathBuf) -> Failure {
    let message = format!("the path {path:?} is not UTF-8; rename it");
    Failure::new(ExitCode::BadConfiguration, message)
}

fn build_failure(error: BuildCmakeError) -> Failure {
    let code = match &error {
        BuildCmakeError::Configure { .. } | BuildCmakeError::Failed { .. } => ExitCode::BuildFailed,
        BuildCmakeError::NoCmake(_) => ExitCode::Local,
    };
    Failure {
        code,
        error: error.into(),
    }
}
