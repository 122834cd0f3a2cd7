//! Regatta's predicate: what runs say of a commit.

mod stated;

use std::collections::{BTreeMap, BTreeSet};

use regatta_model::Digest;
use regatta_wire::v1;
use serde::{Deserialize, Serialize};

use crate::counts::Counts;
use crate::evidence::Evidence;
use crate::flaky::FlakyAcrossRuns;
use crate::judgement::{CachedResults, Judgement};
use crate::policy::{Policy, RequiredJob};
use crate::stages::written;
use crate::statement::{Described, Vouched, sha256};

pub use stated::{JobStatement, RunStatement};

/// Regatta's predicate: what runs say of a commit.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VerdictPredicate {
    /// `RELEASABLE`, `NOT_RELEASABLE` or `UNKNOWN`.
    pub verdict: String,
    /// Why it is not releasable.
    pub reasons: Vec<String>,
    /// The id of the run that speaks for the commit.
    pub run: String,
    /// Runs that have done what the policy requires and that one has not.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub other_runs: Vec<String>,
    /// The commit; empty if there was none.
    pub commit: String,
    /// The branch.
    pub branch: String,
    /// Whether files differed from the commit.
    pub dirty: bool,
    /// What was required, if anybody said so. See [`VerdictPredicate::policy`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    policy: Option<PolicyStatement>,
    /// What was asked for, by run; older verdicts have none.
    #[serde(default)]
    pub requested: Vec<Requested>,
    /// The digest of every planned test with its key.
    pub plan: Described,
    /// How the tests ended.
    pub counts: Counts,
    /// When each run did what; older verdicts do not say.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub runs: Vec<RunStatement>,
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
    /// `job test` of each test that failed before it passed, be it in another run of the commit.
    pub flaky_tests: Vec<String>,
    /// Those of them that passed here and failed in another run, with the same key.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub flaky_across_runs: Vec<FlakyAcrossRuns>,
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
    /// When the first of its runs was submitted; RFC 3339.
    pub started_at: String,
    /// When the last of them ended; RFC 3339.
    pub finished_at: String,
}

/// A run that produced cached results.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CachedFrom {
    /// Its id; empty for those of which it is not known.
    pub run: String,
    /// How many tests and builds.
    pub results: u64,
    /// What they ran in then, as far as that is known.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub images: Vec<String>,
    /// What they ran on.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub agents: Vec<String>,
}

/// What had to be known.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatement {
    /// Of the policy. See [`Policy::digest`].
    pub digest: BTreeMap<String, String>,
    /// Jobs that had to pass, with all of their tests.
    pub required_jobs: BTreeSet<RequiredJob>,
    /// How many tests at most might be flaky.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub max_flaky: Option<u32>,
    /// How many tests at most might fail in quarantine.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub max_quarantined: Option<u32>,
}

/// What a run was asked to do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Requested {
    /// Of all the jobs as they were asked for.
    pub digest: BTreeMap<String, String>,
    /// Their names, with the choice of tests if not all were to run.
    pub jobs: Vec<String>,
}

/// A verdict was measured by another policy than it should have been.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PolicyMismatchError {
    /// By none.
    #[error("it was given without any policy")]
    NoPolicy,
    /// By another.
    #[error(
        "it was given by another policy, which requires {}, and allows {} flaky and {} quarantined tests",
        .stated.required_jobs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        limit(.stated.max_flaky), limit(.stated.max_quarantined)
    )]
    Other {
        /// The one that it was given by.
        stated: Box<Policy>,
    },
}

fn limit(most: Option<u32>) -> String {
    most.map_or("any number of".to_owned(), |most| most.to_string())
}

impl VerdictPredicate {
    pub(crate) fn new(judgement: &Judgement, others: &Vouched) -> Self {
        let mut runs = judgement.runs().map(|(run, _)| run.to_owned());
        let run = runs.next().unwrap_or_default();
        let other_runs = runs.collect();
        let evidence = || judgement.runs().map(|(_, evidence)| evidence);
        let spec = evidence().next().map(|evidence| &evidence.spec);
        let all_of = |part: fn(&Evidence) -> &BTreeSet<String>| {
            let all: BTreeSet<_> = evidence().flat_map(part).collect();
            all.into_iter().cloned().collect()
        };
        let that_are = |status| judgement.tests_that_are(status).into_iter().collect();
        let cached_from = judgement.cached_from().into_iter();
        Self {
            verdict: word(judgement.verdict().as_str_name(), "VERDICT_"),
            reasons: judgement.reasons().to_vec(),
            run,
            other_runs,
            commit: spec.map(|spec| spec.commit.clone()).unwrap_or_default(),
            branch: spec.map(|spec| spec.branch.clone()).unwrap_or_default(),
            dirty: spec.is_some_and(|spec| spec.dirty),
            policy: judgement.policy().map(PolicyStatement::of),
            requested: evidence().map(Requested::of).collect(),
            plan: Described {
                name: None,
                digest: sha256(&judgement.plan()),
            },
            counts: judgement.counts(),
            runs: judgement.runs().map(RunStatement::of).collect(),
            jobs: judgement.runs().flat_map(JobStatement::all_of).collect(),
            test_results: others.test_results.iter().map(described).collect(),
            provenance: others.provenance.iter().map(described).collect(),
            cached_from: cached_from.map(CachedFrom::of).collect(),
            audited_hits: evidence().map(|it| it.audited_hits).sum(),
            flaky_tests: judgement.flaky_tests().into_iter().collect(),
            flaky_across_runs: judgement.flaky_across_runs().iter().cloned().collect(),
            quarantined_tests: that_are(v1::TestStatus::Quarantined),
            infrastructure_retries: evidence().map(|it| it.infrastructure_retries).sum(),
            leases: evidence().map(|it| it.end.leases).sum(),
            images: all_of(|evidence| &evidence.images),
            agents: all_of(|evidence| &evidence.agents),
            committed_at: judgement.committed_at().map(|time| format!("{time:.0}")),
            lead_time_seconds: judgement.lead_time().map(|time| time.as_secs_f64()),
            started_at: written(judgement.started_at()),
            finished_at: written(judgement.finished_at()),
        }
    }

    /// What was required; `None` if nobody said. In older verdicts, something else had its name.
    #[must_use]
    pub fn policy(&self) -> Option<&PolicyStatement> {
        self.policy.as_ref().filter(|_| !self.requested.is_empty())
    }

    /// The jobs that were asked for, with the choice of tests if not all were to run.
    pub fn requested_jobs(&self) -> impl Iterator<Item = &str> {
        let older = self.policy.iter().filter(|_| self.requested.is_empty());
        let older = older.flat_map(|policy| &policy.required_jobs);
        let requested = self.requested.iter().flat_map(|it| &it.jobs);
        let requested = requested.map(String::as_str);
        requested.chain(older.map(|it| it.job.as_str()))
    }

    /// Whether it was given by this policy.
    ///
    /// # Errors
    /// [`PolicyMismatchError`] says by which instead.
    pub fn check_policy(&self, policy: &Policy) -> Result<(), PolicyMismatchError> {
        match self.policy() {
            None => Err(PolicyMismatchError::NoPolicy),
            Some(stated) if stated.digest == sha256(&policy.digest()) => Ok(()),
            Some(stated) => Err(PolicyMismatchError::Other {
                stated: Box::new(stated.policy()),
            }),
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
        let is_good = self.jobs.iter().all(JobStatement::has_passed);
        let is_releasable = self.verdict == "RELEASABLE";
        let policy = self.policy();
        let is_other = |it: &PolicyStatement| it.digest != sha256(&it.policy().digest());
        if !self.counts.add_up() {
            Some("its counts do not add up")
        } else if is_releasable && (!is_good || self.counts.failed + self.counts.not_run > 0) {
            Some("it is RELEASABLE, and not all of it has passed")
        } else if policy.is_some_and(is_other) {
            Some("the digest of its policy is of another")
        } else if is_releasable && policy.is_some_and(|policy| !self.meets(&policy.policy())) {
            Some("it is RELEASABLE, and not all that its policy requires has passed")
        } else if !self
            .flaky_across_runs
            .iter()
            .all(|it| self.counts_flaky(it))
        {
            Some("it does not count a test as flaky that failed in another run")
        } else {
            self.contradiction_of_times()
        }
    }

    /// Whether it counts a test that passed in one of its runs and failed in another.
    fn counts_flaky(&self, test: &FlakyAcrossRuns) -> bool {
        let mut runs = std::iter::once(&self.run).chain(&self.other_runs);
        self.flaky_tests.contains(&test.test) && runs.any(|run| *run == test.passed_in)
    }

    /// Whether what it says of when fits together. Older verdicts do not say it of each run and job.
    fn contradiction_of_times(&self) -> Option<&'static str> {
        let is_older = self.runs.is_empty();
        let told = self.runs.iter().map(|it| &it.run);
        let spoken_of = std::iter::once(&self.run).chain(&self.other_runs);
        let has_run = |job: &JobStatement| self.runs.iter().any(|it| it.run == job.run);
        if !is_older && !told.eq(spoken_of) {
            Some("it tells when other runs than its own did what")
        } else if !is_older && !self.jobs.iter().all(has_run) {
            Some("it has a job of none of its runs")
        } else if !self.runs.iter().all(RunStatement::is_in_order)
            || !self.jobs.iter().all(JobStatement::is_in_order)
        {
            Some("something in it ended before it began")
        } else {
            None
        }
    }

    fn meets(&self, policy: &Policy) -> bool {
        let whole = self
            .jobs
            .iter()
            .filter(|job| job.has_passed() && !job.chosen_tests);
        let pipelines = self.runs.iter().map(|it| (&it.run, it.pipeline.as_str()));
        let pipelines: BTreeMap<_, _> = pipelines.collect();
        // Older verdicts know of one file only.
        let pipeline = |job: &JobStatement| pipelines.get(&job.run).copied().unwrap_or_default();
        let passed: BTreeSet<_> = whole
            .map(|job| (pipeline(job), job.name.as_str()))
            .collect();
        let mut required = policy.required_jobs.iter();
        let mut exceeded = policy.exceeded(self.flaky_tests.len(), self.quarantined_tests.len());
        let has_passed =
            |it: &RequiredJob| passed.contains(&(it.pipeline.as_str(), it.job.as_str()));
        required.all(has_passed) && exceeded.next().is_none()
    }
}

impl PolicyStatement {
    fn of(policy: &Policy) -> Self {
        Self {
            digest: sha256(&policy.digest()),
            required_jobs: policy.required_jobs.clone(),
            max_flaky: policy.max_flaky,
            max_quarantined: policy.max_quarantined,
        }
    }

    fn policy(&self) -> Policy {
        Policy {
            max_flaky: self.max_flaky,
            max_quarantined: self.max_quarantined,
            required_jobs: self.required_jobs.clone(),
        }
    }
}

impl Requested {
    fn of(evidence: &Evidence) -> Self {
        Self {
            digest: sha256(&evidence.requested()),
            jobs: evidence.spec.jobs.iter().map(requested).collect(),
        }
    }
}

impl CachedFrom {
    fn of((run, cached): (&str, CachedResults<'_>)) -> Self {
        let owned = |all: BTreeSet<&str>| all.into_iter().map(str::to_owned).collect();
        Self {
            run: run.to_owned(),
            results: cached.results,
            images: owned(cached.images),
            agents: owned(cached.agents),
        }
    }
}

fn described((name, digest): &(String, Digest)) -> Described {
    Described {
        name: Some(name.clone()),
        digest: sha256(digest),
    }
}

/// A job's name, and which of its tests were wanted.
fn requested(job: &v1::Job) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::tests::{gathered, run};
    use crate::policy::tests::own;

    fn policy() -> Policy {
        Policy {
            max_flaky: Some(1),
            max_quarantined: None,
            required_jobs: ["check", "make"].map(own).into(),
        }
    }

    fn said(policy: Option<Policy>) -> VerdictPredicate {
        let events = run(&[("a", v1::TestStatus::Flaky)], v1::Verdict::Releasable);
        let evidence = gathered(&events).expect("is complete");
        let judgement = Judgement::of(("r1".to_owned(), evidence), Vec::new(), policy);
        VerdictPredicate::new(&judgement, &Vouched::default())
    }

    #[test]
    fn a_verdict_is_given_by_one_policy() {
        let good = said(Some(policy()));
        assert_eq!(
            (good.verdict.as_str(), good.contradiction()),
            ("RELEASABLE", None)
        );
        assert_eq!(good.check_policy(&policy()), Ok(()));
        for edited in [
            Policy {
                max_flaky: Some(2),
                ..policy()
            },
            policy().and(Policy {
                required_jobs: [own("lint")].into(),
                ..Policy::default()
            }),
            Policy::default(),
        ] {
            let error = good.check_policy(&edited).expect_err("is another");
            let words =
                "requires check, make, and allows 1 flaky and any number of quarantined tests";
            assert!(error.to_string().contains(words), "{error}");
        }
        let without = said(None);
        let error = without.check_policy(&policy());
        assert_eq!(error, Err(PolicyMismatchError::NoPolicy));
    }

    #[test]
    fn a_releasable_verdict_that_breaks_its_policy_contradicts_itself() {
        let with = |change: fn(&mut VerdictPredicate, &mut PolicyStatement)| {
            let mut said = said(Some(policy()));
            let mut stated = said.policy.take().expect("is there");
            change(&mut said, &mut stated);
            stated.digest = sha256(&stated.policy().digest());
            said.policy = Some(stated);
            said.contradiction()
        };
        assert_eq!(with(|_, _| {}), None);
        let breaks = Some("it is RELEASABLE, and not all that its policy requires has passed");
        let lint = |_: &mut _, stated: &mut PolicyStatement| {
            stated.required_jobs.insert(own("lint"));
        };
        let of_another = |_: &mut _, stated: &mut PolicyStatement| {
            stated.required_jobs = stated
                .policy()
                .of_pipeline("sub/regatta.toml")
                .required_jobs;
        };
        let of_another_run = |said: &mut VerdictPredicate, _: &mut _| {
            said.runs[0].pipeline = "sub/regatta.toml".to_owned();
        };
        assert_eq!(with(of_another), breaks);
        assert_eq!(with(of_another_run), breaks);
        assert_eq!(with(lint), breaks);
        assert_eq!(with(|said, _| said.jobs[1].chosen_tests = true), breaks);
        assert_eq!(with(|_, stated| stated.max_flaky = Some(0)), breaks);
        let uncounted = Some("it does not count a test as flaky that failed in another run");
        let across = |said: &mut VerdictPredicate, _: &mut _| {
            said.flaky_across_runs = vec![FlakyAcrossRuns {
                test: "check b".to_owned(),
                failed_in: "r0".to_owned(),
                passed_in: "r1".to_owned(),
            }];
        };
        assert_eq!(with(across), uncounted);
        let mut edited = said(Some(policy()));
        if let Some(stated) = &mut edited.policy {
            stated.max_flaky = None;
        }
        let other = Some("the digest of its policy is of another");
        assert_eq!(edited.contradiction(), other);
    }

    #[test]
    fn a_verdict_tells_when_each_stage_was_reached() {
        let good = said(None);
        let at = |second: u8| Some(format!("1970-01-01T00:00:{second}.000Z"));
        let run = RunStatement {
            run: "r1".to_owned(),
            pipeline: String::new(),
            submitted_at: at(10),
            started_at: at(11),
            finished_at: at(14),
        };
        assert_eq!(good.runs, [run]);
        let times = |job: &JobStatement| {
            let (queued, started) = (job.queued_at.clone(), job.started_at.clone());
            (job.run.clone(), queued, started, job.finished_at.clone())
        };
        let of_r1 = |times: [Option<String>; 3]| {
            let [queued, started, finished] = times;
            ("r1".to_owned(), queued, started, finished)
        };
        assert_eq!(times(&good.jobs[0]), of_r1([at(10), at(11), at(11)]));
        assert_eq!(times(&good.jobs[1]), of_r1([at(11), at(12), at(13)]));
    }

    #[test]
    fn a_verdict_whose_times_cannot_have_been_contradicts_itself() {
        let with = |change: &dyn Fn(&mut VerdictPredicate)| {
            let mut said = said(None);
            change(&mut said);
            said.contradiction()
        };
        assert_eq!(with(&|_| {}), None);
        let order = Some("something in it ended before it began");
        let late = || Some("1970-01-01T00:01:00.000Z".to_owned());
        assert_eq!(with(&|said| said.jobs[1].started_at = late()), order);
        assert_eq!(with(&|said| said.jobs[0].queued_at = late()), order);
        assert_eq!(with(&|said| said.runs[0].started_at = late()), order);
        assert_eq!(
            with(&|said| said.runs[0].finished_at = Some("late".to_owned())),
            order
        );
        let others = Some("it tells when other runs than its own did what");
        assert_eq!(with(&|said| said.runs[0].run = "r2".to_owned()), others);
        assert_eq!(with(&|said| said.other_runs.push("r2".to_owned())), others);
        let stray = Some("it has a job of none of its runs");
        assert_eq!(with(&|said| said.jobs[0].run = "r2".to_owned()), stray);
    }

    #[test]
    fn verdicts_of_before_stages_were_told_are_read() {
        let mut older = serde_json::json!(said(None));
        older.as_object_mut().expect("is one").remove("runs");
        for job in older["jobs"].as_array_mut().expect("are some") {
            let job = job.as_object_mut().expect("is one");
            for field in ["run", "queuedAt", "startedAt", "finishedAt"] {
                job.remove(field);
            }
        }
        let older: VerdictPredicate = serde_json::from_value(older).expect("is whole");
        assert_eq!((older.runs.len(), older.contradiction()), (0, None));
        assert_eq!(older.jobs[0].queued_at, None);
    }

    #[test]
    fn verdicts_of_before_there_were_policies_are_read() {
        let mut older = serde_json::json!(said(None));
        let fields = older.as_object_mut().expect("is one");
        fields.remove("requested");
        let required = serde_json::json!({ "digest": { "sha256": "0" }, "requiredJobs": ["make"] });
        fields.insert("policy".to_owned(), required);
        let older: VerdictPredicate = serde_json::from_value(older).expect("is whole");
        assert_eq!((older.policy(), older.contradiction()), (None, None));
        assert!(older.requested_jobs().eq(["make"]));
        let error = older.check_policy(&policy());
        assert_eq!(error, Err(PolicyMismatchError::NoPolicy));
    }
}
