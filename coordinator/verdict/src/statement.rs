//! in-toto statements about a run (Attestation Framework v1).

use std::collections::BTreeMap;

use regatta_model::Digest;
use regatta_wire::v1;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::counts::Counts;
use crate::evidence::{Evidence, SuiteEvidence};
use crate::provenance;

const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// in-toto's predicate for the tests of one suite.
pub const TEST_RESULT_TYPE: &str = "https://in-toto.io/attestation/test-result/v0.1";
/// Regatta's own, for a whole run. The name leads nowhere (RFC 6761): it is but a name.
pub const VERDICT_TYPE: &str = "https://regatta.invalid/verdict/v1";
/// The algorithm of our digests, in in-toto's words.
pub(crate) const SHA256: &str = "sha256";
/// What a commit's id is, in in-toto's words.
pub(crate) const GIT_COMMIT: &str = "gitCommit";

/// A statement: a predicate of some things.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Statement {
    #[serde(rename = "_type")]
    statement_type: String,
    /// What it is about.
    pub subject: Vec<Subject>,
    /// Which kind of predicate it is.
    pub predicate_type: String,
    /// What it says.
    pub predicate: Value,
}

/// Something that a statement is about.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Subject {
    /// For people.
    pub name: String,
    /// By algorithm.
    pub digest: BTreeMap<String, String>,
}

/// A digest by algorithm, with more about it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Described {
    /// What it is of.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
    /// By algorithm.
    pub digest: BTreeMap<String, String>,
}

/// Regatta's predicate: what a run says of a commit.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VerdictPredicate {
    /// `RELEASABLE`, `NOT_RELEASABLE` or `UNKNOWN`.
    pub verdict: String,
    /// Why it is not releasable.
    pub reasons: Vec<String>,
    /// The run's id.
    pub run: String,
    /// The commit; empty if there was none.
    pub commit: String,
    /// The branch.
    pub branch: String,
    /// Whether files differed from the commit.
    pub dirty: bool,
    /// What was required: the digest of all jobs as they were asked for, and their names.
    pub policy: Required,
    /// The digest of every planned test with its key.
    pub plan: Described,
    /// How the tests ended.
    pub counts: Counts,
    /// How the jobs ended.
    pub jobs: Vec<JobStatement>,
    /// The statements about its suites: the digest of each as it was signed.
    pub test_results: Vec<Described>,
    /// Where cached results come from.
    #[serde(default)]
    pub cached_from: Vec<CachedFrom>,
    /// How many of them were executed all the same, and passed.
    #[serde(default)]
    pub audited_hits: u64,
    /// The statements about what its builds made, likewise.
    #[serde(default)]
    pub provenance: Vec<Described>,
    /// `job test` of each test that failed before it passed.
    pub flaky_tests: Vec<String>,
    /// `job test` of each test that failed in quarantine.
    #[serde(default)]
    pub quarantined_tests: Vec<String>,
    /// How often machines lost something that then ran elsewhere.
    pub infrastructure_retries: u64,
    /// How many leases it took; 0 if all was known.
    pub leases: u64,
    /// What something ran in.
    pub images: Vec<String>,
    /// What something ran on.
    pub agents: Vec<String>,
    /// When the commit was made, as it says itself; RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub committed_at: Option<String>,
    /// From there to the verdict, in seconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lead_time_seconds: Option<f64>,
    /// RFC 3339.
    pub started_at: String,
    /// RFC 3339.
    pub finished_at: String,
}

/// A run that produced cached results.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CachedFrom {
    /// Its id; empty for those of which it is not known.
    pub run: String,
    /// How many tests and builds.
    pub results: u64,
}

/// What had to pass.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Required {
    /// Of all the jobs as they were asked for.
    pub digest: BTreeMap<String, String>,
    /// Their names, with the choice of tests if not all were to run.
    pub required_jobs: Vec<String>,
}

/// A job.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct JobStatement {
    /// Its name.
    pub name: String,
    /// `PASSED`, `FAILED`, `CANCELLED`, `NOT_RUN` or `UNKNOWN`.
    pub status: String,
    /// Whether a build's result was known.
    pub cached: bool,
    /// Whether a build failed before it passed.
    pub flaky: bool,
}

/// The statements that a verdict vouches for, by name: the digest of each as it was signed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Vouched {
    /// About its suites.
    pub test_results: Vec<(String, Digest)>,
    /// About what its builds made.
    pub provenance: Vec<(String, Digest)>,
}

impl Statement {
    /// What a run says of its commit: the verdict, which vouches for the statements about its suites.
    #[must_use]
    pub fn of_run(run: &str, evidence: &Evidence, others: &Vouched) -> Self {
        let predicate = VerdictPredicate::new(run, evidence, others);
        Self::new(evidence, VERDICT_TYPE, serde_json::json!(predicate))
    }

    /// What a run says of each suite, by its job's name: in-toto's test results.
    pub fn of_suites(evidence: &Evidence) -> impl Iterator<Item = (&str, Self)> {
        evidence.suites.iter().map(|(job, suite)| {
            let predicate = test_result(job, suite, evidence);
            let statement = Self::new(evidence, TEST_RESULT_TYPE, predicate);
            (job.as_str(), statement)
        })
    }

    /// What a run's builds made, by the job's name: SLSA provenance.
    pub fn of_builds<'a>(
        run: &'a str,
        evidence: &'a Evidence,
    ) -> impl Iterator<Item = (&'a str, Self)> {
        provenance::of_builds(run, evidence).map(|(job, subject, predicate)| {
            let statement = Self {
                statement_type: STATEMENT_TYPE.to_owned(),
                subject,
                predicate_type: provenance::PROVENANCE_TYPE.to_owned(),
                predicate,
            };
            (job.name.as_str(), statement)
        })
    }

    /// Its predicate, if it is a verdict.
    ///
    /// # Errors
    /// It lacks a field, or one has another type.
    pub fn verdict(&self) -> Option<Result<VerdictPredicate, serde_json::Error>> {
        let is_verdict = self.predicate_type == VERDICT_TYPE;
        is_verdict.then(|| serde_json::from_value(self.predicate.clone()))
    }

    /// Whether it is a statement at all.
    pub(crate) fn has_type(&self) -> bool {
        self.statement_type == STATEMENT_TYPE
    }

    fn new(evidence: &Evidence, predicate_type: &str, predicate: Value) -> Self {
        Self {
            statement_type: STATEMENT_TYPE.to_owned(),
            subject: subjects(evidence),
            predicate_type: predicate_type.to_owned(),
            predicate,
        }
    }
}

/// The files that were given, what was made of them, and the commit if they are what it has.
fn subjects(evidence: &Evidence) -> Vec<Subject> {
    let subject = |name: &str, digest| Subject {
        name: name.to_owned(),
        digest,
    };
    let mut subjects = vec![subject("tree", sha256(&evidence.tree()))];
    if !evidence.spec.dirty && !evidence.spec.commit.is_empty() {
        let digest = BTreeMap::from([(GIT_COMMIT.to_owned(), evidence.spec.commit.clone())]);
        subjects.insert(0, subject("commit", digest));
    }
    for (job, ended) in &evidence.jobs {
        for (path, digest) in &ended.artefacts {
            subjects.push(subject(&format!("{job}/{path}"), sha256(digest)));
        }
    }
    subjects
}

pub(crate) fn sha256(digest: &Digest) -> BTreeMap<String, String> {
    BTreeMap::from([(SHA256.to_owned(), digest.hash_hex())])
}

impl VerdictPredicate {
    fn new(run: &str, evidence: &Evidence, others: &Vouched) -> Self {
        let that_are = |status: v1::TestStatus| {
            let named = evidence.suites.iter().flat_map(|(job, suite)| {
                let tests = suite.tests.iter().filter(|(_, test)| test.status == status);
                let named = tests.map(|(test, _)| format!("{job} {test}"));
                named.collect::<Vec<_>>()
            });
            named.collect()
        };
        let jobs = evidence.spec.jobs.iter().map(|job| {
            let ended = evidence.jobs.get(&job.name);
            JobStatement {
                name: job.name.clone(),
                status: word(evidence.status_of(&job.name).as_str_name(), "JOB_STATUS_"),
                cached: ended.is_some_and(|job| job.cached),
                flaky: ended.is_some_and(|job| job.flaky),
            }
        });
        Self {
            verdict: word(evidence.end.verdict().as_str_name(), "VERDICT_"),
            reasons: evidence.end.reasons.clone(),
            run: run.to_owned(),
            commit: evidence.spec.commit.clone(),
            branch: evidence.spec.branch.clone(),
            dirty: evidence.spec.dirty,
            policy: Required {
                digest: sha256(&evidence.policy()),
                required_jobs: evidence.spec.jobs.iter().map(required).collect(),
            },
            plan: Described {
                name: None,
                digest: sha256(&evidence.plan()),
            },
            counts: evidence.counts(),
            jobs: jobs.collect(),
            test_results: others.test_results.iter().map(described).collect(),
            provenance: others.provenance.iter().map(described).collect(),
            cached_from: evidence
                .cached_from()
                .into_iter()
                .map(cached_from)
                .collect(),
            audited_hits: evidence.audited_hits,
            flaky_tests: that_are(v1::TestStatus::Flaky),
            quarantined_tests: that_are(v1::TestStatus::Quarantined),
            infrastructure_retries: evidence.infrastructure_retries,
            leases: evidence.end.leases,
            images: evidence.images.iter().cloned().collect(),
            agents: evidence.agents.iter().cloned().collect(),
            committed_at: evidence.committed_at.map(|time| format!("{time:.0}")),
            lead_time_seconds: evidence.lead_time().map(|time| time.as_secs_f64()),
            started_at: format!("{:.3}", evidence.started_at),
            finished_at: format!("{:.3}", evidence.finished_at),
        }
    }

    /// Whether the other statements are these, all of them and in this order.
    pub(crate) fn vouches_for(&self, others: &[Digest]) -> bool {
        let vouched = self.test_results.iter().chain(&self.provenance);
        let vouched = vouched.map(|it| &it.digest);
        vouched.eq(others.iter().map(sha256).collect::<Vec<_>>().iter())
    }

    /// Whether what it says fits together.
    pub(crate) fn contradiction(&self) -> Option<&'static str> {
        let passed = |job: &JobStatement| job.status == "PASSED";
        let is_good = self.jobs.iter().all(passed);
        let is_releasable = self.verdict == "RELEASABLE";
        if !self.counts.add_up() {
            Some("its counts do not add up")
        } else if is_releasable && (!is_good || self.counts.failed + self.counts.not_run > 0) {
            Some("it is RELEASABLE, and not all of it has passed")
        } else {
            None
        }
    }
}

fn described((name, digest): &(String, Digest)) -> Described {
    Described {
        name: Some(name.clone()),
        digest: sha256(digest),
    }
}

fn cached_from((run, results): (&str, u64)) -> CachedFrom {
    let run = run.to_owned();
    CachedFrom { run, results }
}

/// A job's name, and which of its tests were wanted.
fn required(job: &v1::Job) -> String {
    match &job.kind {
        Some(v1::job::Kind::Suite(suite)) if !suite.filters.is_empty() => {
            format!("{} (tests with {})", job.name, suite.filters.join(" or "))
        }
        // Chosen by their whole names, of which there may be thousands.
        Some(v1::job::Kind::Suite(suite)) if !suite.only_tests.is_empty() => {
            format!("{} ({} chosen tests)", job.name, suite.only_tests.len())
        }
        Some(_) | None => job.name.clone(),
    }
}

/// `VERDICT_RELEASABLE` without `VERDICT_`.
fn word(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_owned()
}

/// in-toto's test-result predicate. Tests that were known to pass have passed, flaky ones are warned of; a
/// suite is good only if its job is, which may know of a failure that is no test's.
fn test_result(job: &str, suite: &SuiteEvidence, evidence: &Evidence) -> Value {
    use v1::TestStatus::{Cached, Failed, Flaky, NotRun, Passed, Quarantined, Unspecified};
    let that_are = |wanted: &[v1::TestStatus]| {
        let tests = suite.that_are(wanted);
        tests.map(str::to_owned).collect::<Vec<_>>()
    };
    let (passed, warned) = (that_are(&[Passed, Cached]), that_are(&[Flaky, Quarantined]));
    let failed = that_are(&[Failed, NotRun, Unspecified]);
    let is_good = failed.is_empty() && evidence.status_of(job) == v1::JobStatus::Passed;
    let result = match (is_good, warned.is_empty()) {
        (true, true) => "PASSED",
        (true, false) => "WARNED",
        (false, _) => "FAILED",
    };
    let configuration = Described {
        name: Some(job.to_owned()),
        digest: sha256(&evidence.policy()),
    };
    serde_json::json!({
        "result": result,
        "configuration": [configuration],
        "passedTests": passed,
        "warnedTests": warned,
        "failedTests": failed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::tests::{gathered, run};

    #[test]
    fn a_run_is_stated_in_the_frameworks_words() {
        use v1::TestStatus::{Cached, Failed, Flaky, Passed};
        let tests = [("a", Passed), ("b", Cached), ("c", Flaky), ("d", Failed)];
        let events = run(&tests, v1::Verdict::NotReleasable);
        let evidence = gathered(&events).expect("is complete");
        let verdict = Statement::of_run("r1", &evidence, &Vouched::default());
        let names: Vec<_> = verdict.subject.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["commit", "tree", "make/out/app"]);
        assert_eq!(
            verdict.subject[0].digest["gitCommit"],
            "0123456789012345678901234567890123456789"
        );
        let said = verdict.verdict().expect("is one").expect("is whole");
        assert_eq!(
            (said.verdict.as_str(), said.flaky_tests),
            ("NOT_RELEASABLE", vec!["check c".to_owned()])
        );
        assert_eq!(said.started_at, "1970-01-01T00:00:10.000Z");
        assert_eq!(said.committed_at.as_deref(), Some("1970-01-01T00:00:04Z"));
        assert_eq!(said.lead_time_seconds, Some(10.0));
        let suites = Statement::of_suites(&evidence);
        let suites: Vec<_> = suites.map(|(_, statement)| statement).collect();
        let expected = serde_json::json!({
            "result": "FAILED",
            "configuration": [{"name": "check", "digest": {"sha256": evidence.policy().hash_hex()}}],
            "passedTests": ["a", "b"], "warnedTests": ["c"], "failedTests": ["d"],
        });
        assert_eq!((suites.len(), &suites[0].predicate), (1, &expected));
        assert!(suites[0].verdict().is_none());
    }

    #[test]
    fn a_suite_is_no_better_than_its_job() {
        use v1::run_event::Event;
        let tests = [("a", v1::TestStatus::Passed)];
        let mut failed = run(&tests, v1::Verdict::NotReleasable);
        let mut cut = run(&tests, v1::Verdict::Unknown);
        if let Some(Event::JobFinished(finished)) = &mut failed[3].event {
            // The runner ended badly though every test passed.
            finished.status = v1::JobStatus::Failed.into();
        }
        cut.remove(3);
        for events in [failed, cut] {
            let evidence = gathered(&events).expect("is complete");
            let (_, suite) = Statement::of_suites(&evidence).next().expect("one");
            assert_eq!(suite.predicate["result"], "FAILED");
        }
    }

    #[test]
    fn files_that_differ_from_the_commit_say_nothing_of_it() {
        let mut events = run(&[], v1::Verdict::Releasable);
        if let Some(v1::run_event::Event::RunStarted(started)) = &mut events[0].event {
            started.spec.as_mut().expect("is set").dirty = true;
        }
        let evidence = gathered(&events).expect("is complete");
        let subjects = Statement::of_run("r1", &evidence, &Vouched::default()).subject;
        assert!(subjects.iter().all(|subject| subject.name != "commit"));
    }
}
