//! Having the go command build test programs.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Mutex;

use tempfile::TempDir;

/// How many programs are built at once: linking, which takes most of the time, uses one processor or two.
const CONCURRENT_BUILDS: usize = 4;

/// Which packages to build.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GoSelection {
    /// Where patterns begin.
    pub directory: PathBuf,
    /// As `go test` takes them.
    pub patterns: Vec<String>,
    /// What to leave out of them.
    pub exclude: Vec<String>,
    /// Build without the network.
    pub offline: bool,
}

/// Why there are no test programs.
#[derive(Debug, thiserror::Error)]
pub enum BuildGoError {
    /// The go command cannot be started. Install Go or fix the PATH.
    #[error("the go command cannot be started; is Go installed and in the PATH?")]
    NoGo(#[source] std::io::Error),
    /// There is no place for the programs. Make room.
    #[error("there is no place to build test programs in")]
    NoPlace(#[source] std::io::Error),
    /// The packages cannot be listed. The go command has said why, on standard error.
    #[error("the packages cannot be listed ({status})")]
    List {
        /// How the go command ended.
        status: ExitStatus,
    },
    /// What the go command printed makes no sense. Report it.
    #[error("the go command's list of packages cannot be read")]
    Output(#[source] serde_json::Error),
    /// A package cannot be loaded. Fix it.
    #[error("{package}: {detail}")]
    Package {
        /// Its import path.
        package: String,
        /// What the go command says.
        detail: String,
    },
    /// Some tests do not compile. The go command has said why, on standard error.
    #[error("the build failed of {}", .packages.join(", "))]
    Failed {
        /// Their packages' import paths.
        packages: Vec<String>,
    },
}

/// A package with tests.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GoPackage {
    /// How it is imported.
    pub import_path: String,
    /// Where its sources are.
    pub directory: PathBuf,
    /// Its test program.
    pub executable: PathBuf,
}

/// What was built.
#[derive(Debug)]
pub struct GoBuild {
    /// The packages that have tests, in the order in which the go command lists them.
    pub packages: Vec<GoPackage>,
    /// Where the programs are; they go when this does.
    pub programs: TempDir,
}

/// What is of use in what `go list -json` prints of a package.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Listed {
    dir: PathBuf,
    import_path: String,
    test_go_files: Vec<String>,
    #[serde(rename = "XTestGoFiles")]
    external_test_go_files: Vec<String>,
    error: Option<ListedError>,
}

#[derive(Debug, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListedError {
    err: String,
}

/// Has the go command build a test program of each selected package that has tests. It speaks to standard
/// error itself, compile errors included. Blocks until it is done.
///
/// # Errors
/// See [`BuildGoError`].
pub fn build(selection: &GoSelection) -> Result<GoBuild, BuildGoError> {
    let excluded: BTreeSet<String> = match selection.exclude.is_empty() {
        true => BTreeSet::new(),
        false => {
            let listed = list(selection, &selection.exclude)?;
            listed
                .into_iter()
                .map(|listed| listed.import_path)
                .collect()
        }
    };
    let programs = tempfile::Builder::new().prefix("regatta-go-").tempdir();
    let programs = programs.map_err(BuildGoError::NoPlace)?;
    let mut packages = Vec::new();
    for listed in list(selection, &selection.patterns)? {
        if excluded.contains(&listed.import_path) {
            continue;
        }
        let executable = programs.path().join(format!("{}.test", packages.len()));
        packages.extend(package(listed, executable)?);
    }
    compile(selection, &packages)?;
    Ok(GoBuild { packages, programs })
}

/// The package if it has tests.
fn package(listed: Listed, executable: PathBuf) -> Result<Option<GoPackage>, BuildGoError> {
    if let Some(error) = listed.error {
        return Err(BuildGoError::Package {
            package: listed.import_path,
            detail: error.err,
        });
    }
    let has_tests = !listed.test_go_files.is_empty() || !listed.external_test_go_files.is_empty();
    Ok(has_tests.then_some(GoPackage {
        import_path: listed.import_path,
        directory: listed.dir,
        executable,
    }))
}

/// The go command, building for agents whatever this machine is.
fn go(selection: &GoSelection) -> Command {
    let mut go = Command::new("go");
    go.current_dir(&selection.directory)
        // What it believes before what it finds out itself: another name of the same directory would end
        // up in programs.
        .env("PWD", &selection.directory)
        .env("GOOS", "linux")
        .stdin(Stdio::null());
    if selection.offline {
        go.env("GOPROXY", "off");
    }
    go
}

fn list(selection: &GoSelection, patterns: &[String]) -> Result<Vec<Listed>, BuildGoError> {
    let output = go(selection)
        // Packages that cannot be loaded are listed, too, so that the first one does not hide the others.
        .args(["list", "-e", "-json", "--"])
        .args(patterns)
        .stderr(Stdio::inherit())
        .output()
        .map_err(BuildGoError::NoGo)?;
    if !output.status.success() {
        let status = output.status;
        return Err(BuildGoError::List { status });
    }
    read(&output.stdout)
}

fn read(json: &[u8]) -> Result<Vec<Listed>, BuildGoError> {
    let packages = serde_json::Deserializer::from_slice(json).into_iter();
    packages
        .collect::<Result<_, _>>()
        .map_err(BuildGoError::Output)
}

/// Builds all programs. Those that cannot be built do not keep the others from being tried, so that every
/// error is seen at once.
fn compile(selection: &GoSelection, packages: &[GoPackage]) -> Result<(), BuildGoError> {
    let open = Mutex::new(packages.iter());
    let failed = Mutex::new(Ok(Vec::new()));
    let work = || {
        while let Some(package) = lock(&open).next() {
            let built = compile_one(selection, package);
            let mut failed = lock(&failed);
            match (built, failed.as_mut()) {
                (Ok(true), _) | (_, Err(_)) => {}
                (Ok(false), Ok(failed)) => failed.push(package.import_path.clone()),
                (Err(error), Ok(_)) => *failed = Err(error),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..CONCURRENT_BUILDS.min(packages.len()) {
            scope.spawn(work);
        }
    });
    let mut packages = failed
        .into_inner()
        .unwrap_or_else(|poison| poison.into_inner())?;
    packages.sort();
    match packages.is_empty() {
        true => Ok(()),
        false => Err(BuildGoError::Failed { packages }),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poison| poison.into_inner())
}

/// Whether the program could be built.
fn compile_one(selection: &GoSelection, package: &GoPackage) -> Result<bool, BuildGoError> {
    let mut go = go(selection);
    go.args(["test", "-c", "-o"]).arg(&package.executable);
    // What comes after `--` would be for the tests.
    go.arg(&package.import_path).stdout(Stdio::null());
    let status = go.status().map_err(BuildGoError::NoGo)?;
    Ok(status.success() && package.executable.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_packages_with_tests_have_programs() {
        let json =
            br#"{"Dir": "/m", "ImportPath": "m", "TestGoFiles": ["a_test.go"], "Imports": ["x"]}
            {"Dir": "/m/x", "ImportPath": "m/x", "XTestGoFiles": ["x_test.go"]}
            {"Dir": "/m/none", "ImportPath": "m/none", "GoFiles": ["n.go"]}"#;
        let listed = read(json).expect("it is a list");
        let packages = listed.into_iter().map(|listed| package(listed, "p".into()));
        let packages = packages
            .collect::<Result<Vec<_>, _>>()
            .expect("all are good");
        let paths: Vec<_> = packages
            .iter()
            .flatten()
            .map(|it| it.import_path.as_str())
            .collect();
        assert_eq!(paths, ["m", "m/x"]);
        assert!(read(b"{").is_err() && read(b"").is_ok_and(|all| all.is_empty()));
    }

    #[test]
    fn a_package_that_cannot_be_loaded_is_named() {
        let json = br#"{"ImportPath": "m/bad", "Error": {"Pos": "", "Err": "expected 'package'"}}"#;
        let listed = read(json).expect("it is a list");
        let error = listed
            .into_iter()
            .map(|listed| package(listed, "p".into()))
            .next();
        let error = error.expect("there is one").expect_err("it is bad");
        assert_eq!(error.to_string(), "m/bad: expected 'package'");
    }
}
