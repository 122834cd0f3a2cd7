//! in-toto statements about a run (Attestation Framework v1).

use std::collections::BTreeMap;

use regatta_model::Digest;
use regatta_wire::v1;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::evidence::{Evidence, SuiteEvidence};
use crate::judgement::{Judgement, artefact_name, tree};
use crate::predicate::VerdictPredicate;
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

/// The statements that a verdict vouches for, by name: the digest of each as it was signed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Vouched {
    /// About its suites.
    pub test_results: Vec<(String, Digest)>,
    /// About what its builds made.
    pub provenance: Vec<(String, Digest)>,
}

impl Statement {
    /// What runs say of their commit: the verdict, which vouches for the statements about their suites.
    #[must_use]
    pub fn of_runs(judgement: &Judgement, others: &Vouched) -> Self {
        let predicate = VerdictPredicate::new(judgement, others);
        Self {
            statement_type: STATEMENT_TYPE.to_owned(),
            subject: subjects(&judgement.runs().map(|(_, it)| it).collect::<Vec<_>>()),
            predicate_type: VERDICT_TYPE.to_owned(),
            predicate: serde_json::json!(predicate),
        }
    }

    /// What a run says of each suite, by its job's name: in-toto's test results.
    pub fn of_suites(evidence: &Evidence) -> impl Iterator<Item = (&str, Self)> {
        let subject = subjects(&[evidence]);
        evidence.suites.iter().map(move |(job, suite)| {
            let statement = Self {
                statement_type: STATEMENT_TYPE.to_owned(),
                subject: subject.clone(),
                predicate_type: TEST_RESULT_TYPE.to_owned(),
                predicate: test_result(job, suite, evidence),
            };
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
}

/// The files that were given, what was made of them, and the commit if they are what it has.
fn subjects(runs: &[&Evidence]) -> Vec<Subject> {
    let subject = |name: &str, digest| Subject {
        name: name.to_owned(),
        digest,
    };
    let runs = || runs.iter().copied();
    let mut subjects = vec![subject("tree", sha256(&tree(runs())))];
    let spec = runs().next().map(|run| &run.spec);
    if let Some(spec) = spec.filter(|spec| !spec.dirty && !spec.commit.is_empty()) {
        let digest = BTreeMap::from([(GIT_COMMIT.to_owned(), spec.commit.clone())]);
        subjects.insert(0, subject("commit", digest));
    }
    let jobs = runs().flat_map(|run| &run.jobs);
    let made = jobs.flat_map(|(job, ended)| {
        let artefacts = ended.artefacts.iter();
        artefacts.map(move |(path, digest)| subject(&artefact_name(job, path), sha256(digest)))
    });
    for artefact in made {
        // Of several runs that made it, once.
        if !subjects.contains(&artefact) {
            subjects.push(artefact);
        }
    }
    subjects
}

pub(crate) fn sha256(digest: &Digest) -> BTreeMap<String, String> {
    BTreeMap::from([(SHA256.to_owned(), digest.hash_hex())])
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
        digest: sha256(&evidence.requested()),
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
    use crate::evidence::tests::{gathered, is_end_of, run};

    fn judged(evidence: &Evidence) -> Judgement {
        Judgement::of(("r1".to_owned(), evidence.clone()), Vec::new(), None)
    }

    #[test]
    fn a_run_is_stated_in_the_frameworks_words() {
        use v1::TestStatus::{Cached, Failed, Flaky, Passed};
        let tests = [("a", Passed), ("b", Cached), ("c", Flaky), ("d", Failed)];
        let events = run(&tests, v1::Verdict::NotReleasable);
        let evidence = gathered(&events).expect("is complete");
        let verdict = Statement::of_runs(&judged(&evidence), &Vouched::default());
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
            "configuration": [{"name": "check", "digest": {"sha256": evidence.requested().hash_hex()}}],
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
        for event in failed.iter_mut().filter(|it| is_end_of(it, "check")) {
            if let Some(Event::JobFinished(finished)) = &mut event.event {
                // The runner ended badly though every test passed.
                finished.status = v1::JobStatus::Failed.into();
            }
        }
        cut.retain(|event| !is_end_of(event, "check"));
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
        let subjects = Statement::of_runs(&judged(&evidence), &Vouched::default()).subject;
        assert!(subjects.iter().all(|subject| subject.name != "commit"));
    }
}
