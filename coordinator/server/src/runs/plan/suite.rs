//! What a suite's job is to do.

use std::collections::BTreeSet;

use regatta_wire::v1;

use super::{PlanError, invalid};

/// Each costs a start of the runner; more would hardly be meant.
const MAX_SHARDS: u32 = 10_000;

#[derive(Clone, Debug)]
pub(crate) struct PlannedSuite {
    pub(crate) adapter: Adapter,
    pub(crate) discover_arguments: Vec<String>,
    pub(crate) run_arguments: Vec<String>,
    pub(crate) filters: Vec<String>,
    pub(crate) include_ignored: bool,
    /// All if there are none.
    pub(crate) only_tests: BTreeSet<String>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Adapter {
    /// Each test runs in a process of its own.
    Harness(Harness),
    /// Each test is a shard, which runs in a process of its own.
    Sharding { shards: u32 },
    /// The tests of a batch run together.
    Contract { junit_path: String },
}

/// What a test program is made with, or what runs one test.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Harness {
    Libtest,
    GoogleTest,
    Go,
    Ctest,
}

impl PlannedSuite {
    /// Checks a suite, whose fields `field` names.
    pub(super) fn new(
        suite: &v1::Suite,
        field: &dyn Fn(&str) -> String,
    ) -> Result<Self, PlanError> {
        Ok(Self {
            adapter: plan_adapter(suite, field)?,
            discover_arguments: suite.discover_arguments.clone(),
            run_arguments: suite.run_arguments.clone(),
            filters: suite.filters.clone(),
            include_ignored: suite.include_ignored,
            only_tests: suite.only_tests.iter().cloned().collect(),
        })
    }
}

fn plan_adapter(suite: &v1::Suite, field: &dyn Fn(&str) -> String) -> Result<Adapter, PlanError> {
    match suite.adapter() {
        v1::SuiteAdapter::Libtest => Ok(Adapter::Harness(Harness::Libtest)),
        v1::SuiteAdapter::Googletest => Ok(Adapter::Harness(Harness::GoogleTest)),
        v1::SuiteAdapter::Ctest => Ok(Adapter::Harness(Harness::Ctest)),
        v1::SuiteAdapter::Go => Ok(Adapter::Harness(Harness::Go)),
        v1::SuiteAdapter::BazelSharding if (1..=MAX_SHARDS).contains(&suite.shards) => {
            let shards = suite.shards;
            Ok(Adapter::Sharding { shards })
        }
        v1::SuiteAdapter::BazelSharding => Err(invalid(
            field("suite.shards"),
            format!("a suite has 1 to {MAX_SHARDS} shards"),
        )),
        v1::SuiteAdapter::Contract if suite.junit_path.is_empty() => Err(invalid(
            field("suite.junit_path"),
            "the contract adapter needs the path of its JUnit report",
        )),
        v1::SuiteAdapter::Contract if suite.discover_arguments.is_empty() => Err(invalid(
            field("suite.discover_arguments"),
            "the contract adapter needs a command that lists tests",
        )),
        v1::SuiteAdapter::Contract => Ok(Adapter::Contract {
            junit_path: suite.junit_path.clone(),
        }),
        v1::SuiteAdapter::Unspecified => Err(invalid(
            field("suite.adapter"),
            "is not set to a known adapter",
        )),
    }
}
