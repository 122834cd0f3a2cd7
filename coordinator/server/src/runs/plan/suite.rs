//! What a suite's job is to do.

use std::collections::{BTreeMap, BTreeSet};

use regatta_model::Timestamp;
use regatta_wire::convert::timestamp_from_wire;
use regatta_wire::v1;

use super::{PlanError, invalid};
use crate::runs::overlay::is_plain_path;

/// How often one test may be run in a row.
const MAX_REPETITIONS: u32 = 10_000;
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
    /// Tests whose failures do not count, with who says so.
    pub(crate) quarantine: BTreeMap<String, Quarantine>,
    /// One test many times instead of every test once.
    pub(crate) repetition: Option<Repetition>,
    /// Whether a batch that is late may be begun again elsewhere.
    pub(crate) may_duplicate: bool,
}

/// Which test runs how often.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Repetition {
    pub(crate) test: String,
    pub(crate) times: u32,
}

/// For how long, and on whose word, a test's failures do not count.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Quarantine {
    pub(crate) owner: String,
    /// When they count again.
    pub(crate) expires: Timestamp,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Adapter {
    /// Each test runs in a process of its own.
    Harness(Harness),
    /// Each test is a shard, which runs in a process of its own.
    Sharding { shards: u32 },
    /// The tests of a batch run together.
    Contract {
        junit_path: String,
        /// What discovery leaves there is laid over the working directory of each batch.
        byproducts_path: Option<String>,
        /// Starts a persistent worker; empty if there is none.
        worker_arguments: Vec<String>,
    },
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
    ) -> Result<Box<Self>, PlanError> {
        Ok(Box::new(Self {
            adapter: plan_adapter(suite, field)?,
            discover_arguments: suite.discover_arguments.clone(),
            run_arguments: suite.run_arguments.clone(),
            filters: suite.filters.clone(),
            include_ignored: suite.include_ignored,
            only_tests: suite.only_tests.iter().cloned().collect(),
            quarantine: plan_quarantine(suite, field)?,
            repetition: plan_repetition(suite, field)?,
            may_duplicate: !suite.no_duplicates,
        }))
    }
}

fn plan_repetition(
    suite: &v1::Suite,
    field: &dyn Fn(&str) -> String,
) -> Result<Option<Repetition>, PlanError> {
    let Some(v1::Repetition { test_id, times }) = suite.repetition.clone() else {
        return Ok(None);
    };
    if test_id.is_empty() || !(1..=MAX_REPETITIONS).contains(&times) {
        let problem = format!("a repetition names a test, and how often: 1 to {MAX_REPETITIONS}");
        return Err(invalid(field("suite.repetition"), problem));
    }
    Ok(Some(Repetition {
        test: test_id,
        times,
    }))
}

fn plan_quarantine(
    suite: &v1::Suite,
    field: &dyn Fn(&str) -> String,
) -> Result<BTreeMap<String, Quarantine>, PlanError> {
    let mut quarantine = BTreeMap::new();
    for entry in &suite.quarantine {
        let test = &entry.test_id;
        let field = || field("suite.quarantine");
        let expires = entry.expires.as_ref().map(timestamp_from_wire);
        let Some(Ok(expires)) = expires else {
            let problem = format!("the quarantine of `{test}` does not say when it ends");
            return Err(invalid(field(), problem));
        };
        let owner = entry.owner.clone();
        if test.is_empty() || owner.is_empty() {
            let problem = "a quarantine names a test and its owner";
            return Err(invalid(field(), problem));
        }
        let entry = Quarantine { owner, expires };
        if quarantine.insert(test.clone(), entry).is_some() {
            return Err(invalid(field(), format!("`{test}` is named twice")));
        }
    }
    Ok(quarantine)
}

impl PlannedSuite {
    /// Why its quarantine cannot be accepted any more: whoever has to see to a test has not.
    pub(crate) fn expired(&self, now: Timestamp) -> Option<String> {
        let expired = self.quarantine.iter().filter(|(_, it)| it.expires <= now);
        let named = expired.map(|(test, it)| format!("`{test}` (owner: {})", it.owner));
        let named: Vec<_> = named.collect();
        (!named.is_empty()).then(|| {
            format!(
                "the quarantine has expired of {}: mend what they test, or set a later date",
                named.join(", ")
            )
        })
    }
}

fn plan_byproducts(
    suite: &v1::Suite,
    field: &dyn Fn(&str) -> String,
) -> Result<Option<String>, PlanError> {
    let path = &suite.byproducts_path;
    if !path.is_empty() && !is_plain_path(path) {
        let problem = format!("`{path}` is no path below the working directory");
        return Err(invalid(field("suite.byproducts_path"), problem));
    }
    Ok((!path.is_empty()).then(|| path.clone()))
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
            byproducts_path: plan_byproducts(suite, field)?,
            worker_arguments: suite.worker_arguments.clone(),
        }),
        v1::SuiteAdapter::Unspecified => Err(invalid(
            field("suite.adapter"),
            "is not set to a known adapter",
        )),
    }
}
