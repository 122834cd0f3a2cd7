//! A small workspace in a temporary directory.

use std::path::{Path, PathBuf};

use super::build::Selection;

/// Two packages: `app` (a library, a program, an integration test) that depends on `leaf` (a build
/// script, fixtures, ignored files).
#[derive(Debug)]
pub(super) struct Fixture {
    directory: tempfile::TempDir,
    root: PathBuf,
}

impl Fixture {
    /// The workspace, if there is a cargo to build it with: the fleet's containers have none.
    pub(super) fn new() -> Option<Self> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        if let Err(error) = std::process::Command::new(&cargo).arg("--version").output() {
            let in_ci = std::env::var_os("CI").is_some_and(|value| value == "true");
            assert!(!in_ci, "CI=true, and there is no cargo: {error}");
            eprintln!("*** SKIPPED: no cargo to build a workspace with ({error}) ***");
            return None;
        }
        Some(Self::write_down())
    }

    fn write_down() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = directory.path().canonicalize().expect("it is there");
        let fixture = Self { directory, root };
        fixture.write(
            "Cargo.toml",
            "[workspace]\nmembers = [\"app\", \"leaf\"]\nresolver = \"3\"\n[profile.dev]\ndebug = false\n",
        );
        fixture.write(".gitignore", "/target\n*.tmp\n");
        fixture.write("shared.txt", "for everybody");
        fixture.write(
            "app/Cargo.toml",
            "[package]\nname = \"app\"\nversion = \"1.2.3\"\nedition = \"2024\"\nauthors = [\"A\", \"B\"]\n\
             [dependencies]\nleaf = { path = \"../leaf\" }\n\
             [package.metadata.regatta]\ninputs = [\"shared.*\"]\n",
        );
        fixture.write("app/src/lib.rs", "#[test]\nfn unit() { leaf::leaf() }\n");
        fixture.write("app/src/main.rs", "fn main() { leaf::leaf() }\n");
        fixture.write(
            "app/tests/cli.rs",
            "#[test]\nfn runs() { assert!(!env!(\"CARGO_BIN_EXE_app\").is_empty()) }\n",
        );
        fixture.write(
            "leaf/Cargo.toml",
            "[package]\nname = \"leaf\"\nversion = \"0.1.0\"\nedition = \"2024\"\n",
        );
        fixture.write("leaf/build.rs", "fn main() { println!(\"cargo::rustc-env=FROM_SCRIPT=yes\"); \
             std::fs::write(format!(\"{}/made.txt\", std::env::var(\"OUT_DIR\").unwrap()), \"made\").unwrap() }\n");
        fixture.write(
            "leaf/src/lib.rs",
            "pub fn leaf() {}\n#[test]\nfn unit() { leaf() }\n",
        );
        fixture.write("leaf/fixtures/data.txt", "data");
        fixture.write("leaf/fixtures/scratch.tmp", "ignored");
        fixture
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn write(&self, path: &str, text: &str) {
        let path = self.directory.path().join(path);
        std::fs::create_dir_all(path.parent().expect("it is below the root")).expect("created");
        std::fs::write(path, text).expect("written");
    }

    pub(super) fn selection(&self) -> Selection {
        Selection {
            manifest_path: Some(self.root.join("Cargo.toml")),
            workspace: true,
            offline: true,
            ..Selection::default()
        }
    }
}
