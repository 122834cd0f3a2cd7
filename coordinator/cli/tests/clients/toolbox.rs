//! The tools of an image as if they were installed on this machine, for what is built before it is tested.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::fleet::Fleet;
use super::program::{Ended, write};
use super::workstation::Workstation;

/// Environment variables of this machine that a tool sees.
const PASSED_ON: [&str; 4] = ["GOFLAGS", "GOOS", "GOPROXY", "PWD"];

/// A project, and programs that are found in the PATH and run in a container that sees the project where
/// this machine has it.
#[derive(Debug)]
pub(crate) struct Toolbox {
    workstation: Workstation,
    folder: TempDir,
}

impl Toolbox {
    pub(crate) fn new(image: &str, tools: &[&str]) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("regatta-tools-")
            .tempdir()
            .expect("a directory");
        let workstation = Workstation::beside(image, folder.path());
        for directory in ["bin", "project", "tmp"] {
            std::fs::create_dir(folder.path().join(directory)).expect("made");
        }
        let passed = PASSED_ON.map(|name| format!("--env {name}")).join(" ");
        for tool in tools {
            let script = format!(
                "#!/bin/sh\nexec docker exec {passed} --workdir \"$PWD\" {} {tool} \"$@\"\n",
                workstation.container()
            );
            let path = folder.path().join("bin").join(tool);
            std::fs::write(&path, script).expect("written");
            let executable = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(&path, executable).expect("changed");
        }
        Self {
            workstation,
            folder,
        }
    }

    pub(crate) fn project(&self) -> PathBuf {
        self.folder.path().join("project")
    }

    pub(crate) fn write(&self, files: &[(&str, &str)]) {
        write(&self.project(), files);
    }

    /// `regatta test` in a directory of the project.
    pub(crate) fn test(&self, fleet: &Fleet, directory: &str, arguments: &[&str]) -> Ended {
        let mut test = fleet.command();
        let mut path = std::ffi::OsString::from(self.folder.path().join("bin"));
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        test.env("PATH", path)
            .env("TMPDIR", self.folder.path().join("tmp"))
            .current_dir(self.project().join(directory));
        Ended::of(
            test.args(["--message-format", "json", "test"])
                .args(arguments),
        )
    }

    /// What a shell's command line in the project prints, in the container.
    pub(crate) fn shell(&self, line: &str) -> Ended {
        let mut exec = Command::new("docker");
        exec.args(["exec", "--workdir"]).arg(self.project());
        Ended::of(exec.args([self.workstation.container(), "sh", "-c", line]))
    }
}
