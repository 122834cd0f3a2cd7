//! What a package.json says of Jest.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::{JEST, Jest};

/// Its file's name.
pub const FILE: &str = "package.json";
/// Sets variables for a command, on systems whose shell cannot.
const SETS_VARIABLES: &str = "cross-env";
/// A script with one of these is for a shell to understand.
const SHELL_SYNTAX: &[char] = &[
    '&', '|', ';', '<', '>', '$', '`', '"', '\'', '(', ')', '{', '}', '[', ']', '*', '?', '~', '#',
    '!', '\\', '\n',
];
/// What makes Jest wait for changes.
const WATCH: &str = "--watch";

/// The part of a package.json that matters here.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Package {
    /// Jest's configuration.
    jest: Option<Value>,
    #[serde(default)]
    scripts: BTreeMap<String, Value>,
    #[serde(default)]
    dependencies: BTreeMap<String, Value>,
    #[serde(default)]
    dev_dependencies: BTreeMap<String, Value>,
}

impl Package {
    /// That of a directory; `None` if there is none that can be read.
    #[must_use]
    pub fn of(directory: &Path) -> Option<Self> {
        let text = std::fs::read(directory.join(FILE)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Whether its tests are Jest's: it configures Jest, depends on it, or has it run by `npm test`.
    #[must_use]
    pub fn names_jest(&self) -> bool {
        let depends = [&self.dependencies, &self.dev_dependencies];
        self.jest.is_some()
            || depends.iter().any(|packages| packages.contains_key(JEST))
            || self.command().is_some()
    }

    /// The variables and the command of `npm test`, if that is Jest and needs no shell; else plain Jest.
    #[must_use]
    pub fn test_command(&self) -> (Vec<(String, String)>, Jest) {
        self.command().unwrap_or_default()
    }

    fn command(&self) -> Option<(Vec<(String, String)>, Jest)> {
        let script = self.scripts.get("test")?.as_str()?;
        let mut words: Vec<&str> = script.split_whitespace().collect();
        if script.contains(SHELL_SYNTAX) || words.iter().any(|word| word.starts_with(WATCH)) {
            return None;
        }
        if words.first() == Some(&SETS_VARIABLES) {
            words.remove(0);
        }
        let mut variables = Vec::new();
        while let Some((name, value)) = words.first().and_then(|word| word.split_once('=')) {
            variables.push((name.to_owned(), value.to_owned()));
            words.remove(0);
        }
        let words: Vec<_> = words.into_iter().map(str::to_owned).collect();
        Some((variables, Jest::parse(&words)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(text: &str) -> Package {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join(FILE), text).expect("is written");
        Package::of(directory.path()).expect("is one")
    }

    #[test]
    fn whoever_uses_jest_names_it() {
        for (text, names) in [
            ("{}", false),
            (
                r#"{"scripts": {"test": "mocha"}, "dependencies": {"jest-mock": "1"}}"#,
                false,
            ),
            (r#"{"jest": {}}"#, true),
            (r#"{"devDependencies": {"jest": "^29"}}"#, true),
            (r#"{"dependencies": {"jest": "^29"}}"#, true),
            (r#"{"scripts": {"test": "jest"}}"#, true),
        ] {
            assert_eq!(package(text).names_jest(), names, "{text}");
        }
        let nowhere = tempfile::tempdir().expect("a directory");
        assert_eq!(Package::of(nowhere.path()), None);
    }

    #[test]
    fn tests_run_as_npm_would_run_them() {
        let command = |script: &str| {
            let scripts = serde_json::json!({ "scripts": { "test": script } });
            let (variables, jest) = package(&scripts.to_string()).test_command();
            let names = variables
                .into_iter()
                .map(|(name, value)| format!("{name}={value}"));
            (names.collect::<Vec<_>>(), jest)
        };
        let plain = (Vec::new(), Jest::default());
        for script in [
            "jest",
            "jest && lint",
            "jest --watchAll",
            "vitest",
            "jest \"a b\"",
        ] {
            assert_eq!(command(script), plain, "{script}");
        }
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let jest = |text: &str| Jest::parse(&words(text)).expect("is Jest");
        assert_eq!(
            command("jest --config ci.js"),
            (Vec::new(), jest("jest --config ci.js"))
        );
        let options = "NODE_OPTIONS=--experimental-vm-modules";
        let expected = (vec![options.to_owned()], jest("npx jest"));
        assert_eq!(command(&format!("{options} npx jest")), expected);
        assert_eq!(command(&format!("cross-env {options} npx jest")), expected);
    }
}
