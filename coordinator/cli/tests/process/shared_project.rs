//! A project whose suite writes down what it does where the test can read it.

use std::path::{Path, PathBuf};

use super::fleet::Fleet;
use super::program::{Ended, write};

/// A project of a pipeline and a script, `suite.sh`, in a directory of its own.
pub(crate) struct SharedProject(tempfile::TempDir);

impl SharedProject {
    /// `suite` is told the directory that is shared with jobs.
    pub(crate) fn new(pipeline: &str, suite: impl FnOnce(&Path) -> String) -> Self {
        // Not below /tmp, of which each job has its own.
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let project = Self(directory);
        std::fs::create_dir(project.shared()).expect("is made");
        let suite = suite(&project.shared());
        let files = [("regatta.toml", pipeline), ("suite.sh", &suite)];
        write(project.0.path(), &files);
        project
    }

    pub(crate) fn root(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn shared(&self) -> PathBuf {
        self.0.path().join("shared")
    }

    /// The lines of a file in the shared directory; none if it is not there.
    pub(crate) fn lines(&self, name: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.shared().join(name)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// What a command says, as JSON.
    pub(crate) fn told(&self, fleet: &Fleet, arguments: &[&str]) -> Ended {
        let mut command = fleet.command();
        command.args(["--message-format", "json"]).args(arguments);
        Ended::of(command.current_dir(self.0.path()))
    }
}
