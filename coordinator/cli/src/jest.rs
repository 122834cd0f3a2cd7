//! Jest suites: a helper in the input root that lists test files, and runs some, as the suite contract wants.
//!
//! A test is a file, and a batch of files is one start of Jest. The helper is Jest's reporter as well, since what
//! Jest writes itself (`--json`) is written in the end alone: a test that ends the process would take the
//! results of the files before it along.

pub mod package;

use std::time::Duration;

use regatta_wire::v1;

use crate::runner_helper;
use crate::tree::Source;

/// Where the helper is, from the input root.
pub const HELPER_PATH: &str = ".regatta/regatta_jest.cjs";
const HELPER: &str = include_str!("jest/regatta_jest.cjs");
/// What runs it.
const NODE: &str = "node";
/// What starts Jest if nobody says otherwise; the helper takes the one that a project has installed.
const JEST: &str = "jest";

/// How Jest is started.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Jest {
    /// The command with what Jest is given.
    words: Vec<String>,
}

impl Default for Jest {
    fn default() -> Self {
        let words = vec![JEST.to_owned()];
        Self { words }
    }
}

impl Jest {
    /// Understands a command with a word that ends in `jest` or `jest.js`, such as `npx jest ARGUMENT...`.
    #[must_use]
    pub fn parse(words: &[String]) -> Option<Self> {
        let is_jest = |word: &String| {
            let name = word.rsplit('/').next().unwrap_or_default();
            name == JEST || name.strip_suffix(".js") == Some(JEST)
        };
        let words = words.to_vec();
        words.iter().any(is_jest).then_some(Self { words })
    }

    /// The helper, for the input root.
    #[must_use]
    pub const fn helper() -> Source {
        runner_helper::source(HELPER)
    }

    /// The suite, whose files may take so long each.
    #[must_use]
    pub fn suite(&self, timeout: Option<Duration>, filters: Vec<String>) -> v1::Suite {
        runner_helper::suite([NODE, HELPER_PATH], &self.words, timeout, filters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn every_way_to_start_it_is_understood() {
        for text in [
            "jest --config x",
            "npx --no-install jest",
            "node_modules/.bin/jest",
            "node --experimental-vm-modules node_modules/jest/bin/jest.js",
        ] {
            let jest = Jest::parse(&words(text)).expect("it is Jest");
            let suite = jest.suite(Some(Duration::from_millis(1500)), Vec::new());
            let list = format!("node .regatta/regatta_jest.cjs list {text}");
            assert_eq!(suite.discover_arguments, words(&list));
            let run = format!("node .regatta/regatta_jest.cjs run .regatta/junit.xml 1.5 {text}");
            assert_eq!(suite.run_arguments, words(&run));
        }
        for other in ["npm test", "jestful", ""] {
            assert_eq!(Jest::parse(&words(other)), None, "{other}");
        }
    }
}
