//! Having cargo build test binaries.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use cargo_metadata::{Artifact, BuildScript, Message, Metadata, Package, PackageId, TargetKind};

use super::layout::Layout;

/// Which packages and targets to build, and how: cargo's own options.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "What to build (as for cargo test)")]
pub struct Selection {
    /// Test only this package (may be repeated)
    #[arg(short = 'p', long, value_name = "SPEC")]
    pub package: Vec<String>,
    /// Test every package of the workspace
    #[arg(long, visible_alias = "all")]
    pub workspace: bool,
    /// Leave out this package (may be repeated; needs --workspace)
    #[arg(long, value_name = "SPEC", requires = "workspace")]
    pub exclude: Vec<String>,
    /// Features to build with
    #[arg(short = 'F', long, value_name = "FEATURES")]
    pub features: Vec<String>,
    /// Build with every feature
    #[arg(long)]
    pub all_features: bool,
    /// Build without the default feature
    #[arg(long)]
    pub no_default_features: bool,
    /// Build with the release profile
    #[arg(short = 'r', long, conflicts_with = "cargo_profile")]
    pub release: bool,
    /// Build with this profile
    #[arg(long, value_name = "NAME")]
    pub cargo_profile: Option<String>,
    /// Build for this target triple
    #[arg(long, value_name = "TRIPLE")]
    pub target: Option<String>,
    /// Test only the libraries' unit tests
    #[arg(long)]
    pub lib: bool,
    /// Test only the binaries' unit tests
    #[arg(long)]
    pub bins: bool,
    /// Test only the unit tests of this binary (may be repeated)
    #[arg(long, value_name = "NAME")]
    pub bin: Vec<String>,
    /// Test only targets with `test = true`: libraries, binaries and integration tests
    #[arg(long)]
    pub tests: bool,
    /// Test only this integration test (may be repeated)
    #[arg(long, value_name = "NAME")]
    pub test: Vec<String>,
    /// Path to Cargo.toml
    #[arg(long, value_name = "PATH")]
    pub manifest_path: Option<PathBuf>,
    /// Require Cargo.lock to be up to date
    #[arg(long)]
    pub locked: bool,
    /// Build without the network
    #[arg(long)]
    pub offline: bool,
}

impl Selection {
    /// The arguments for `cargo test`.
    #[must_use]
    pub fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        for (option, values) in [
            ("--package", &self.package),
            ("--exclude", &self.exclude),
            ("--features", &self.features),
            ("--bin", &self.bin),
            ("--test", &self.test),
        ] {
            for value in values {
                arguments.extend([option.into(), value.into()]);
            }
        }
        for (option, value) in [
            ("--profile", &self.cargo_profile),
            ("--target", &self.target),
        ] {
            if let Some(value) = value {
                arguments.extend([option.into(), value.into()]);
            }
        }
        for (option, set) in [
            ("--workspace", self.workspace),
            ("--all-features", self.all_features),
            ("--no-default-features", self.no_default_features),
            ("--release", self.release),
            ("--lib", self.lib),
            ("--bins", self.bins),
            ("--tests", self.tests),
        ] {
            if set {
                arguments.push(option.into());
            }
        }
        arguments.extend(self.manifest_arguments());
        arguments
    }

    fn manifest_arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        if let Some(path) = &self.manifest_path {
            arguments.extend(["--manifest-path".into(), path.into()]);
        }
        for (option, set) in [("--locked", self.locked), ("--offline", self.offline)] {
            if set {
                arguments.push(option.into());
            }
        }
        arguments
    }
}

/// Why there are no test binaries.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Cargo cannot be started. Install Rust or fix the PATH.
    #[error("cargo cannot be started; is Rust installed and cargo in the PATH?")]
    NoCargo(#[source] std::io::Error),
    /// Cargo's output broke off.
    #[error("cargo's output cannot be read")]
    Output(#[source] std::io::Error),
    /// The workspace cannot be read. Cargo says why.
    #[error("cargo cannot read the workspace: {detail}")]
    Metadata {
        /// What cargo says.
        detail: String,
    },
    /// The code does not compile. Cargo has said why, on standard error.
    #[error("the build failed ({status})")]
    Failed {
        /// How cargo ended.
        status: ExitStatus,
    },
}

/// A binary with tests.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TestBinary {
    /// As nextest names it: `package`, `package::bin/name`, `package::target`.
    pub name: String,
    /// The package it belongs to.
    pub package: PackageId,
    /// Whether it is an integration test, which sees the package's binaries.
    pub integration: bool,
    /// Where it is.
    pub executable: PathBuf,
}

/// What cargo built.
#[derive(Debug)]
pub struct Build {
    /// Where the files are.
    pub layout: Layout,
    /// The binaries with tests, by name.
    pub tests: Vec<TestBinary>,
    /// The packages of the workspace.
    pub packages: BTreeMap<PackageId, Package>,
    /// The programs of each package, by name: what `CARGO_BIN_EXE_*` means.
    pub programs: BTreeMap<PackageId, BTreeMap<String, PathBuf>>,
    /// What each package's build script said.
    pub scripts: BTreeMap<PackageId, BuildScript>,
    /// Where the loader is to look besides, before the toolchain of this machine.
    pub loader_path: Vec<PathBuf>,
}

/// Has cargo build what is selected. Cargo speaks to standard error itself, compile errors included.
/// Blocks until it is done.
///
/// # Errors
/// See [`BuildError`].
pub fn build(selection: &Selection) -> Result<Build, BuildError> {
    let (metadata, messages) = std::thread::scope(|scope| {
        let metadata = scope.spawn(|| read_metadata(selection));
        let messages = run_cargo(selection);
        (metadata.join(), messages)
    });
    // First: where there is no package, nothing can be built either.
    let metadata = metadata.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    Ok(collect(metadata, messages?))
}

/// The cargo that runs us, if one does, or the one in the PATH.
fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

fn read_metadata(selection: &Selection) -> Result<Metadata, BuildError> {
    let output = cargo()
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .args(selection.manifest_arguments())
        .output()
        .map_err(BuildError::NoCargo)?;
    if !output.status.success() {
        let detail = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(BuildError::Metadata { detail });
    }
    serde_json::from_slice(&output.stdout).map_err(|error| BuildError::Metadata {
        detail: error.to_string(),
    })
}

fn run_cargo(selection: &Selection) -> Result<Vec<Message>, BuildError> {
    let mut child = cargo()
        .args([
            "test",
            "--no-run",
            "--message-format",
            "json-render-diagnostics",
        ])
        .args(selection.arguments())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(BuildError::NoCargo)?;
    let messages = match child.stdout.take() {
        Some(stdout) => Message::parse_stream(BufReader::new(stdout)).collect(),
        None => Ok(Vec::new()),
    };
    let status = child.wait().map_err(BuildError::Output)?;
    if !status.success() {
        return Err(BuildError::Failed { status });
    }
    messages.map_err(BuildError::Output)
}

/// What the messages of a successful build say.
fn collect(metadata: Metadata, messages: Vec<Message>) -> Build {
    let layout = Layout::new(
        metadata.workspace_root.into_std_path_buf(),
        metadata.target_directory.into_std_path_buf(),
    );
    let packages = metadata
        .packages
        .into_iter()
        .map(|package| (package.id.clone(), package));
    let mut build = Build {
        layout,
        tests: Vec::new(),
        packages: packages.collect(),
        programs: BTreeMap::new(),
        scripts: BTreeMap::new(),
        loader_path: Vec::new(),
    };
    for message in messages {
        match message {
            Message::CompilerArtifact(artifact) => build.add_artifact(artifact),
            Message::BuildScriptExecuted(script) => {
                build.scripts.insert(script.package_id.clone(), script);
            }
            // Cargo prints what the compiler said by itself; other messages do not concern us.
            _ => {}
        }
    }
    build
        .tests
        .sort_by(|left, right| left.name.cmp(&right.name));
    build
}

impl Build {
    fn add_artifact(&mut self, artifact: Artifact) {
        let Some(executable) = artifact.executable.clone() else {
            return;
        };
        let executable = executable.into_std_path_buf();
        let Some(package) = self.packages.get(&artifact.package_id) else {
            return;
        };
        if artifact.profile.test {
            let name = test_name(&package.name, &artifact);
            self.tests.push(TestBinary {
                name,
                integration: artifact.target.kind.contains(&TargetKind::Test),
                package: artifact.package_id,
                executable,
            });
        } else if artifact.target.kind.contains(&TargetKind::Bin) {
            let programs = self.programs.entry(artifact.package_id).or_default();
            programs.insert(artifact.target.name, executable);
        }
    }

    /// The directory of a package.
    #[must_use]
    pub fn package_directory(&self, package: &PackageId) -> Option<&Path> {
        let package = self.packages.get(package)?;
        package.manifest_path.as_std_path().parent()
    }
}

fn test_name(package: &str, artifact: &Artifact) -> String {
    let target = &artifact.target.name;
    match artifact.target.kind.first() {
        Some(TargetKind::Test) => format!("{package}::{target}"),
        Some(TargetKind::Bin) => format!("{package}::bin/{target}"),
        Some(TargetKind::Example) => format!("{package}::example/{target}"),
        Some(TargetKind::Bench) => format!("{package}::bench/{target}"),
        Some(_) | None => package.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    #[test]
    fn options_reach_cargo() {
        let selection = Selection {
            package: vec!["a".into(), "b".into()],
            release: true,
            test: vec!["t".into()],
            offline: true,
            ..Selection::default()
        };
        let arguments: Vec<_> = selection
            .arguments()
            .into_iter()
            .map(|word| word.into_string())
            .collect();
        let arguments: Result<Vec<_>, _> = arguments.into_iter().collect();
        assert_eq!(
            arguments.expect("UTF-8").join(" "),
            "--package a --package b --test t --release --offline"
        );
    }

    #[test]
    fn binaries_are_named_as_nextest_names_them() {
        let Some(fixture) = Fixture::new() else {
            return;
        };
        let build = build(&fixture.selection()).expect("it builds");
        let names: Vec<_> = build.tests.iter().map(|test| test.name.as_str()).collect();
        assert_eq!(names, ["app", "app::bin/app", "app::cli", "leaf"]);
        let app = &build.tests[2];
        assert!(app.integration);
        assert!(build.programs[&app.package].contains_key("app"));
        assert!(build.scripts.contains_key(&build.tests[3].package));
        assert_eq!(build.layout.root(), fixture.root());
    }

    #[test]
    fn code_that_does_not_compile_is_a_failed_build() {
        let Some(fixture) = Fixture::new() else {
            return;
        };
        fixture.write("leaf/src/lib.rs", "this is no Rust");
        let error = build(&fixture.selection()).expect_err("it does not compile");
        assert!(matches!(error, BuildError::Failed { .. }), "{error}");
    }
}
