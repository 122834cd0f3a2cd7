//! Why a test ran, or did not.

mod parts;

use std::collections::BTreeMap;

use regatta_wire::v1;
use regatta_wire::v1::run_event::Event;

use crate::terminal::visible;

pub(crate) use parts::changed_parts;

/// What a run tells of one test.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Told {
    pub(crate) run: String,
    /// The test's job, as it was asked for.
    pub(crate) job: v1::Job,
    pub(crate) result: v1::TestResult,
    /// Whether nothing was looked up.
    pub(crate) skipped_lookup: bool,
    /// The outputs of other jobs that the test sees: their digests by job and path.
    pub(crate) outputs: BTreeMap<String, String>,
    /// What whoever submitted the run was warned of.
    pub(crate) warnings: Vec<String>,
}

/// Gathers what the events of a run tell of one test.
#[derive(Debug)]
pub(crate) struct Search {
    test: String,
    job: Option<String>,
    spec: v1::RunSpec,
    result: Option<v1::TestResult>,
    outputs: BTreeMap<String, BTreeMap<String, String>>,
    warnings: Vec<String>,
}

impl Search {
    /// Looks for the test of this id; in this job, if one is named.
    pub(crate) fn new(test: &str, job: Option<&str>) -> Self {
        Self {
            test: test.to_owned(),
            job: job.map(str::to_owned),
            spec: v1::RunSpec::default(),
            result: None,
            outputs: BTreeMap::new(),
            warnings: Vec::new(),
        }
    }

    /// Takes the next event.
    pub(crate) fn take(&mut self, event: v1::RunEvent) {
        match event.event {
            Some(Event::RunStarted(started)) => self.spec = started.spec.unwrap_or_default(),
            Some(Event::TestsFinished(finished)) => {
                let wanted = |result: &v1::TestResult| {
                    // As it is, or as it is shown.
                    let is_it = result.test_id == self.test;
                    (is_it || visible(&result.test_id) == self.test)
                        && self.job.as_ref().is_none_or(|job| *job == result.job)
                };
                // The last one counts: it may take the place of another.
                self.result = finished
                    .results
                    .into_iter()
                    .rfind(wanted)
                    .or(self.result.take());
            }
            Some(Event::JobFinished(finished)) => {
                self.outputs
                    .insert(finished.job.clone(), outputs_of(&finished));
            }
            Some(Event::Warning(warning)) => self.warnings.push(warning.message),
            _ => {}
        }
    }

    /// What there was; `None` if the run has no such test.
    pub(crate) fn finish(self, run: &str) -> Option<Told> {
        let result = self.result?;
        let jobs = self.spec.jobs.into_iter();
        let job = jobs.into_iter().find(|job| job.name == result.job)?;
        let seen = job.inputs_from.iter().flat_map(|from| {
            let outputs = self.outputs.get(&from.job).into_iter().flatten();
            let outputs = outputs
                .filter(|(path, _)| from.output_path.is_empty() || from.output_path == **path);
            outputs.map(|(path, digest)| (format!("{}: {path}", from.job), digest.clone()))
        });
        Some(Told {
            run: run.to_owned(),
            outputs: seen.collect(),
            job,
            result,
            skipped_lookup: self.spec.skip_cache_lookup,
            warnings: self.warnings,
        })
    }
}

fn outputs_of(finished: &v1::JobFinished) -> BTreeMap<String, String> {
    let results = finished.result.iter();
    let files = results.clone().flat_map(|result| &result.output_files);
    let files = files.map(|file| (&file.path, file.digest.as_ref()));
    let directories = results.flat_map(|result| &result.output_directories);
    let directories = directories.map(|directory| {
        let root = directory.root_directory_digest.as_ref();
        (&directory.path, directory.tree_digest.as_ref().or(root))
    });
    let all = files.chain(directories);
    all.map(|(path, digest)| {
        let digest = digest.map(|digest| digest.hash.clone());
        (path.clone(), digest.unwrap_or_default())
    })
    .collect()
}

/// Whether a test was executed.
pub(crate) fn was_executed(result: &v1::TestResult) -> bool {
    result.attempts > 0
}

/// The run that one is compared with: the last one before it that says something of the test.
#[derive(Debug)]
pub(crate) struct Before {
    is_skipped_now: bool,
    found: Option<Told>,
    /// The last one that skipped it, in case there is none that did not.
    skipped: Option<Told>,
}

impl Before {
    /// What this run is to be compared with.
    pub(crate) fn of(now: &Told) -> Self {
        Self {
            is_skipped_now: now.result.status() == v1::TestStatus::Skipped,
            found: None,
            skipped: None,
        }
    }

    /// Takes the next earlier run that tells of the test; whether no earlier one is needed.
    pub(crate) fn is_found_with(&mut self, told: Told) -> bool {
        if told.result.key.is_none() {
            return false;
        }
        match told.result.status() {
            v1::TestStatus::NotRun | v1::TestStatus::Unspecified => {}
            v1::TestStatus::Skipped if !self.is_skipped_now => {
                self.skipped.get_or_insert(told);
            }
            v1::TestStatus::Skipped
            | v1::TestStatus::Passed
            | v1::TestStatus::Cached
            | v1::TestStatus::Flaky
            | v1::TestStatus::Failed
            | v1::TestStatus::Quarantined => self.found = Some(told),
        }
        self.found.is_some()
    }

    /// That run, if there is one.
    pub(crate) fn finish(self) -> Option<Told> {
        self.found.or(self.skipped)
    }
}

/// Why a test ran again though its key is that of an earlier run.
pub(crate) fn same_key(now: &Told, before: &Told) -> String {
    let unknown = now.warnings.iter().find(|text| text.contains("nor cached"));
    let skipped = before.result.status() == v1::TestStatus::Skipped;
    let passed = matches!(
        before.result.status(),
        v1::TestStatus::Passed | v1::TestStatus::Cached | v1::TestStatus::Flaky
    );
    let run = &before.run;
    match (now.skipped_lookup, unknown, passed) {
        (true, _, _) => "nothing was looked up (--no-cache)".to_owned(),
        (_, Some(warning), _) => warning.clone(),
        (_, _, false) if skipped && now.result.is_audit => {
            format!("nothing changed since run {run}: its cached skip was looked into")
        }
        (_, _, false) if skipped => format!(
            "nothing it depends on changed since run {run}, in which it was skipped; that is no longer cached"
        ),
        (_, _, false) => format!("nothing it depends on changed, but it did not pass in run {run}"),
        (_, _, true) if now.result.is_audit => {
            format!("nothing changed since run {run}: its cached pass was looked into")
        }
        (_, _, true) => format!(
            "nothing it depends on changed since run {run}, in which it passed; that pass is no longer cached"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(status: v1::TestStatus) -> Told {
        Told {
            run: "r".to_owned(),
            job: v1::Job::default(),
            result: v1::TestResult {
                status: status.into(),
                attempts: 1,
                ..v1::TestResult::default()
            },
            skipped_lookup: false,
            outputs: BTreeMap::new(),
            warnings: Vec::new(),
        }
    }

    #[test]
    fn a_test_that_runs_again_with_its_key_has_a_reason() {
        let passed = told(v1::TestStatus::Passed);
        let failed = told(v1::TestStatus::Failed);
        let anew = Told {
            skipped_lookup: true,
            ..passed.clone()
        };
        assert!(same_key(&anew, &passed).contains("--no-cache"));
        assert!(same_key(&passed, &failed).contains("did not pass in run r"));
        assert!(same_key(&passed, &passed).contains("no longer cached"));
    }

    #[test]
    fn a_skipped_test_is_compared_with_the_last_run_that_has_it() {
        use v1::TestStatus::{Failed, NotRun, Passed, Skipped};
        let run = |status: v1::TestStatus, name: &str| {
            let mut told = told(status);
            told.run = name.to_owned();
            told.result.key = (name != "keyless").then(Default::default);
            told
        };
        let compared = |now: v1::TestStatus, earlier: &[(v1::TestStatus, &str)]| {
            let mut before = Before::of(&told(now));
            let mut earlier = earlier.iter();
            let _is_found = earlier.any(|(status, name)| before.is_found_with(run(*status, name)));
            before.finish().map(|told| told.run)
        };
        let earlier = [
            (Skipped, "keyless"),
            (NotRun, "stopped"),
            (Skipped, "skipped"),
            (Failed, "failed"),
            (Passed, "passed"),
        ];
        assert_eq!(compared(Skipped, &earlier).as_deref(), Some("skipped"));
        assert_eq!(compared(Passed, &earlier).as_deref(), Some("failed"));
        assert_eq!(compared(Passed, &earlier[..3]).as_deref(), Some("skipped"));
        assert_eq!(compared(Skipped, &earlier[..2]), None);

        let skipped = told(Skipped);
        assert!(same_key(&skipped, &skipped).contains("was skipped"));
        let mut audited = told(Passed);
        audited.result.is_audit = true;
        assert!(same_key(&audited, &skipped).contains("cached skip was looked into"));
        let anew = Told {
            skipped_lookup: true,
            ..skipped.clone()
        };
        assert!(same_key(&anew, &skipped).contains("--no-cache"));
    }

    #[test]
    fn the_last_result_of_the_test_counts() {
        let event = |event| v1::RunEvent {
            event: Some(event),
            ..v1::RunEvent::default()
        };
        let job = v1::Job {
            name: "unit".to_owned(),
            inputs_from: vec![v1::InputFrom {
                job: "make".to_owned(),
                ..v1::InputFrom::default()
            }],
            ..v1::Job::default()
        };
        let spec = v1::RunSpec {
            jobs: vec![job],
            ..v1::RunSpec::default()
        };
        let result = |id: &str, status: v1::TestStatus| v1::TestResult {
            job: "unit".to_owned(),
            test_id: id.to_owned(),
            status: status.into(),
            ..v1::TestResult::default()
        };
        let finished = |results| Event::TestsFinished(v1::TestsFinished { results });
        let file = regatta_wire::reapi::OutputFile {
            path: "out".to_owned(),
            ..Default::default()
        };
        let made = v1::JobFinished {
            job: "make".to_owned(),
            result: Some(regatta_wire::reapi::ActionResult {
                output_files: vec![file],
                ..Default::default()
            }),
            ..v1::JobFinished::default()
        };
        let mut search = Search::new("a", Some("unit"));
        for next in [
            Event::RunStarted(v1::RunStarted { spec: Some(spec) }),
            Event::JobFinished(made),
            finished(vec![
                result("a", v1::TestStatus::Cached),
                result("b", v1::TestStatus::Failed),
            ]),
            finished(vec![result("a", v1::TestStatus::Failed)]),
            finished(vec![result("c", v1::TestStatus::Passed)]),
        ] {
            search.take(event(next));
        }
        let told = search.finish("r").expect("is there");
        assert_eq!(told.result.status(), v1::TestStatus::Failed);
        assert_eq!(told.outputs.keys().collect::<Vec<_>>(), ["make: out"]);
        assert!(Search::new("a", None).finish("r").is_none());
    }
}
