//! `regatta test`: the tests of the project here, which needs no configuration.

mod python;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use regatta_model::ImageReference;
use regatta_wire::v1;

use super::run::description;
use super::{blocking, connect};
use crate::cargo::build::{Build, BuildError, build};
use crate::cargo::suites::{BuildLibraries, CargoSuite, SuitesError, suites};
use crate::client::Client;
use crate::exit_code::{ExitCode, Failure, OrExit};
use crate::git;
use crate::jobs::{SuiteSettings, cargo_job};
use crate::options::{GlobalOptions, TestOptions};
use crate::probe::lacking;
use crate::session::Session;
use crate::tree::{Entries, Staging};
use crate::watch::{Ended, Tally};

/// Below the target directory.
const JUNIT: &str = "regatta/junit.xml";
const DIGESTS: &str = "regatta/digests";

pub(super) async fn test(
    global: &GlobalOptions,
    options: TestOptions,
) -> Result<ExitCode, Failure> {
    let here = std::env::current_dir().or_exit(ExitCode::Local)?;
    let project = match options.selection.manifest_path {
        Some(_) => Some(Project::Cargo),
        None => Project::of(&here),
    };
    let (ended, tally) = match project {
        Some(Project::Cargo) => cargo_test(global, options).await?,
        Some(Project::Python(root)) => python::test(global, options, root).await?,
        None => {
            let message = format!(
                "no Cargo.toml and no Python project ({}) in {} or above; `regatta run` runs the suites of a \
                 regatta.toml",
                PYTHON_MARKS.join(", "),
                here.display()
            );
            return Err(Failure::new(ExitCode::BadConfiguration, message));
        }
    };
    end(&ended, &tally)
}

/// Files that mark a Python project, as pytest looks for them to find its root directory.
const PYTHON_MARKS: [&str; 6] = [
    "pyproject.toml",
    "pytest.ini",
    ".pytest.ini",
    "tox.ini",
    "setup.cfg",
    "setup.py",
];

/// A project whose tests need no configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Project {
    Cargo,
    /// With its root directory.
    Python(PathBuf),
}

impl Project {
    /// The one that a directory is in: the nearest, and cargo's if there are two in the same place.
    fn of(directory: &Path) -> Option<Self> {
        directory.ancestors().find_map(|root| {
            let has = |name: &&str| root.join(name).is_file();
            if has(&"Cargo.toml") {
                Some(Self::Cargo)
            } else {
                let is_python = PYTHON_MARKS.iter().any(has);
                is_python.then(|| Self::Python(root.to_owned()))
            }
        })
    }
}

async fn cargo_test(
    global: &GlobalOptions,
    options: TestOptions,
) -> Result<(Ended, Tally), Failure> {
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
    let digests = target.join(DIGESTS);
    let junit = options.junit.clone().unwrap_or_else(|| target.join(JUNIT));
    let image = options.job.image.clone();
    let libraries = BuildLibraries::find(&build).or_exit(ExitCode::Local)?;
    let lacking = lacking_in(&client, image.as_ref(), &libraries, digests.clone()).await?;
    let (jobs, mut staging) = blocking({
        let (settings, junit) = (settings(&options), junit.clone());
        move || stage(&build, &libraries, &lacking, &settings, &junit, digests)
    })
    .await??;
    // After everything was read: a change before that would be seen.
    let here = std::env::current_dir().or_exit(ExitCode::Local)?;
    let commit = blocking({
        let junit = junit.clone();
        move || git::commit_of(&here, Some(&junit))
    });
    let commit = commit.await?;
    let uploaded = staging.upload(&client.blobs()).await?;
    tracing::info!(
        blobs = uploaded.uploaded_blobs,
        bytes = uploaded.uploaded_bytes,
        of_blobs = uploaded.total_blobs,
        of_bytes = uploaded.total_bytes,
        "uploaded"
    );
    let spec = v1::RunSpec {
        instance_name: global.instance.clone(),
        commit: commit.id,
        branch: commit.branch,
        dirty: commit.dirty,
        jobs,
        max_failures: options.stop.max_failures_or(1),
        skip_cache_lookup: options.report.no_cache,
        audit_percent: options.report.audit_hits,
        stream_tests: options.report.live_output,
        description: description("regatta test", &options.filters),
    };
    let session = Session {
        global,
        client: &client,
        report: &options.report,
        junit: Some(junit),
    };
    session.run(spec).await
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

fn settings(options: &TestOptions) -> SuiteSettings {
    SuiteSettings {
        image: options.job.image.clone(),
        timeout: options.job.timeout,
        retries: options.retries,
        isolation: options.job.isolation,
        network: options.job.network,
        filters: options.filters.clone(),
        include_ignored: options.include_ignored,
    }
}

/// The libraries that must be taken along, once it is clear that the others are there.
async fn lacking_in(
    client: &Client,
    image: Option<&ImageReference>,
    libraries: &BuildLibraries,
    digests: PathBuf,
) -> Result<BTreeSet<String>, Failure> {
    let lacking = lacking(client, image, &libraries.sonames(), &digests)
        .await
        .or_exit(ExitCode::Infrastructure)?;
    let unshippable = libraries.unshippable(&lacking);
    if unshippable.is_empty() {
        return Ok(lacking);
    }
    let image = image.map_or("the agents' image".to_owned(), |image| {
        format!("image {image}")
    });
    let message = format!(
        "{image} lacks {}, parts of the C library, which cannot be taken along; choose an image with the \
         C library that Rust builds for here (debian:stable-slim, say), or build for what the image \
         has (--target x86_64-unknown-linux-musl, say)",
        unshippable.join(", ")
    );
    Err(Failure::new(ExitCode::BadConfiguration, message))
}

fn stage(
    build: &Build,
    libraries: &BuildLibraries,
    lacking: &BTreeSet<String>,
    settings: &SuiteSettings,
    junit: &Path,
    digests: PathBuf,
) -> Result<(Vec<v1::Job>, Staging), Failure> {
    let mut suites = suites(build, libraries, lacking).map_err(suites_failure)?;
    for suite in &mut suites {
        suite.entries.leave_out(build.layout.root(), junit);
    }
    let mut staging = Staging::new(&digests);
    let entries: Vec<&Entries> = suites.iter().map(|suite| &suite.entries).collect();
    let roots = staging.add(&entries)?;
    staging.save_cache();
    let job =
        |(suite, root): (&CargoSuite, _)| cargo_job(suite, root, build.layout.root(), settings);
    Ok((suites.iter().zip(roots).map(job).collect(), staging))
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

/// What the process ends with: a run without trouble in which no test ran is most probably a misspelt
/// filter, and the coordinator gives no verdict on it.
fn end(ended: &Ended, tally: &Tally) -> Result<ExitCode, Failure> {
    let selected = match ended {
        Ended::Finished(finished) => {
            let counts = finished.counts.unwrap_or_default();
            finished.cancelled || tally.trouble || counts.planned > counts.skipped
        }
        Ended::Left => true,
    };
    match selected {
        true => Ok(ended.exit_code(tally)),
        false => Err(Failure::new(
            ExitCode::NothingSelected,
            "no test ran: none was selected",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finished(verdict: v1::Verdict, planned: u32, skipped: u32) -> Ended {
        Ended::Finished(v1::RunFinished {
            verdict: verdict.into(),
            counts: Some(v1::Counts {
                planned,
                skipped,
                ..v1::Counts::default()
            }),
            ..v1::RunFinished::default()
        })
    }

    #[test]
    fn the_nearest_project_counts() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path();
        let at = |path: &str| Project::of(&root.join(path));
        std::fs::create_dir_all(root.join("py/tests")).expect("made");
        std::fs::create_dir_all(root.join("py/native/src")).expect("made");
        assert_eq!(at("py/tests"), None);
        for file in [
            "Cargo.toml",
            "py/pyproject.toml",
            // pytest does not look for it either.
            "py/tests/conftest.py",
            "py/native/Cargo.toml",
            "py/native/setup.py",
        ] {
            std::fs::write(root.join(file), "").expect("written");
        }
        assert_eq!(at(""), Some(Project::Cargo));
        assert_eq!(at("py/tests"), Some(Project::Python(root.join("py"))));
        assert_eq!(at("py/native/src"), Some(Project::Cargo));
    }

    #[test]
    fn a_run_of_nothing_is_not_good() {
        let with = |ended: &Ended, trouble| {
            let mut tally = Tally::default();
            tally.trouble = trouble;
            end(ended, &tally).unwrap_or_else(|failure| failure.code)
        };
        let code = |ended: &Ended| with(ended, false);
        assert_eq!(
            code(&finished(v1::Verdict::Releasable, 3, 1)),
            ExitCode::Good
        );
        assert_eq!(
            code(&finished(v1::Verdict::Releasable, 0, 0)),
            ExitCode::NothingSelected
        );
        assert_eq!(
            code(&finished(v1::Verdict::Releasable, 2, 2)),
            ExitCode::NothingSelected
        );
        let unknown = finished(v1::Verdict::Unknown, 0, 0);
        assert_eq!(code(&unknown), ExitCode::NothingSelected);
        assert_eq!(with(&unknown, true), ExitCode::Infrastructure);
        assert_eq!(code(&Ended::Left), ExitCode::Cancelled);
    }
}
