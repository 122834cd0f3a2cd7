//! A container in which a client runs, as on a developer's machine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use super::program::Ended;

/// How long a workstation lives at most, in seconds: longer than any test, so that one whose test was
/// killed does not stay for good.
const LIFE_SECONDS: &str = "1200";
/// What workstations are known by; `cargo xtask test` checks that none is left.
const LABEL: &str = "dev.regatta.client";

/// The image with the clients of Debian unstable: Bazel 7, the buildbox tools, justbuild, Siso.
pub(crate) fn unstable() -> String {
    image("REGATTA_CLIENTS_UNSTABLE")
}

/// The image with the clients of Debian 12: Bazel 4.
pub(crate) fn bookworm() -> String {
    image("REGATTA_CLIENTS_BOOKWORM")
}

fn image(variable: &str) -> String {
    std::env::var(variable).expect("run these tests with `cargo xtask test`")
}

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A container on the host's network, so that the coordinator's loopback address is its own as well. It
/// and every process in it is gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Workstation {
    container: String,
    folder: TempDir,
}

impl Workstation {
    /// A workstation with the clients of an image, and a copy of the named folder beside these tests.
    pub(crate) fn new(image: &str, workspace: &str) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("regatta-client-")
            .tempdir()
            .expect("a directory");
        copy_workspace(workspace, &folder.path().join("ws"));
        let container = start(image, &format!("{}:/w", folder.path().display()), "/w");
        Self { container, folder }
    }

    /// A workstation that sees a directory where this process sees it.
    pub(crate) fn beside(image: &str, directory: &Path) -> Self {
        let volume = format!("{0}:{0}", directory.display());
        let folder = tempfile::tempdir().expect("a directory");
        let container = start(image, &volume, "/tmp");
        Self { container, folder }
    }

    /// What Docker calls it.
    pub(crate) fn container(&self) -> &str {
        &self.container
    }

    /// The workspace, as this process sees it; `/w/ws` in the container.
    pub(crate) fn workspace(&self) -> PathBuf {
        self.folder.path().join("ws")
    }

    /// A program in the workspace, with some environment variables. Its process id in the container is
    /// in `/w/client.pid`, since Docker passes no signal on to it.
    pub(crate) fn command(&self, environment: &[(&str, &str)]) -> Command {
        let mut command = self.exec(environment);
        command.args(["sh", "-c", "echo $$ > /w/client.pid; exec \"$@\"", "sh"]);
        command
    }

    /// Runs a shell's command line in the workspace.
    pub(crate) fn shell(&self, line: &str) -> Ended {
        Ended::of(self.exec(&[]).args(["sh", "-ec", line]))
    }

    fn exec(&self, environment: &[(&str, &str)]) -> Command {
        let mut command = Command::new("docker");
        command.args(["exec", "--workdir", "/w/ws"]);
        for (name, value) in environment {
            command.arg("--env").arg(format!("{name}={value}"));
        }
        command.arg(&self.container);
        command
    }

    /// Reads a file of the workspace, which may be behind a link that holds in the container alone.
    #[track_caller]
    pub(crate) fn read(&self, path: &str) -> String {
        let read = Ended::of(self.exec(&[]).args(["cat", path]));
        read.expect_code(0);
        read.stdout
    }
}

/// Starts a container with a volume, and returns its name.
fn start(image: &str, volume: &str, home: &str) -> String {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let container = format!("regatta-client-{}-{number}", std::process::id());
    let user = format!(
        "{}:{}",
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw()
    );
    let mut run = Command::new("docker");
    run.args(["run", "--detach", "--rm", "--init", "--network", "host"])
        .args(["--name", &container, "--label", LABEL, "--user", &user])
        .args(["--env", &format!("HOME={home}"), "--env", "USER=tester"])
        .args(["--env", "LANG=C.UTF-8", "--volume", volume])
        .args([image, "sleep", LIFE_SECONDS]);
    Ended::of(&mut run).expect_code(0);
    container
}

impl Drop for Workstation {
    fn drop(&mut self) {
        let mut remove = Command::new("docker");
        let ended = Ended::of(remove.args(["rm", "--force", &self.container]));
        if !std::thread::panicking() {
            ended.expect_code(0);
        }
    }
}

/// Copies the named folder of those beside these tests.
pub(crate) fn copy_workspace(name: &str, to: &Path) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/workspaces");
    let from = from.join(name);
    let mut copy = Command::new("cp");
    copy.args(["--recursive", "--no-dereference", "--preserve=mode"]);
    Ended::of(copy.arg(from).arg(to)).expect_code(0);
}
