//! Which of a commit's runs speaks for it.

use regatta_wire::v1;
use regatta_wire::v1::job::Kind;

/// A run that has ended, of exactly a commit's files.
#[derive(Clone, PartialEq, Debug)]
pub struct EndedRun {
    /// What it was asked to do.
    pub spec: v1::RunSpec,
    /// What it came to.
    pub verdict: v1::Verdict,
}

/// The run, by its index, that speaks for the commit that all of them are of; they come newest first.
///
/// A run takes back what an earlier one said only if it did again all that the earlier one did: a later run
/// of fewer jobs, or of chosen tests, does not. Of the runs that nothing took back, the one that came to
/// the worst counts; of several, the one that did most; of those, the newest.
#[must_use]
pub fn decisive_run(runs: &[EndedRun]) -> Option<usize> {
    let mut standing: Vec<usize> = Vec::new();
    for (index, run) in runs.iter().enumerate() {
        let mut later = standing.iter().filter_map(|later| runs.get(*later));
        if !later.any(|later| covers(&later.spec, &run.spec)) {
            standing.push(index);
        }
    }
    let covered = |run: &EndedRun| {
        let standing = standing.iter().filter_map(|index| runs.get(*index));
        standing
            .filter(|other| covers(&run.spec, &other.spec))
            .count()
    };
    let rank = |index: usize| {
        let run = runs.get(index);
        run.map(|run| (badness(run.verdict), covered(run)))
    };
    // The last of equals is what `max_by_key` takes: the newest, from the oldest on.
    let oldest_first = standing.iter().rev().copied();
    oldest_first.max_by_key(|index| rank(*index))
}

const fn badness(verdict: v1::Verdict) -> u8 {
    match verdict {
        v1::Verdict::Releasable => 0,
        v1::Verdict::Unspecified | v1::Verdict::Unknown => 1,
        v1::Verdict::NotReleasable => 2,
    }
}

/// Whether a run did all that another did: each of its jobs, with all of its tests.
fn covers(this: &v1::RunSpec, other: &v1::RunSpec) -> bool {
    let again = |job: &v1::Job| this.jobs.iter().any(|mine| does_all_of(mine, job));
    other.jobs.iter().all(again)
}

/// The files of a job are the commit's, or are made of them; what is not in a commit must be the same.
fn does_all_of(this: &v1::Job, other: &v1::Job) -> bool {
    let work = match (&this.kind, &other.kind) {
        (Some(Kind::Suite(this)), Some(Kind::Suite(other))) => {
            this.adapter == other.adapter
                && this.run_arguments == other.run_arguments
                && (this.include_ignored || !other.include_ignored)
                && selects_all_of(&this.filters, &other.filters)
                && selects_all_of(&this.only_tests, &other.only_tests)
        }
        (Some(Kind::Build(this)), Some(Kind::Build(other))) => this.arguments == other.arguments,
        (None, None) => true,
        _ => false,
    };
    work && this.name == other.name
        && this.environment == other.environment
        && this.platform == other.platform
}

fn selects_all_of(this: &[String], other: &[String]) -> bool {
    this.is_empty() || !other.is_empty() && other.iter().all(|filter| this.contains(filter))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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

    fn ended(verdict: v1::Verdict, jobs: Vec<v1::Job>) -> EndedRun {
        let spec = v1::RunSpec {
            jobs,
            ..v1::RunSpec::default()
        };
        EndedRun { spec, verdict }
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
        assert_eq!(decisive_run(&[run(Unknown), run(Good)]), Some(0));
        let more = ended(Good, vec![suite("a", &["x", "y"])]);
        assert_eq!(decisive_run(&[more.clone(), run(Bad)]), Some(0));
        assert_eq!(decisive_run(&[run(Good), more]), Some(1));
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
        for other in [other_image, other_environment, ignored_too] {
            let failed = ended(Bad, vec![other]);
            let passed = ended(Good, vec![plain.clone()]);
            assert_eq!(decisive_run(&[passed, failed]), Some(1));
        }
    }

    fn runs() -> impl Strategy<Value = Vec<EndedRun>> {
        let filters = prop::sample::subsequence(vec!["x", "y"], 0..=2);
        let job = (prop::sample::select(vec!["a", "b", "c"]), filters);
        let job = job.prop_map(|(name, filters)| suite(name, &filters));
        let verdict = prop::sample::select(vec![Good, Bad, Unknown]);
        let run = (verdict, prop::collection::vec(job, 1..4));
        prop::collection::vec(run.prop_map(|(verdict, jobs)| ended(verdict, jobs)), 1..8)
    }

    proptest! {
        /// However many pass later, a failure stands until all that it did was done again.
        #[test]
        fn a_failure_stands_until_it_is_taken_back(runs in runs()) {
            let decisive = decisive_run(&runs).expect("there are runs");
            let stands = |index: usize| {
                let (later, rest) = runs.split_at(index);
                rest[0].verdict == Bad && !later.iter().any(|it| covers(&it.spec, &rest[0].spec))
            };
            let any_stands = (0..runs.len()).any(stands);
            prop_assert_eq!(runs[decisive].verdict == Bad, any_stands);
        }
    }
}
