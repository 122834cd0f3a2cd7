//! The environment that cargo gives to tests, as far as it makes sense on another machine.

use std::collections::BTreeMap;
use std::path::Path;

use cargo_metadata::Package;

use super::build::{Build, TestBinary};

/// Passed on from here if they are set: they change what a failing test prints.
const PASSED_ON: [&str; 2] = ["RUST_BACKTRACE", "RUST_LIB_BACKTRACE"];

impl Build {
    /// The environment of a test binary, complete but for `LD_LIBRARY_PATH`.
    #[must_use]
    pub fn environment(&self, test: &TestBinary) -> BTreeMap<String, String> {
        let mut environment = crate::jobs::base_environment();
        for name in PASSED_ON {
            if let Ok(value) = std::env::var(name) {
                environment.insert(name.to_owned(), value);
            }
        }
        if let Some(package) = self.packages.get(&test.package) {
            environment.extend(self.package_variables(package));
        }
        if let Some(script) = self.scripts.get(&test.package) {
            let variables = script.env.iter();
            environment.extend(variables.map(|(name, value)| (name.clone(), self.moved(value))));
            environment.insert(
                "OUT_DIR".to_owned(),
                self.seen(script.out_dir.as_std_path()),
            );
        }
        if test.integration {
            let scratch = self.layout.shown_at().join(self.layout.scratch());
            environment.insert(
                "CARGO_TARGET_TMPDIR".to_owned(),
                scratch.display().to_string(),
            );
            for (name, program) in self.programs.get(&test.package).into_iter().flatten() {
                environment.insert(format!("CARGO_BIN_EXE_{name}"), self.seen(program));
            }
        }
        environment
    }

    fn seen(&self, path: &Path) -> String {
        self.layout.seen(path).display().to_string()
    }

    /// A value in which a path into the target directory means that of the input root.
    fn moved(&self, value: &str) -> String {
        let target = self.layout.target();
        match Path::new(value).starts_with(target) {
            true => self.seen(Path::new(value)),
            false => value.to_owned(),
        }
    }

    fn package_variables(&self, package: &Package) -> BTreeMap<String, String> {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let path = |value: &Option<cargo_metadata::camino::Utf8PathBuf>| {
            value.as_ref().map(ToString::to_string).unwrap_or_default()
        };
        let version = &package.version;
        let manifest = package.manifest_path.as_std_path();
        let directory = manifest.parent().unwrap_or(self.layout.root());
        let rust_version = package.rust_version.as_ref();
        [
            ("CARGO_MANIFEST_DIR", self.seen(directory)),
            ("CARGO_MANIFEST_PATH", self.seen(manifest)),
            ("CARGO_PKG_NAME", package.name.to_string()),
            ("CARGO_PKG_VERSION", version.to_string()),
            ("CARGO_PKG_VERSION_MAJOR", version.major.to_string()),
            ("CARGO_PKG_VERSION_MINOR", version.minor.to_string()),
            ("CARGO_PKG_VERSION_PATCH", version.patch.to_string()),
            ("CARGO_PKG_VERSION_PRE", version.pre.to_string()),
            ("CARGO_PKG_AUTHORS", package.authors.join(":")),
            ("CARGO_PKG_DESCRIPTION", text(&package.description)),
            ("CARGO_PKG_HOMEPAGE", text(&package.homepage)),
            ("CARGO_PKG_REPOSITORY", text(&package.repository)),
            ("CARGO_PKG_LICENSE", text(&package.license)),
            ("CARGO_PKG_LICENSE_FILE", path(&package.license_file)),
            ("CARGO_PKG_README", path(&package.readme)),
            (
                "CARGO_PKG_RUST_VERSION",
                rust_version.map(ToString::to_string).unwrap_or_default(),
            ),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}
