//! Running `regatta` as a person would.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The longest that anything here may take before the test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A `regatta` command line that knows nothing of this machine's settings.
pub(crate) fn regatta() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_regatta"));
    for name in [
        "REGATTA_COORDINATOR",
        "REGATTA_IMAGE",
        "REGATTA_INSTANCE",
        "REGATTA_LOG",
    ] {
        command.env_remove(name);
    }
    command
}

/// The image that the tests run in.
pub(crate) fn image() -> String {
    std::env::var("REGATTA_TEST_IMAGE").expect("run these tests with `cargo xtask test`")
}

/// What a command came to.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn of(command: &mut Command) -> Self {
        Self::from(command.output().expect("regatta starts"))
    }

    /// The lines of `--message-format json`, of one type.
    pub(crate) fn lines(&self, kind: &str) -> Vec<Value> {
        let lines = self
            .stdout
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).expect(line));
        lines.filter(|line| line["type"] == kind).collect()
    }

    /// The last line of a run.
    #[track_caller]
    pub(crate) fn finished(&self) -> Value {
        let finished = self.lines("run-finished");
        assert_eq!(finished.len(), 1, "{self:#?}");
        finished[0].clone()
    }

    #[track_caller]
    pub(crate) fn expect_code(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    #[track_caller]
    pub(crate) fn expect_complaint(&self, words: &[&str]) -> &Self {
        for word in words {
            assert!(self.stderr.contains(word), "no {word:?} in {self:#?}");
        }
        self
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Writes the files of a project.
pub(crate) fn write(root: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        std::fs::write(path, text).expect("a file");
    }
}
