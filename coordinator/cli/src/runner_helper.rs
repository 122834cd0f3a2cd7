//! Suites of runners that a helper of Regatta's speaks to: a script in the input root that lists tests, and runs
//! some, as the suite contract wants.

use std::time::Duration;

use regatta_wire::v1;

use crate::tree::Source;

/// Where a helper writes its report.
pub(crate) const JUNIT_PATH: &str = ".regatta/junit.xml";
/// How long a test may take if nobody says: as long as any command, which without a helper's clock would
/// hold for all tests of a batch together.
const TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// The helper's text, for the input root.
pub(crate) const fn source(text: &'static str) -> Source {
    Source::Bytes {
        bytes: bytes::Bytes::from_static(text.as_bytes()),
        executable: false,
    }
}

/// The suite: `program` starts the helper, which is told what to do and then how its runner is started. A test may
/// take so long.
pub(crate) fn suite(
    program: [&str; 2],
    runner: &[String],
    timeout: Option<Duration>,
    filters: Vec<String>,
) -> v1::Suite {
    let command = |words: &[&str]| {
        let words = program.iter().chain(words).copied();
        let words = words.chain(runner.iter().map(String::as_str));
        words.map(str::to_owned).collect()
    };
    let seconds = timeout.unwrap_or(TIMEOUT).as_secs_f64().to_string();
    v1::Suite {
        adapter: v1::SuiteAdapter::Contract.into(),
        discover_arguments: command(&["list"]),
        run_arguments: command(&["run", JUNIT_PATH, &seconds]),
        junit_path: JUNIT_PATH.to_owned(),
        filters,
        ..v1::Suite::default()
    }
}
