//! Every test there is.

use anyhow::{Result, bail};

use crate::{docker, images, process, workspace};

/// Which tests to run.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Leave out the tests that need a Docker daemon, and say so.
    #[arg(long)]
    without_docker: bool,
    /// Passed on to `cargo test`.
    #[arg(last = true)]
    rest: Vec<String>,
}

/// Features that turn on the tests that need the real Docker daemon.
const DOCKER_FEATURES: &str = "regatta/docker-tests,regatta-runtime/docker-tests";

/// Runs them.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut test = workspace::cargo();
    test.args(["test", "--workspace"]);
    if with_docker(arguments)? {
        let image = images::ensure(&images::Arguments::default())?;
        test.args(["--features", DOCKER_FEATURES])
            .env("REGATTA_TEST_IMAGE", image);
    }
    process::run(test.args(&arguments.rest))?;
    let leftovers = if docker::trouble().is_none() {
        docker::containers()?
    } else {
        Vec::new()
    };
    if !leftovers.is_empty() {
        bail!("the tests left containers behind: {}", leftovers.join(" "));
    }
    Ok(())
}

fn with_docker(arguments: &Arguments) -> Result<bool> {
    let reason = match docker::trouble() {
        _ if arguments.without_docker => "you said --without-docker".to_owned(),
        Some(trouble) => format!("{}\n({trouble})", docker::NO_DAEMON),
        None => return Ok(true),
    };
    if std::env::var_os("CI").is_some_and(|value| value == "true") {
        bail!("CI=true, but the tests that need Docker cannot run: {reason}");
    }
    eprintln!("\n*** SKIPPED: every test that needs a Docker daemon ***\n{reason}\n");
    Ok(false)
}
