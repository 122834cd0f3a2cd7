//! Every test there is.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};

use crate::clients::Clients;
use crate::{docker, images, process, tools, workspace};

/// Which tests to run.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Leave out the tests that need a Docker daemon, and say so.
    #[arg(long)]
    without_docker: bool,
    /// Leave out the tests that run other projects' clients, and say so.
    #[arg(long)]
    without_clients: bool,
    /// Leave out the tests that need Garage, an S3 server that is built for them once, and say so.
    #[arg(long)]
    without_garage: bool,
    /// Leave out the tests that play the demo, which takes some minutes, and say so.
    #[arg(long)]
    without_demo: bool,
    /// Passed on to `cargo test`.
    #[arg(last = true)]
    rest: Vec<String>,
}

/// Features that turn on the tests that need root on this machine, PostgreSQL, and programs that are built.
const MACHINE_FEATURES: &str =
    "regatta/process-tests,regatta-ledger/postgres-tests,regatta-simulation/seed-tests";
/// Features that turn on the tests that need a real S3 server.
const GARAGE_FEATURES: &str = "regatta-cas/garage-tests,regatta/garage-tests";
/// Features that turn on the tests that need the real Docker daemon.
const DOCKER_FEATURES: &str = "regatta/docker-tests,regatta-runtime/docker-tests";
/// The feature that turns on the tests that run the Remote Execution API's real clients.
const CLIENT_FEATURE: &str = "regatta/client-tests";

/// The feature that turns on the tests that play the demo.
const DEMO_FEATURE: &str = "xtask/demo-tests";

/// Runs them.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut test = workspace::cargo();
    test.args(["test", "--workspace"]);
    if arguments.without_garage {
        leave_out("every test that starts Garage", "you said --without-garage")?;
    } else {
        test.args(["--features", GARAGE_FEATURES])
            .env("REGATTA_TEST_GARAGE", tools::GARAGE.get()?);
    }
    if rustix::process::geteuid().is_root() {
        // The server's own programs are not on the path; this one comes with them.
        tools::debian("pg_createcluster", "postgresql")?;
        // They cut agents off in networks of their own.
        tools::debian("ip", "iproute2")?;
        tools::debian("nft", "nftables")?;
        // It makes certificates for PostgreSQL.
        tools::debian("openssl", "openssl")?;
        test.args(["--features", MACHINE_FEATURES]);
    } else {
        let what = "every test that mounts file systems, makes namespaces or starts PostgreSQL";
        leave_out(what, "they need root; run this as root, or in a container")?;
    }
    let before = containers()?;
    if with_docker(arguments)? {
        let image = images::ensure(&images::Arguments::default())?;
        // Verifies what Regatta signs.
        tools::debian("openssl", "openssl")?;
        test.args(["--features", DOCKER_FEATURES])
            .env("REGATTA_TEST_IMAGE", image)
            .env("REGATTA_TEST_NEXTEST", tools::NEXTEST.installed_or_get()?);
        if arguments.without_demo {
            leave_out("every test that plays the demo", "you said --without-demo")?;
        } else {
            test.args(["--features", DEMO_FEATURE]);
        }
        if let Some(clients) = clients(arguments)? {
            test.args(["--features", CLIENT_FEATURE])
                .envs(clients.environment());
        }
    }
    process::run(test.args(&arguments.rest))?;
    let leftovers = leftovers(&before, &containers()?);
    if !leftovers.is_empty() {
        bail!("the tests left containers behind: {}", leftovers.join(" "));
    }
    Ok(())
}

fn containers() -> Result<BTreeMap<String, String>> {
    if docker::trouble().is_some() {
        return Ok(BTreeMap::new());
    }
    let mut all = docker::containers(docker::AGENT_LABEL)?;
    all.extend(docker::containers(docker::CLIENT_LABEL)?);
    Ok(all)
}

/// The containers that are new, of agents that had none before: other agents of this machine go on with
/// their work meanwhile.
fn leftovers(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<String> {
    let others: BTreeSet<_> = before.values().collect();
    let ours = after.iter().filter(|(_, agent)| !others.contains(agent));
    ours.map(|(id, agent)| format!("{id} ({agent})")).collect()
}

fn with_docker(arguments: &Arguments) -> Result<bool> {
    let reason = match docker::trouble() {
        _ if arguments.without_docker => "you said --without-docker".to_owned(),
        Some(trouble) => format!("{}\n({trouble})", docker::NO_DAEMON),
        None => return Ok(true),
    };
    leave_out("every test that needs a Docker daemon", &reason)?;
    Ok(false)
}

/// The real clients, unless the tests that need them are to be left out.
fn clients(arguments: &Arguments) -> Result<Option<Clients>> {
    let reason = if arguments.without_clients {
        "you said --without-clients".to_owned()
    } else {
        match Clients::ensure() {
            Ok(clients) => return Ok(Some(clients)),
            Err(error) => format!("{error:#}"),
        }
    };
    leave_out("every test that runs a real client", &reason)?;
    Ok(None)
}

/// Says loudly that tests are left out, which nothing may be in CI.
fn leave_out(what: &str, reason: &str) -> Result<()> {
    if std::env::var_os("CI").is_some_and(|value| value == "true") {
        bail!("CI=true, but {what} would be left out: {reason}");
    }
    eprintln!("\n*** SKIPPED: {what} ***\n{reason}\n");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_of_other_agents_are_nobodys_leftovers() {
        let listed = |list: &[(&str, &str)]| {
            let owned = list
                .iter()
                .map(|(id, agent)| ((*id).into(), (*agent).into()));
            owned.collect::<BTreeMap<String, String>>()
        };
        let before = listed(&[("1", "developer"), ("2", "developer")]);
        let after = listed(&[("2", "developer"), ("3", "developer"), ("4", "e2e-1")]);
        assert_eq!(leftovers(&before, &after), ["4 (e2e-1)"]);
    }
}
