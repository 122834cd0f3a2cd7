//! Bazel's protocol for tests that divide themselves (Bazel's Test Encyclopedia, "Test sharding"): each shard is
//! a test, and its runner is told by the environment which part of the tests to run.

use std::collections::{BTreeMap, BTreeSet};

use regatta_model::FailureClass;
use regatta_wire::{reapi, v1};

use super::contract::fetch;
use super::execution::Execution;
use super::harness::{Verdict, judged};
use super::judged::{Ended, Judged};
use crate::junit::{self, CaseStatus};
use crate::runs::action::judge;
use crate::runs::context::JobContext;
use crate::runs::plan::Adapter;

/// Changes whenever shards are run or judged in another way.
pub(super) const VERSION: &str = "bazel-sharding 3";
/// What a runner touches to say that it knows the protocol, from the working directory.
const STATUS_PATH: &str = ".regatta/shard/status";
/// Where it may write JUnit XML.
const XML_PATH: &str = ".regatta/shard/test.xml";
/// How many of the tests that failed in a shard its message names.
const MOST_NAMED: usize = 10;

/// What a shard's command may write.
pub(in crate::runs) fn output_paths() -> Vec<String> {
    vec![STATUS_PATH.to_owned(), XML_PATH.to_owned()]
}

/// The name of a shard, which counts from 1.
pub(super) fn id(index: u32, shards: u32) -> String {
    format!("shard {} of {shards}", u64::from(index) + 1)
}

/// The names of all shards.
pub(super) fn ids(shards: u32) -> Vec<String> {
    (0..shards).map(|index| id(index, shards)).collect()
}

/// What tells a runner that it is this shard. GoogleTest has names of its own for the same, which Bazel sets,
/// too.
pub(super) fn environment(id: &str, shards: u32) -> Vec<reapi::command::EnvironmentVariable> {
    let number = id
        .strip_prefix("shard ")
        .and_then(|it| it.split(' ').next());
    let number = number.and_then(|it| it.parse::<u64>().ok());
    let index = number.unwrap_or_default().saturating_sub(1);
    let (index, shards) = (index.to_string(), shards.to_string());
    let report = format!("xml:{XML_PATH}");
    let variables = [
        ("GTEST_OUTPUT", report.as_str()),
        ("GTEST_SHARD_INDEX", &index),
        ("GTEST_SHARD_STATUS_FILE", STATUS_PATH),
        ("GTEST_TOTAL_SHARDS", &shards),
        ("TEST_SHARD_INDEX", &index),
        ("TEST_SHARD_STATUS_FILE", STATUS_PATH),
        ("TEST_TOTAL_SHARDS", &shards),
        ("XML_OUTPUT_FILE", XML_PATH),
    ];
    let variable = |(name, value): (&str, &str)| reapi::command::EnvironmentVariable {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    variables.map(variable).into()
}

/// The tests that shards which passed have reported, with the shard of each.
#[derive(Debug, Default)]
pub(super) struct ReportedCases {
    shards: BTreeMap<(String, String), String>,
}

impl ReportedCases {
    /// Takes in a shard's report; why that is wrong, if another has reported one of its tests.
    fn take(&mut self, shard: &str, report: &junit::Report) -> Option<String> {
        let cases = report.cases.iter();
        let mut ran = cases.filter(|case| !matches!(case.status, CaseStatus::Skipped(_)));
        ran.find_map(|case| {
            let named = (case.classname.clone(), case.name.clone());
            let other = self.shards.entry(named).or_insert_with(|| shard.to_owned());
            (other.as_str() != shard).then(|| reported_twice(case, other))
        })
    }
}

fn reported_twice(case: &junit::Case, other: &str) -> String {
    let name = full_name(case);
    format!(
        "`{name}` is reported twice, by `{other}` as well: the runner touches TEST_SHARD_STATUS_FILE and does not divide its \
         tests by TEST_SHARD_INDEX, or two of them have one name; mend that, or use `shards = 1`"
    )
}

impl Execution<'_> {
    /// Takes in the reports of shards that need not run, as far as their results are at hand.
    pub(super) async fn take_in_known_shards(&mut self) {
        if !matches!(self.suite.adapter, Adapter::Sharding { .. }) {
            return;
        }
        let open: BTreeSet<usize> = self.tally.open().collect();
        let known = (0..self.tests.len()).filter(|test| !open.contains(test));
        let known: Vec<usize> = known.collect();
        let keys: Vec<_> = known.iter().map(|test| self.tests[*test].key).collect();
        let run = &self.job.run;
        // What cannot be had now was compared when it ran.
        let found = run.results.get_many(&run.plan.tenant, &keys).await;
        for (test, result) in known.into_iter().zip(found.unwrap_or_default()) {
            let result = result.map(|result| result.as_ref().clone());
            let outcome = v1::ExecutionOutcome {
                result,
                ..v1::ExecutionOutcome::default()
            };
            if let Ok(Some(report)) = report_of(self.job, &outcome).await {
                let _compared = self.reported_cases.take(&self.tests[test].id, &report);
            }
        }
    }

    /// What one shard's process says. Exit code 0 is a pass only if the runner knows that it is one of several, and its own
    /// report, if it wrote one, can be read, and has no failure, and no test of another shard's.
    pub(super) async fn judge_shard(
        &mut self,
        test: usize,
        shards: u32,
        outcome: &v1::ExecutionOutcome,
    ) -> Judged {
        let report = report_of(self.job, outcome).await;
        let verdict = match (judge(outcome), report) {
            (Ok(()), Err(failure)) => Err(failure),
            (Ok(()), Ok(None)) => said_so(outcome, shards).map(|()| Ended::Passed),
            (Ok(()), Ok(Some(report))) => ended(&report)
                .and_then(|ended| said_so(outcome, shards).map(|()| ended))
                .and_then(|ended| {
                    let twice = self.reported_cases.take(&self.tests[test].id, &report);
                    twice.map_or(Ok(ended), |twice| Err((FailureClass::Test, twice)))
                }),
            (Err((class, _)), report)
                if class == FailureClass::Test && outcome.message.is_empty() =>
            {
                let failed = report.ok().flatten().as_ref().and_then(summary);
                Err((class, failed.unwrap_or_default()))
            }
            (Err(failure), _) => Err(failure),
        };
        judged(self.job, outcome, verdict).await
    }
}

/// How a shard ended that exited with 0, by its report.
fn ended(report: &junit::Report) -> Verdict {
    if let Some(failed) = summary(report) {
        return Err((FailureClass::Test, lied(&failed)));
    }
    let is_skipped = |case: &junit::Case| matches!(case.status, CaseStatus::Skipped(_));
    let is_flaky = |case: &junit::Case| matches!(case.status, CaseStatus::PassedAgain);
    let cases = &report.cases;
    if cases.is_empty() {
        return Ok(Ended::Skipped("none of the tests is in it".to_owned()));
    }
    if cases.iter().all(is_skipped) {
        let why = format!("all {} tests in it were skipped", cases.len());
        return Ok(Ended::Skipped(why));
    }
    Ok(match cases.iter().any(is_flaky) {
        true => Ended::PassedAgain,
        false => Ended::Passed,
    })
}

fn lied(failed: &str) -> String {
    format!("the runner exited with code 0, and its report says otherwise: {failed}")
}

fn said_so(outcome: &v1::ExecutionOutcome, shards: u32) -> Result<(), (FailureClass, String)> {
    let files = outcome
        .result
        .iter()
        .flat_map(|result| &result.output_files);
    let touched = files.into_iter().any(|file| file.path == STATUS_PATH);
    if touched || shards == 1 {
        return Ok(());
    }
    let text = "the runner exited with code 0 but did not touch TEST_SHARD_STATUS_FILE: it does not divide its \
                tests, and each shard would run all of them; use a runner that knows Bazel's sharding, or \
                `shards = 1`";
    Err((FailureClass::Test, text.to_owned()))
}

/// A shard's report, if it wrote one; why that is of no use.
async fn report_of(
    job: &JobContext,
    outcome: &v1::ExecutionOutcome,
) -> Result<Option<junit::Report>, (FailureClass, String)> {
    let xml = fetch(job, XML_PATH, outcome).await;
    let Some(xml) = xml.map_err(|error| (FailureClass::Infra, error))? else {
        return Ok(None);
    };
    let report = junit::parse(&String::from_utf8_lossy(&xml));
    report.map(Some).map_err(|error| {
        let text = format!("the runner exited with code 0, and its report cannot be used: {error}");
        (FailureClass::Test, text)
    })
}

/// What a shard's report says of its failure, if it does.
fn summary(report: &junit::Report) -> Option<String> {
    let cases = report.cases.iter();
    let is_failed = |case: &&junit::Case| matches!(case.status, CaseStatus::Failed(_));
    let failed: Vec<_> = cases.filter(is_failed).collect();
    if failed.is_empty() {
        let outside = report.errors.first();
        let outside = outside.map(|error| format!("an error of no test: {error}"));
        let contradiction = report.contradictions.first();
        let contradiction = contradiction.map(|it| format!("it contradicts itself: {it}"));
        return outside.or(contradiction);
    }
    let (count, all) = (failed.len(), report.cases.len());
    let named: Vec<_> = failed
        .iter()
        .take(MOST_NAMED)
        .map(|case| full_name(case))
        .collect();
    let rest = if count > MOST_NAMED { ", ..." } else { "" };
    Some(format!(
        "{count} of its {all} tests failed: {}{rest}",
        named.join(", ")
    ))
}

fn full_name(case: &junit::Case) -> String {
    match case.classname.is_empty() {
        true => case.name.clone(),
        false => format!("{}.{}", case.classname, case.name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shard_is_told_which_it_is() {
        assert_eq!(ids(2), ["shard 1 of 2", "shard 2 of 2"]);
        for (index, id) in ids(3).iter().enumerate() {
            let environment = environment(id, 3);
            let value = |name: &str| {
                let mut variables = environment.iter();
                let found = variables.find(|it| it.name == name);
                found
                    .map(|it| it.value.as_str())
                    .unwrap_or_default()
                    .to_owned()
            };
            assert_eq!(value("TEST_SHARD_INDEX"), index.to_string());
            assert_eq!(value("GTEST_SHARD_INDEX"), index.to_string());
            assert_eq!(value("TEST_TOTAL_SHARDS"), "3");
            assert!(output_paths().contains(&value("TEST_SHARD_STATUS_FILE")));
            assert!(output_paths().contains(&value("XML_OUTPUT_FILE")));
            let names: Vec<_> = environment.iter().map(|it| it.name.as_str()).collect();
            assert!(names.is_sorted(), "as the Remote Execution API wants them");
        }
    }

    #[test]
    fn a_runner_that_knows_nothing_of_shards_is_caught() {
        let outcome = |paths: &[&str]| v1::ExecutionOutcome {
            result: Some(reapi::ActionResult {
                output_files: paths
                    .iter()
                    .map(|&path| reapi::OutputFile {
                        path: path.to_owned(),
                        ..Default::default()
                    })
                    .collect(),
                ..Default::default()
            }),
            ..Default::default()
        };
        assert_eq!(said_so(&outcome(&[STATUS_PATH]), 2), Ok(()));
        assert_eq!(said_so(&outcome(&[]), 1), Ok(()));
        assert!(said_so(&outcome(&[XML_PATH]), 2).is_err());
    }

    #[test]
    fn a_report_says_more_than_an_exit_code() {
        let ended = |xml: &str| {
            let report = junit::parse(&format!("<testsuite>{xml}</testsuite>"));
            ended(&report.expect("it is one"))
        };
        let (good, skipped) = (
            "<testcase name='a'/>",
            "<testcase name='b'><skipped/></testcase>",
        );
        let again = "<testcase name='c'><flakyFailure/></testcase>";
        assert_eq!(ended(&format!("{good}{skipped}")), Ok(Ended::Passed));
        assert_eq!(ended(&format!("{good}{again}")), Ok(Ended::PassedAgain));
        for none in ["", skipped] {
            let ended = ended(none);
            assert!(matches!(ended, Ok(Ended::Skipped(_))), "{none}: {ended:?}");
        }
        let outside = ended(&format!("<error message='collection'/>{good}"));
        let (class, text) = outside.expect_err("it has an error");
        assert_eq!(class, FailureClass::Test);
        assert!(text.contains("an error of no test: collection"), "{text}");
    }

    #[test]
    fn a_test_that_two_shards_report_is_named() {
        let report = |xml: &str| {
            let report = junit::parse(&format!("<testsuite>{xml}</testsuite>"));
            report.expect("it is one")
        };
        let (one, two) = (
            "<testcase classname='c' name='t'/>",
            "<testcase classname='d' name='t'/>",
        );
        let skipped = "<testcase classname='c' name='t'><skipped/></testcase>";
        let mut reported = ReportedCases::default();
        assert_eq!(
            reported.take("first", &report(&format!("{one}{one}"))),
            None
        );
        assert_eq!(reported.take("first", &report(one)), None, "it ran again");
        assert_eq!(
            reported.take("second", &report(&format!("{two}{skipped}"))),
            None
        );
        let twice = reported.take("third", &report(&format!("<testcase name='t'/>{one}")));
        let twice = twice.expect("it is reported twice");
        assert!(
            twice.starts_with("`c.t` is reported twice, by `first` as well"),
            "{twice}"
        );
    }

    #[test]
    fn a_failed_shard_names_what_failed() {
        let report = |failed: usize| {
            let case = |number: usize| {
                format!(
                    "<testcase classname='a' name='t{number}'><failure message='x'/></testcase>"
                )
            };
            let cases: String = (0..failed).map(case).collect();
            let xml = format!("<testsuite><testcase name='good'/>{cases}</testsuite>");
            summary(&junit::parse(&xml).expect("it is one"))
        };
        assert_eq!(report(0), None);
        let xml = "<testsuite failures='1'><testcase name='a'/></testsuite>";
        let contradiction = summary(&junit::parse(xml).expect("it is one"));
        assert!(contradiction.is_some_and(|text| text.contains("contradicts itself")));
        let two = "2 of its 3 tests failed: a.t0, a.t1".to_owned();
        assert_eq!(report(2), Some(two));
        assert!(report(11).is_some_and(|text| text.ends_with("a.t9, ...")));
    }
}
