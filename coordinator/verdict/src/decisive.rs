//! Which of a commit's runs speak for it.

use std::collections::{HashMap, HashSet};

use regatta_wire::v1;
use regatta_wire::v1::job::Kind;

use crate::judgement::badness;
use crate::policy::{Policy, RequiredJob, is_whole};

/// A run that has ended, of exactly a commit's files.
#[derive(Clone, PartialEq, Debug)]
pub struct EndedRun {
    /// What it was asked to do.
    pub spec: v1::RunSpec,
    /// What it came to.
    pub verdict: v1::Verdict,
    /// Whether a test failed in it, whatever it came to.
    pub has_failed: bool,
    /// Whether one may have failed at some attempt, whatever that came to.
    pub may_be_flaky: bool,
}

/// The runs that speak for a commit, and what is required of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Deciding<Id> {
    /// The run that speaks for it.
    pub run: Id,
    /// Runs that have done what the policy requires and those before have not, if all that is known is good.
    pub others: Vec<Id>,
    /// All the other runs in which a test may have failed, the newest first: what passed in those above with the very
    /// same key is flaky.
    pub failed: Vec<Id>,
    /// All that any run of the commit says is required; `None` if none says.
    pub policy: Option<Policy>,
}

/// Finds the runs that speak for the commit that all of them are of.
///
/// A run takes back what an earlier one said only if it did again all that the earlier one did: a later run
/// of fewer jobs, or of chosen tests, does not, nor does one that looked up what the earlier one ran. One
/// that came to UNKNOWN says nothing: it takes nothing back, and counts only for what no other run has an
/// answer to; but if a test failed in it before it was lost, only a later answer will do. Of the runs that
/// stand, the one that came to the worst counts; of several, the one that did all that most of the others
/// did; of those, the newest.
///
/// What any of them says to be required is: a run with a looser policy loosens nothing.
#[derive(Clone, Debug)]
pub struct DecisiveRun<Id> {
    /// The newest first.
    standing: Vec<(Id, EndedRun)>,
    /// Those in which a test may have failed, the newest first.
    failed: Vec<Id>,
    policy: Option<Policy>,
}

impl<Id> Default for DecisiveRun<Id> {
    fn default() -> Self {
        Self {
            standing: Vec::new(),
            failed: Vec::new(),
            policy: None,
        }
    }
}

impl<Id: Clone + PartialEq> DecisiveRun<Id> {
    /// Takes in a run that is older than all before.
    pub fn add_older(&mut self, id: Id, run: EndedRun) {
        if let Some(policy) = Policy::of_run(&run.spec) {
            self.policy = Some(match self.policy.take() {
                Some(before) => before.and(policy),
                None => policy,
            });
        }
        if run.has_failed || run.may_be_flaky {
            self.failed.push(id.clone());
        }
        let is_answer = run.is_answer();
        let wants_answer = is_answer || run.has_failed;
        let mut standing = self.standing.iter().map(|(_, other)| other);
        let is_covered =
            standing.any(|it| (it.is_answer() || !wants_answer) && covers(&it.spec, &run.spec));
        if is_covered {
            return;
        }
        // What is no worse than this one, and less, adds nothing to it.
        let adds = |it: &EndedRun| match it.is_answer() {
            true => badness(it.verdict) > badness(run.verdict),
            false => it.has_failed,
        };
        if is_answer {
            self.standing
                .retain(|(_, it)| adds(it) || !covers(&run.spec, &it.spec));
        }
        self.standing.push((id, run));
    }

    /// How many runs would each be decisive without the others.
    #[must_use]
    pub const fn standing(&self) -> usize {
        self.standing.len()
    }

    /// The runs that speak for the commit, if there are any.
    #[must_use]
    pub fn finish(mut self) -> Option<Deciding<Id>> {
        let (run, speaker) = self.standing.remove(self.speaker()?);
        let mut others = Vec::new();
        // Of what is not good, one run says enough.
        if let (Some(policy), 0) = (&self.policy, badness(speaker.verdict)) {
            let mut open: HashSet<_> = policy.required_jobs.iter().collect();
            close(&mut open, &speaker.spec);
            for (id, other) in self.standing {
                if close(&mut open, &other.spec) {
                    others.push(id);
                }
            }
        }
        let mut failed = self.failed;
        failed.retain(|id| *id != run && !others.contains(id));
        Some(Deciding {
            run,
            others,
            failed,
            policy: self.policy,
        })
    }

    /// The place of the run that counts among those that stand.
    fn speaker(&self) -> Option<usize> {
        let covered = |run: &EndedRun| {
            let others = self.standing.iter();
            others
                .filter(|(_, other)| covers(&run.spec, &other.spec))
                .count()
        };
        let ranks = self.standing.iter().enumerate();
        let ranks = ranks.map(|(place, (_, run))| (place, (badness(run.verdict), covered(run))));
        let ranks: Vec<_> = ranks.collect();
        // The last of equals is what `max_by_key` takes: the newest, from the oldest on.
        let newest_last = ranks.into_iter().rev();
        let speaker = newest_last.max_by_key(|(_, rank)| *rank);
        speaker.map(|(place, _)| place)
    }
}

/// Strikes out the jobs that were asked for whole; whether there were any.
fn close(open: &mut HashSet<&RequiredJob>, spec: &v1::RunSpec) -> bool {
    let before = open.len();
    let whole = spec.jobs.iter().filter(|job| is_whole(spec, job));
    let whole: HashSet<_> = whole.map(|job| job.name.as_str()).collect();
    open.retain(|required| {
        required.pipeline != spec.pipeline || !whole.contains(required.job.as_str())
    });
    open.len() < before
}

impl EndedRun {
    const fn is_answer(&self) -> bool {
        matches!(
            self.verdict,
            v1::Verdict::Releasable | v1::Verdict::NotReleasable
        )
    }
}

/// Whether a run did all that another did: each of its jobs, of the same file, with all of its tests.
fn covers(this: &v1::RunSpec, other: &v1::RunSpec) -> bool {
    let mine: HashMap<_, _> = this.jobs.iter().map(|job| (&job.name, job)).collect();
    let again = |job: &v1::Job| {
        let mine = mine.get(&job.name);
        mine.is_some_and(|mine| does_all_of(mine, job))
    };
    let is_same_file = this.pipeline == other.pipeline;
    let is_as_thorough = this.skip_cache_lookup || !other.skip_cache_lookup;
    is_same_file && is_as_thorough && other.jobs.iter().all(again)
}

/// Whether a job is the same, with the same files, and has all of its tests.
fn does_all_of(this: &v1::Job, other: &v1::Job) -> bool {
    let selects = match (&this.kind, &other.kind) {
        (Some(Kind::Suite(this)), Some(Kind::Suite(other))) => {
            (this.include_ignored || !other.include_ignored)
                && selects_all_of(&this.filters, &other.filters)
                && selects_all_of(&this.only_tests, &other.only_tests)
        }
        _ => true,
    };
    selects && without_selection(this) == without_selection(other)
}

fn without_selection(job: &v1::Job) -> v1::Job {
    let mut job = job.clone();
    if let Some(Kind::Suite(suite)) = &mut job.kind {
        suite.include_ignored = false;
        suite.filters.clear();
        suite.only_tests.clear();
    }
    job
}

fn selects_all_of(this: &[String], other: &[String]) -> bool {
    let mine: HashSet<_> = this.iter().collect();
    this.is_empty() || !other.is_empty() && other.iter().all(|it| mine.contains(it))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::tests::own;

    fn suite(name: &str, filters: &[&str]) -> v1::Job {
        v1::Job {
            name: name.to_owned(),
            kind: Some(Kind::Suite(v1::Suite {
                filters: filters.iter().map(ToString::to_string).collect(),
                ..v1::Suite::default()
            })),
            ..v1::Job::default()
        }
    }

    fn v1_digest() -> regatta_wire::reapi::Digest {
        regatta_model::Digest::of(b"files").into()
    }

    fn ended(verdict: v1::Verdict, jobs: Vec<v1::Job>) -> EndedRun {
        let spec = v1::RunSpec {
            jobs,
            ..v1::RunSpec::default()
        };
        EndedRun {
            spec,
            verdict,
            has_failed: verdict == Bad,
            may_be_flaky: false,
        }
    }

    /// The index of the run that speaks; they come newest first.
    fn decisive_run(runs: &[EndedRun]) -> Option<usize> {
        let mut decisive = DecisiveRun::default();
        for (index, run) in runs.iter().enumerate() {
            decisive.add_older(index, run.clone());
        }
        decisive.finish().map(|deciding| deciding.run)
    }

    use v1::Verdict::{NotReleasable as Bad, Releasable as Good, Unknown};

    #[test]
    fn a_smaller_run_takes_nothing_back() {
        let full = || vec![suite("a", &[]), suite("b", &[])];
        let failed = ended(Bad, full());
        let part = ended(Good, vec![suite("a", &[])]);
        let chosen = ended(Good, vec![suite("a", &["x"]), suite("b", &[])]);
        for smaller in [part.clone(), chosen.clone()] {
            assert_eq!(decisive_run(&[smaller, failed.clone()]), Some(1));
        }
        // Together they did not do it all, and all of it has passed since.
        let again = ended(Good, full());
        let runs = [part, again, chosen, failed];
        assert_eq!(decisive_run(&runs), Some(1), "it says more than the newest");
        assert_eq!(decisive_run(&[]), None);
    }

    #[test]
    fn the_newest_of_equals_counts_whatever_it_came_to() {
        let run = |verdict| ended(verdict, vec![suite("a", &["x"])]);
        assert_eq!(decisive_run(&[run(Good), run(Bad)]), Some(0));
        let more = ended(Good, vec![suite("a", &["x", "y"])]);
        assert_eq!(decisive_run(&[more.clone(), run(Bad)]), Some(0));
        assert_eq!(decisive_run(&[run(Good), more]), Some(1));
    }

    #[test]
    fn a_run_without_an_answer_neither_counts_nor_takes_back_what_is_answered() {
        let full = |verdict| ended(verdict, vec![suite("a", &[]), suite("b", &[])]);
        let part = |verdict| ended(verdict, vec![suite("a", &[])]);
        assert_eq!(decisive_run(&[full(Unknown), full(Bad)]), Some(1));
        assert_eq!(decisive_run(&[full(Unknown), full(Good)]), Some(1));
        assert_eq!(decisive_run(&[part(Unknown), full(Good)]), Some(1));
        assert_eq!(decisive_run(&[part(Good), full(Unknown)]), Some(1));
        assert_eq!(decisive_run(&[full(Unknown), part(Good)]), Some(0));
    }

    #[test]
    fn a_failure_in_a_run_that_was_lost_is_not_passed_over() {
        let full = |verdict| ended(verdict, vec![suite("a", &[])]);
        let lost = EndedRun {
            has_failed: true,
            ..full(Unknown)
        };
        assert_eq!(decisive_run(&[lost.clone(), full(Good)]), Some(0));
        assert_eq!(decisive_run(&[full(Good), lost.clone()]), Some(0));
        // Another one without an answer does not hide it.
        assert_eq!(decisive_run(&[full(Unknown), lost, full(Good)]), Some(1));
    }

    #[test]
    fn what_was_looked_up_takes_back_nothing_that_ran() {
        let full = |verdict| ended(verdict, vec![suite("a", &[])]);
        let mut executed = full(Bad);
        executed.spec.skip_cache_lookup = true;
        assert_eq!(decisive_run(&[full(Good), executed.clone()]), Some(1));
        executed.verdict = Good;
        assert_eq!(decisive_run(&[executed, full(Bad)]), Some(0));
    }

    #[test]
    fn the_runs_that_stand_are_few() {
        let mut decisive = DecisiveRun::default();
        for number in 0..50 {
            let one = ended(Good, vec![suite("a", &[&number.to_string()])]);
            decisive.add_older(number, one);
        }
        decisive.add_older(50, ended(Good, vec![suite("a", &[])]));
        assert_eq!(decisive.standing(), 1);
        assert_eq!(decisive.finish().map(|deciding| deciding.run), Some(50));
    }

    #[test]
    fn what_the_command_line_says_makes_another_job() {
        let plain = suite("a", &[]);
        let mut other_image = plain.clone();
        other_image.platform.get_or_insert_default();
        let mut other_environment = plain.clone();
        other_environment.environment.push(Default::default());
        let mut one_test = plain.clone();
        if let Some(Kind::Suite(suite)) = &mut one_test.kind {
            suite.only_tests.push("one".to_owned());
        }
        let failed = ended(Bad, vec![plain.clone()]);
        let again = ended(Good, vec![one_test]);
        assert_eq!(decisive_run(&[again, failed]), Some(1));
        let mut ignored_too = plain.clone();
        if let Some(Kind::Suite(suite)) = &mut ignored_too.kind {
            suite.include_ignored = true;
        }
        let other_files = v1::Job {
            input_root: Some(v1_digest()),
            ..plain.clone()
        };
        let networked = v1::Job {
            network: true,
            ..plain.clone()
        };
        let mut other_list = plain.clone();
        if let Some(Kind::Suite(suite)) = &mut other_list.kind {
            suite.discover_arguments.push("quick".to_owned());
        }
        for other in [
            other_image,
            other_environment,
            other_files,
            other_list,
            networked,
            ignored_too,
        ] {
            let failed = ended(Bad, vec![other]);
            let passed = ended(Good, vec![plain.clone()]);
            assert_eq!(decisive_run(&[passed, failed]), Some(1));
        }
    }

    #[test]
    fn what_one_run_has_not_done_others_may_have() {
        let requires = |run: EndedRun, jobs: &[&str]| {
            let mut run = run;
            let policy = run.spec.policy.get_or_insert_default();
            policy.required_jobs = jobs.iter().map(ToString::to_string).collect();
            run
        };
        let good = |name: &str| ended(Good, vec![suite(name, &[])]);
        let mut chosen = good("c");
        chosen.spec.chosen_tests = true;
        let runs = [
            good("a"),
            good("b"),
            requires(good("d"), &["a", "b"]),
            chosen,
        ];
        let deciding = |runs: &[EndedRun]| {
            let mut decisive = DecisiveRun::default();
            for (index, run) in runs.iter().enumerate() {
                decisive.add_older(index, run.clone());
            }
            decisive.finish().expect("there are runs")
        };
        let found = deciding(&runs);
        assert_eq!((found.run, &found.others[..]), (0, &[1][..]));
        // Chosen tests answer for nothing, and what a covered run says is required all the same.
        let stricter = requires(good("a"), &["c"]);
        let found = deciding(&[&runs[..], &[stricter]].concat());
        let required = found.policy.expect("there is one").required_jobs;
        assert_eq!(required, ["a", "b", "c"].map(own).into());
        assert_eq!((found.run, &found.others[..]), (0, &[1][..]));
        // Nor does another file's job of the same name, which takes nothing back either.
        let elsewhere = |mut run: EndedRun| {
            run.spec.pipeline = "sub/regatta.toml".to_owned();
            run
        };
        let of_d = requires(good("d"), &["a"]);
        let found = deciding(&[elsewhere(good("a")), of_d.clone(), good("a")]);
        assert_eq!((found.run, found.others), (0, vec![2]));
        let found = deciding(&[elsewhere(requires(good("a"), &["a"])), of_d]);
        let required = found.policy.expect("there is one");
        let required: Vec<_> = required
            .required_jobs
            .iter()
            .map(|it| it.to_string())
            .collect();
        assert_eq!(required, ["a", "a of sub/regatta.toml"]);
        assert_eq!((found.run, found.others), (0, Vec::new()));
        let bad = ended(Bad, vec![suite("e", &[])]);
        let found = deciding(&[&runs[..], &[bad]].concat());
        assert_eq!((found.run, found.others), (4, Vec::new()));
    }

    #[test]
    fn runs_that_are_taken_back_are_known_by_their_failures() {
        let run = |verdict, may_be_flaky| EndedRun {
            may_be_flaky,
            ..ended(verdict, vec![suite("a", &[])])
        };
        let runs = [
            run(Good, true),
            run(Bad, false),
            run(Good, false),
            run(Unknown, true),
        ];
        let mut decisive = DecisiveRun::default();
        for (index, run) in runs.into_iter().enumerate() {
            decisive.add_older(index, run);
        }
        let found = decisive.finish().expect("there are runs");
        assert_eq!((found.run, found.failed), (0, vec![1, 3]));
    }

    fn runs() -> impl Strategy<Value = Vec<EndedRun>> {
        let filters = prop::sample::subsequence(vec!["x"], 0..=1);
        let job = (prop::sample::select(vec!["a", "b"]), filters);
        let job = job.prop_map(|(name, filters)| suite(name, &filters));
        let verdict = prop::sample::select(vec![Good, Bad, Unknown]);
        let run = (verdict, any::<bool>(), prop::collection::vec(job, 1..3));
        let run = run.prop_map(|(verdict, has_failed, jobs)| EndedRun {
            has_failed: verdict == Bad || verdict == Unknown && has_failed,
            ..ended(verdict, jobs)
        });
        prop::collection::vec(run, 1..8)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        /// However many pass later, a failure stands until one run had an answer to all of it; and what no
        /// run has an answer to keeps a commit from being RELEASABLE.
        #[test]
        fn a_failure_stands_until_it_is_taken_back(runs in runs()) {
            let decisive = decisive_run(&runs).expect("there are runs");
            let is_redone = |index: usize, others: &[EndedRun]| {
                let mut others = others.iter().filter(|it| it.verdict != Unknown);
                others.any(|it| covers(&it.spec, &runs[index].spec))
            };
            let fails = |index: usize| runs[index].verdict == Bad && !is_redone(index, &runs[..index]);
            let answers = |index: usize| match runs[index].has_failed {
                true => &runs[..index],
                false => &runs[..],
            };
            let open =
                |index: usize| runs[index].verdict == Unknown && !is_redone(index, answers(index));
            let expected = match (0..runs.len()).any(fails) {
                true => Bad,
                false if (0..runs.len()).any(open) => Unknown,
                false => Good,
            };
            prop_assert_eq!(runs[decisive].verdict, expected);
        }
    }
}
