//! pytest suites: a helper in the input root that lists tests, and runs some, as the suite contract wants.
//!
//! The helper names tests by pytest's own node ids and reports each as it ends, which pytest's JUnit report
//! does not: its classes and names lose where a test is, and it is written only in the end.

use std::time::Duration;

use regatta_wire::v1;

use crate::runner_helper;
use crate::tree::Source;

/// Where the helper is, from the input root.
pub const HELPER_PATH: &str = ".regatta/regatta_pytest.py";
const HELPER: &str = include_str!("pytest/regatta_pytest.py");
/// Where the helper, when it lists tests, leaves the byte code of what it loaded: each batch loads some of it again.
const BYTE_CODE_PATH: &str = ".regatta/bytecode";
/// What runs it if nobody says otherwise.
const PYTHON: &str = "python3";

/// How pytest is started.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pytest {
    /// The interpreter.
    python: String,
    /// What pytest is given.
    arguments: Vec<String>,
}

impl Default for Pytest {
    fn default() -> Self {
        Self {
            python: PYTHON.to_owned(),
            arguments: Vec::new(),
        }
    }
}

impl Pytest {
    /// Understands `pytest ARGUMENT...` and `PYTHON -m pytest ARGUMENT...`.
    #[must_use]
    pub fn parse(words: &[String]) -> Option<Self> {
        let texts: Vec<_> = words.iter().map(String::as_str).collect();
        let (python, arguments) = match texts.as_slice() {
            ["pytest", arguments @ ..] => (PYTHON, arguments),
            [python, "-m", "pytest", arguments @ ..] => (*python, arguments),
            _ => return None,
        };
        Some(Self {
            python: python.to_owned(),
            arguments: arguments.iter().map(|&word| word.to_owned()).collect(),
        })
    }

    /// The helper, for the input root.
    #[must_use]
    pub const fn helper() -> Source {
        runner_helper::source(HELPER)
    }

    /// The suite, whose tests may take so long each.
    #[must_use]
    pub fn suite(&self, timeout: Option<Duration>, filters: Vec<String>) -> v1::Suite {
        let program = [self.python.as_str(), HELPER_PATH];
        let suite = runner_helper::suite(program, &self.arguments, timeout, filters);
        let serve = program.into_iter().chain(["serve"]).map(str::to_owned);
        v1::Suite {
            byproducts_path: BYTE_CODE_PATH.to_owned(),
            worker_arguments: serve.chain(self.arguments.iter().cloned()).collect(),
            ..suite
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn both_ways_to_start_it_are_understood() {
        let suite = |text| {
            let pytest = Pytest::parse(&words(text)).expect("it is pytest");
            pytest.suite(Some(Duration::from_millis(1500)), Vec::new())
        };
        let short = suite("pytest -k fast");
        let list = "python3 .regatta/regatta_pytest.py list -k fast";
        let run = "python3 .regatta/regatta_pytest.py run .regatta/junit.xml 1.5 -k fast";
        assert_eq!(short.discover_arguments, words(list));
        assert_eq!(short.run_arguments, words(run));
        let serve = "python3 .regatta/regatta_pytest.py serve -k fast";
        assert_eq!(short.worker_arguments, words(serve));
        let long = suite("pypy3 -m pytest -k fast");
        assert_eq!(long.run_arguments, words(&run.replace("python3", "pypy3")));
        for other in ["python3 -m unittest", "sh -ceu pytest", ""] {
            assert_eq!(Pytest::parse(&words(other)), None, "{other}");
        }
    }
}
