//! What runs of one commit say together, measured by what a release requires.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use regatta_model::{Digest, DigestHasher};
use regatta_wire::v1;

use crate::counts::Counts;
use crate::evidence::Evidence;
use crate::flaky::{Failures, FlakyAcrossRuns};
use crate::policy::{Policy, RequiredJob, is_whole};

/// What runs of one commit say together.
#[derive(Clone, PartialEq, Debug)]
pub struct Judgement {
    /// Never empty; the first is the one that speaks for the commit.
    runs: Vec<(String, Evidence)>,
    policy: Option<Policy>,
    flaky_across_runs: BTreeSet<FlakyAcrossRuns>,
    verdict: v1::Verdict,
    reasons: Vec<String>,
}

/// Cached results that one run produced.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CachedResults<'a> {
    /// How many tests and builds.
    pub results: u64,
    /// What they ran on, as far as that is known.
    pub agents: BTreeSet<&'a str>,
    /// What they ran in, by content, as far as that is known.
    pub images: BTreeSet<&'a str>,
}

/// Something that a build made.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Artefact {
    /// `job/path`.
    pub name: String,
    /// Of the file, or of the directory's `Tree`.
    pub digest: Digest,
    /// Whether it is a directory.
    pub is_tree: bool,
}

/// What an artefact is called: `job/path`.
pub(crate) fn artefact_name(job: &str, path: &str) -> String {
    format!("{job}/{path}")
}

impl Judgement {
    /// What the builds made, each thing once, in order.
    #[must_use]
    pub fn artefacts(&self) -> Vec<Artefact> {
        let jobs = self.runs().flat_map(|(_, evidence)| &evidence.jobs);
        let artefacts = jobs.flat_map(|(name, job)| {
            let made = job.artefacts.iter();
            made.map(move |(path, digest)| Artefact {
                name: artefact_name(name, path),
                digest: *digest,
                is_tree: job.trees.contains(digest),
            })
        });
        let artefacts: BTreeSet<Artefact> = artefacts.collect();
        artefacts.into_iter().collect()
    }

    /// The commit that it is about; `None` if files differed from it, or there was none.
    #[must_use]
    pub fn commit(&self) -> Option<&str> {
        let (_, speaker) = self.runs().next()?;
        let spec = Some(&speaker.spec).filter(|spec| !spec.dirty && !spec.commit.is_empty());
        spec.map(|spec| spec.commit.as_str())
    }

    /// Judges a commit by these runs alone.
    #[must_use]
    pub fn of(
        speaker: (String, Evidence),
        others: Vec<(String, Evidence)>,
        policy: Option<Policy>,
    ) -> Self {
        Self::of_commit(speaker, others, policy, &Failures::default())
    }

    /// Judges a commit by the run that speaks for it, and by others that have done what it has not, each with
    /// its id. What failed in the commit's other runs and passed in these is flaky.
    #[must_use]
    pub fn of_commit(
        speaker: (String, Evidence),
        others: Vec<(String, Evidence)>,
        policy: Option<Policy>,
        failures: &Failures,
    ) -> Self {
        let mut judgement = Self {
            flaky_across_runs: BTreeSet::new(),
            verdict: speaker.1.end.verdict(),
            reasons: Vec::new(),
            runs: [vec![speaker], others].concat(),
            policy,
        };
        for (_, evidence) in &judgement.runs {
            let own = evidence.end.verdict();
            judgement.verdict = worse(judgement.verdict, own);
            judgement.reasons.extend(evidence.end.reasons.clone());
        }
        let taken_back = judgement.runs().flat_map(|run| failures.taken_back_by(run));
        judgement.flaky_across_runs = taken_back.collect();
        judgement.measure();
        judgement
    }

    fn measure(&mut self) {
        let Some(policy) = &self.policy else { return };
        // One that is not good speaks alone, whatever others did.
        let speaker = self.runs().next().map(|(_, it)| it.end.verdict());
        let others_count = speaker == Some(v1::Verdict::Releasable);
        let required = policy.required_jobs.iter().filter(|_| others_count);
        let open: Vec<_> = required.filter_map(|job| self.open(job)).collect();
        let flaky = self.flaky_tests().len();
        let quarantined = self.tests_that_are(v1::TestStatus::Quarantined).len();
        let exceeded: Vec<_> = policy.exceeded(flaky, quarantined).collect();
        if !open.is_empty() {
            self.verdict = worse(self.verdict, v1::Verdict::Unknown);
        }
        if !exceeded.is_empty() {
            self.verdict = v1::Verdict::NotReleasable;
        }
        for reason in exceeded.into_iter().chain(open) {
            // The run that exceeds a limit on its own has said so.
            if !self.reasons.contains(&reason) {
                self.reasons.push(reason);
            }
        }
    }

    /// Why there is no answer to a required job, if there is none.
    fn open(&self, required: &RequiredJob) -> Option<String> {
        let mut why = "has not run";
        let answers = |(evidence, asked): &(&Evidence, &v1::Job)| {
            asked.name == required.job && evidence.spec.pipeline == required.pipeline
        };
        for (evidence, asked) in self.jobs().filter(answers) {
            why = match evidence.status_of(&required.job) {
                v1::JobStatus::Passed | v1::JobStatus::Failed
                    if is_whole(&evidence.spec, asked) =>
                {
                    evidence.lacks_tests(asked)?
                }
                v1::JobStatus::Passed | v1::JobStatus::Failed => "has run with chosen tests only",
                v1::JobStatus::Unspecified
                | v1::JobStatus::Cancelled
                | v1::JobStatus::NotRun
                | v1::JobStatus::Unknown => "has no answer",
            };
        }
        let RequiredJob { pipeline, job } = required;
        let of = match pipeline.is_empty() {
            true => String::new(),
            false => format!(" of {pipeline}"),
        };
        Some(format!("job `{job}`{of}, which the policy requires, {why}"))
    }

    /// The jobs of every run, as they were asked for.
    fn jobs(&self) -> impl Iterator<Item = (&Evidence, &v1::Job)> {
        let evidence = self.runs.iter().map(|(_, evidence)| evidence);
        evidence.flat_map(|evidence| evidence.spec.jobs.iter().map(move |job| (evidence, job)))
    }

    /// The runs, the one first that speaks for the commit.
    pub fn runs(&self) -> impl Iterator<Item = (&str, &Evidence)> {
        let runs = self.runs.iter();
        runs.map(|(run, evidence)| (run.as_str(), evidence))
    }

    /// What was required; `None` if nobody said.
    #[must_use]
    pub const fn policy(&self) -> Option<&Policy> {
        self.policy.as_ref()
    }

    /// What they come to.
    #[must_use]
    pub const fn verdict(&self) -> v1::Verdict {
        self.verdict
    }

    /// Why it is not RELEASABLE.
    #[must_use]
    pub fn reasons(&self) -> &[String] {
        &self.reasons
    }

    /// How the tests ended, all runs' together.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let counts = self.runs().map(|(_, evidence)| evidence.counts());
        counts.fold(Counts::default(), Counts::plus)
    }

    /// `job test` of each test that ended so in one of them.
    #[must_use]
    pub fn tests_that_are(&self, status: v1::TestStatus) -> BTreeSet<String> {
        let runs = self.runs();
        runs.flat_map(|(_, evidence)| evidence.tests_that_are(status))
            .collect()
    }

    /// `job test` of each test that failed before it passed, be it in another run.
    #[must_use]
    pub fn flaky_tests(&self) -> BTreeSet<String> {
        let mut tests = self.tests_that_are(v1::TestStatus::Flaky);
        tests.extend(self.flaky_across_runs.iter().map(|it| it.test.clone()));
        tests
    }

    /// The tests that passed in one of them and failed in another run of the commit, with nothing changed.
    #[must_use]
    pub const fn flaky_across_runs(&self) -> &BTreeSet<FlakyAcrossRuns> {
        &self.flaky_across_runs
    }

    /// When the last of them ended.
    #[must_use]
    pub fn finished_at(&self) -> Timestamp {
        let ends = self.runs().map(|(_, evidence)| evidence.finished_at);
        ends.max().unwrap_or_default()
    }

    /// When the first of them began.
    #[must_use]
    pub fn started_at(&self) -> Timestamp {
        let starts = self.runs().map(|(_, evidence)| evidence.started_at);
        starts.min().unwrap_or_default()
    }

    /// When the commit was made, if it says so.
    #[must_use]
    pub fn committed_at(&self) -> Option<Timestamp> {
        self.runs().find_map(|(_, evidence)| evidence.committed_at)
    }

    /// How long it took from the commit to the verdict; `None` if nobody says when it was made, or it was made
    /// later than that: clocks differ.
    #[must_use]
    pub fn lead_time(&self) -> Option<Duration> {
        let elapsed = self.finished_at().duration_since(self.committed_at()?);
        Duration::try_from(elapsed).ok()
    }

    /// What cached results come from, by the run that produced them; its name is empty for those of which it is
    /// not known.
    #[must_use]
    pub fn cached_from(&self) -> BTreeMap<&str, CachedResults<'_>> {
        let mut runs: BTreeMap<&str, CachedResults<'_>> = BTreeMap::new();
        for (run, place) in self.runs().flat_map(|(_, evidence)| evidence.cached_from()) {
            let of_run = runs.entry(run).or_default();
            of_run.results += 1;
            let known = |text: &&str| !text.is_empty();
            let (agent, image) = place
                .map(|it| (it.agent_id.as_str(), it.image_id.as_str()))
                .unzip();
            of_run.agents.extend(agent.filter(known));
            of_run.images.extend(image.filter(known));
        }
        runs
    }

    /// The digest of what was planned: every test with its key.
    #[must_use]
    pub fn plan(&self) -> Digest {
        let suites = self.runs().flat_map(|(_, evidence)| &evidence.suites);
        let lines: BTreeSet<_> = suites
            .flat_map(|(job, suite)| {
                let tests = suite.tests.iter();
                tests.map(move |(test, evidence)| {
                    let key = evidence.key.map(|key| key.to_string()).unwrap_or_default();
                    [job.clone(), test.clone(), key]
                })
            })
            .collect();
        digest(&lines)
    }
}

/// The digest of the files that jobs of some runs were given: each job's input root.
pub(crate) fn tree<'a>(runs: impl Iterator<Item = &'a Evidence>) -> Digest {
    let jobs = runs.flat_map(|evidence| &evidence.spec.jobs);
    let roots = jobs.map(|job| {
        let root = job.input_root.clone().unwrap_or_default();
        [job.name.clone(), root.hash, root.size_bytes.to_string()]
    });
    digest(&roots.collect())
}

/// How much worse than RELEASABLE.
pub(crate) const fn badness(verdict: v1::Verdict) -> u8 {
    match verdict {
        v1::Verdict::Releasable => 0,
        v1::Verdict::Unspecified | v1::Verdict::Unknown => 1,
        v1::Verdict::NotReleasable => 2,
    }
}

const fn worse(one: v1::Verdict, other: v1::Verdict) -> v1::Verdict {
    if badness(one) < badness(other) {
        other
    } else {
        one
    }
}

/// Of text that cannot be read in two ways: each word with its length.
fn digest(lines: &BTreeSet<[String; 3]>) -> Digest {
    let mut hasher = DigestHasher::new();
    for word in lines.iter().flatten() {
        hasher.update(&(word.len() as u64).to_le_bytes());
        hasher.update(word.as_bytes());
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use v1::Verdict::{NotReleasable, Releasable, Unknown};

    use super::*;
    use crate::evidence::tests::{gathered, run};
    use crate::policy::tests::{own, policies};

    fn requiring(jobs: &[&str]) -> Policy {
        Policy {
            required_jobs: jobs.iter().map(|job| own(job)).collect(),
            ..Policy::default()
        }
    }

    /// A run of some of `a`, `b` and `c`, in which every test of theirs ended so.
    fn some_of(jobs: &[&str], status: v1::TestStatus, is_chosen: bool) -> Evidence {
        let tests = [("one", status), ("two", v1::TestStatus::Passed)];
        let is_bad = status == v1::TestStatus::Failed;
        let verdict = if is_bad { NotReleasable } else { Releasable };
        let mut evidence = gathered(&run(&tests, verdict)).expect("is complete");
        let (check, suite) = (
            evidence.jobs["check"].clone(),
            evidence.suites["check"].clone(),
        );
        let named = |name: &&str| v1::Job {
            name: (*name).to_owned(),
            kind: Some(v1::job::Kind::Suite(v1::Suite::default())),
            ..v1::Job::default()
        };
        evidence.spec.jobs = jobs.iter().map(named).collect();
        evidence.spec.chosen_tests = is_chosen;
        let names = || jobs.iter().map(ToString::to_string);
        evidence.jobs = names().map(|name| (name, check.clone())).collect();
        evidence.suites = names().map(|name| (name, suite.clone())).collect();
        evidence
    }

    fn judged(runs: &[Evidence], policy: Option<Policy>) -> Judgement {
        let named = runs.iter().enumerate();
        let mut named = named.map(|(index, it)| (index.to_string(), it.clone()));
        let speaker = named.next().expect("there are runs");
        Judgement::of(speaker, named.collect(), policy)
    }

    #[test]
    fn what_is_required_must_have_run() {
        let good = v1::TestStatus::Passed;
        let (a, b) = (some_of(&["a"], good, false), some_of(&["b"], good, false));
        let chosen = some_of(&["b"], good, true);
        let reasons = |runs: &[Evidence]| {
            let judged = judged(runs, Some(requiring(&["a", "b"])));
            (judged.verdict(), judged.reasons().join("\n"))
        };
        let lacks = |why: &str| format!("job `b`, which the policy requires, {why}");
        let alone = std::slice::from_ref(&a);
        assert_eq!(reasons(alone), (Unknown, lacks("has not run")));
        let only_chosen = (Unknown, lacks("has run with chosen tests only"));
        assert_eq!(reasons(&[a.clone(), chosen]), only_chosen);
        let mut lost = b.clone();
        lost.jobs.clear();
        lost.end.set_verdict(Unknown);
        let no_answer = (Unknown, lacks("has no answer"));
        assert_eq!(reasons(&[a.clone(), lost]), no_answer);
        assert_eq!(reasons(&[a.clone(), b]), (Releasable, String::new()));
        let failed = some_of(&["b"], v1::TestStatus::Failed, false);
        let (verdict, said) = reasons(&[failed]);
        assert_eq!(verdict, NotReleasable);
        assert!(!said.contains("has not run"), "nobody knows here: {said}");
    }

    #[test]
    fn a_test_that_is_flaky_in_two_runs_counts_once() {
        let flaky = some_of(&["a"], v1::TestStatus::Flaky, false);
        let policy = |max_flaky| Policy {
            max_flaky: Some(max_flaky),
            ..requiring(&["a"])
        };
        let twice = [flaky.clone(), flaky];
        assert_eq!(judged(&twice, Some(policy(1))).verdict(), Releasable);
        let judged = judged(&twice, Some(policy(0)));
        assert_eq!(judged.verdict(), NotReleasable);
        let words = "tests that are flaky: 1, and the policy allows 0 (max_flaky)";
        assert_eq!(judged.reasons(), [words]);
    }

    fn evidence() -> impl Strategy<Value = Evidence> {
        let jobs = prop::sample::subsequence(vec!["a", "b", "c"], 1..=3);
        let status = prop::sample::select(vec![
            v1::TestStatus::Passed,
            v1::TestStatus::Flaky,
            v1::TestStatus::Quarantined,
            v1::TestStatus::Failed,
        ]);
        let drawn = (jobs, status, any::<bool>());
        drawn.prop_map(|(jobs, status, is_chosen)| some_of(&jobs, status, is_chosen))
    }

    proptest! {
        /// Whatever ran, and whoever wrote the policies.
        #[test]
        fn what_is_releasable_meets_its_policy(
            runs in prop::collection::vec(evidence(), 1..4), policy in policies()
        ) {
            let judged = judged(&runs, Some(policy.clone()));
            let counts = |status| judged.tests_that_are(status).len();
            let (flaky, quarantined) =
                (counts(v1::TestStatus::Flaky), counts(v1::TestStatus::Quarantined));
            let is_met = |required: &RequiredJob| runs.iter().any(|run| {
                !run.spec.chosen_tests && run.spec.pipeline == required.pipeline
                    && run.status_of(&required.job) == v1::JobStatus::Passed
            });
            let is_good = runs.iter().all(|run| run.end.verdict() == Releasable)
                && policy.required_jobs.iter().all(is_met)
                && policy.exceeded(flaky, quarantined).next().is_none();
            prop_assert_eq!(judged.verdict() == Releasable, is_good);
            prop_assert!(is_good || runs.iter().any(|run| run.end.verdict() != Releasable)
                || !judged.reasons().is_empty());
        }

        #[test]
        fn to_require_more_makes_nothing_better(
            runs in prop::collection::vec(evidence(), 1..4), one in policies(), other in policies()
        ) {
            let loose = judged(&runs, Some(one.clone())).verdict();
            let strict = judged(&runs, Some(one.and(other))).verdict();
            prop_assert!(badness(strict) >= badness(loose));
            prop_assert!(badness(loose) >= badness(judged(&runs, None).verdict()));
        }
    }
}
