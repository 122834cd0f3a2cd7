//! What the events of a run are evidence of.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use prost::Message as _;
use regatta_model::{Digest, DigestHasher};
use regatta_wire::v1;
use regatta_wire::v1::run_event::Event;
use serde::{Deserialize, Serialize};

/// Why a run says nothing: its events lack something, or contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IncompleteRunError {
    /// It goes on, or its first events are not known.
    #[error("the run has no {lacks}: it has not ended, or its events are not complete")]
    Lacks {
        /// What is not there.
        lacks: &'static str,
    },
    /// What its tests are said to be is not what is said of each.
    #[error("the run contradicts itself: {detail}")]
    Contradiction {
        /// In what.
        detail: String,
    },
}

/// Tests by how they ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// All of them.
    pub planned: u32,
    /// Ran and passed.
    pub passed: u32,
    /// Failed, then passed.
    pub flaky: u32,
    /// Did not pass.
    pub failed: u32,
    /// Were known to pass.
    pub cached: u32,
    /// Their suite says not to run them.
    pub skipped: u32,
    /// Were not reached.
    pub not_run: u32,
}

impl Counts {
    /// Whether every planned test is accounted for.
    #[must_use]
    pub fn add_up(&self) -> bool {
        let ended = [
            self.passed,
            self.flaky,
            self.failed,
            self.cached,
            self.skipped,
            self.not_run,
        ];
        ended.into_iter().map(u64::from).sum::<u64>() == u64::from(self.planned)
    }

    fn of(status: v1::TestStatus) -> Self {
        let mut counts = Self {
            planned: 1,
            ..Self::default()
        };
        *match status {
            v1::TestStatus::Passed => &mut counts.passed,
            v1::TestStatus::Flaky => &mut counts.flaky,
            v1::TestStatus::Cached => &mut counts.cached,
            v1::TestStatus::Skipped => &mut counts.skipped,
            v1::TestStatus::NotRun => &mut counts.not_run,
            v1::TestStatus::Failed | v1::TestStatus::Unspecified => &mut counts.failed,
        } = 1;
        counts
    }

    fn plus(self, other: Self) -> Self {
        Self {
            planned: self.planned.saturating_add(other.planned),
            passed: self.passed.saturating_add(other.passed),
            flaky: self.flaky.saturating_add(other.flaky),
            failed: self.failed.saturating_add(other.failed),
            cached: self.cached.saturating_add(other.cached),
            skipped: self.skipped.saturating_add(other.skipped),
            not_run: self.not_run.saturating_add(other.not_run),
        }
    }
}

impl From<v1::Counts> for Counts {
    fn from(counts: v1::Counts) -> Self {
        Self {
            planned: counts.planned,
            passed: counts.passed,
            flaky: counts.flaky,
            failed: counts.failed,
            cached: counts.cached,
            skipped: counts.skipped,
            not_run: counts.not_run,
        }
    }
}

/// How a job ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JobEvidence {
    /// How.
    pub status: v1::JobStatus,
    /// Whether a build's result was known.
    pub cached: bool,
    /// Whether a build failed before it passed.
    pub flaky: bool,
    /// What it made, by path.
    pub artefacts: BTreeMap<String, Digest>,
}

/// How the tests of a suite ended.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SuiteEvidence {
    /// The status and the key of each test.
    pub tests: BTreeMap<String, (v1::TestStatus, Option<Digest>)>,
}

impl SuiteEvidence {
    /// The tests that ended in one of these ways, in order.
    pub fn that_are<'a>(
        &'a self,
        wanted: &'a [v1::TestStatus],
    ) -> impl Iterator<Item = &'a str> + 'a {
        let tests = self.tests.iter();
        let tests = tests.filter(move |(_, (status, _))| wanted.contains(status));
        tests.map(|(id, _)| id.as_str())
    }

    fn counts(&self) -> Counts {
        let counts = self.tests.values().map(|(status, _)| Counts::of(*status));
        counts.fold(Counts::default(), Counts::plus)
    }
}

/// All that the events of a run say of its commit.
#[derive(Clone, PartialEq, Debug)]
pub struct Evidence {
    /// What was asked for.
    pub spec: v1::RunSpec,
    /// How it ended.
    pub end: v1::RunFinished,
    /// Every job by name.
    pub jobs: BTreeMap<String, JobEvidence>,
    /// Every suite by its job's name.
    pub suites: BTreeMap<String, SuiteEvidence>,
    /// Images that something ran in, by content.
    pub images: BTreeSet<String>,
    /// Agents that something ran on.
    pub agents: BTreeSet<String>,
    /// How often machines lost something.
    pub infrastructure_retries: u64,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
}

impl Evidence {
    /// How the tests ended.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.end.counts.unwrap_or_default().into()
    }

    /// How a job ended; unknown if that was not told.
    #[must_use]
    pub fn status_of(&self, job: &str) -> v1::JobStatus {
        let ended = self.jobs.get(job);
        ended.map_or(v1::JobStatus::Unknown, |job| job.status)
    }

    /// The digest of what was required: the jobs as they were asked for.
    #[must_use]
    pub fn policy(&self) -> Digest {
        let required = v1::RunSpec {
            jobs: self.spec.jobs.clone(),
            ..v1::RunSpec::default()
        };
        Digest::of(&required.encode_to_vec())
    }

    /// The digest of what was planned: every test with its key.
    #[must_use]
    pub fn plan(&self) -> Digest {
        let mut lines = Lines::new();
        for (job, suite) in &self.suites {
            for (test, (_, key)) in &suite.tests {
                let key = key.map(|key| key.to_string()).unwrap_or_default();
                lines.add(&[job, test, &key]);
            }
        }
        lines.digest()
    }

    /// The digest of the files that jobs were given: each job's input root.
    #[must_use]
    pub fn tree(&self) -> Digest {
        let mut lines = Lines::new();
        let roots: BTreeMap<_, _> = self.spec.jobs.iter().map(|job| (&job.name, job)).collect();
        for (name, job) in roots {
            let root = job.input_root.clone().unwrap_or_default();
            lines.add(&[name, &root.hash, &root.size_bytes.to_string()]);
        }
        lines.digest()
    }

    /// What was said at the end is borne out by what was said before.
    fn check(&self) -> Result<(), IncompleteRunError> {
        let contradiction = |detail: String| Err(IncompleteRunError::Contradiction { detail });
        let counts = self.counts();
        let told = self.suites.values().map(SuiteEvidence::counts);
        let mut told = told.fold(Counts::default(), Counts::plus);
        // A run that lost its coordinator did not come to tell all of its tests.
        let untold = counts.not_run.saturating_sub(told.not_run);
        told.not_run += untold;
        told.planned = told.planned.saturating_add(untold);
        if counts != told || !counts.add_up() {
            return contradiction(format!("it counts {counts:?}, its tests are {told:?}"));
        }
        let passed = |job: &v1::Job| self.status_of(&job.name) == v1::JobStatus::Passed;
        let all_passed = self.spec.jobs.iter().all(passed);
        let is_good = all_passed && counts.failed == 0 && counts.not_run == 0;
        if self.end.verdict() == v1::Verdict::Releasable && !is_good {
            return contradiction("it is RELEASABLE, and not all of it has passed".to_owned());
        }
        Ok(())
    }
}

/// Text that cannot be read in two ways: each word with its length.
struct Lines(DigestHasher);

impl Lines {
    fn new() -> Self {
        Self(DigestHasher::new())
    }

    fn add(&mut self, words: &[&str]) {
        for word in words {
            self.0.update(&(word.len() as u64).to_le_bytes());
            self.0.update(word.as_bytes());
        }
    }

    fn digest(self) -> Digest {
        self.0.finish()
    }
}

/// What the events so far have said.
#[derive(Debug, Default)]
pub struct EvidenceBuilder {
    spec: Option<v1::RunSpec>,
    end: Option<v1::RunFinished>,
    jobs: BTreeMap<String, JobEvidence>,
    suites: BTreeMap<String, SuiteEvidence>,
    images: BTreeSet<String>,
    agents: BTreeSet<String>,
    infrastructure_retries: u64,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
}

impl EvidenceBuilder {
    /// Takes in the next event.
    pub fn take(&mut self, event: &v1::RunEvent) {
        let time = event.time.as_ref().and_then(time_of);
        match &event.event {
            Some(Event::RunStarted(started)) => {
                self.spec.clone_from(&started.spec);
                self.started_at = time;
            }
            Some(Event::TestsFinished(finished)) => {
                finished.results.iter().for_each(|result| self.test(result));
            }
            Some(Event::TestRetried(retried)) => {
                let place = retried.result.as_ref().and_then(|it| it.r#where.as_ref());
                self.place(place);
            }
            Some(Event::JobFinished(finished)) => self.job(finished),
            Some(Event::InfrastructureRetry(_)) => self.infrastructure_retries += 1,
            Some(Event::RunFinished(finished)) => {
                self.end = Some(finished.clone());
                self.finished_at = time;
            }
            Some(
                Event::JobStarted(_)
                | Event::SuitePlanned(_)
                | Event::BuildRetried(_)
                | Event::JobOutput(_)
                | Event::Warning(_)
                | Event::TestSlow(_),
            )
            | None => {}
        }
    }

    fn test(&mut self, result: &v1::TestResult) {
        self.place(result.r#where.as_ref());
        let key = result.key.as_ref().and_then(|key| key.try_into().ok());
        let suite = self.suites.entry(result.job.clone()).or_default();
        let test = (result.status(), key);
        suite.tests.insert(result.test_id.clone(), test);
    }

    fn job(&mut self, finished: &v1::JobFinished) {
        self.place(finished.r#where.as_ref());
        let result = finished.result.iter();
        let files = result.clone().flat_map(|result| &result.output_files);
        let files = files.map(|file| (&file.path, file.digest.as_ref()));
        let directories = result.flat_map(|result| &result.output_directories);
        let directories = directories.map(|directory| {
            let root = directory.root_directory_digest.as_ref();
            (&directory.path, directory.tree_digest.as_ref().or(root))
        });
        let artefact = |(path, digest): (&String, Option<_>)| {
            Some((path.clone(), Digest::try_from(digest?).ok()?))
        };
        let job = JobEvidence {
            status: finished.status(),
            cached: finished.cached,
            flaky: finished.status() == v1::JobStatus::Passed && finished.attempts > 1,
            artefacts: files.chain(directories).filter_map(artefact).collect(),
        };
        self.jobs.insert(finished.job.clone(), job);
    }

    fn place(&mut self, place: Option<&v1::Provenance>) {
        if let Some(place) = place {
            let known = |text: &&String| !text.is_empty();
            self.agents
                .extend(Some(&place.agent_id).filter(known).cloned());
            self.images
                .extend(Some(&place.image_id).filter(known).cloned());
        }
    }

    /// What all events of a run say together.
    ///
    /// # Errors
    /// [`IncompleteRunError`].
    pub fn finish(self) -> Result<Evidence, IncompleteRunError> {
        let lacks = |lacks| IncompleteRunError::Lacks { lacks };
        let evidence = Evidence {
            spec: self.spec.ok_or_else(|| lacks("beginning"))?,
            end: self.end.ok_or_else(|| lacks("end"))?,
            jobs: self.jobs,
            suites: self.suites,
            images: self.images,
            agents: self.agents,
            infrastructure_retries: self.infrastructure_retries,
            started_at: self
                .started_at
                .ok_or_else(|| lacks("time of its beginning"))?,
            finished_at: self.finished_at.ok_or_else(|| lacks("time of its end"))?,
        };
        evidence.check()?;
        Ok(evidence)
    }
}

fn time_of(time: &prost_types::Timestamp) -> Option<Timestamp> {
    Timestamp::new(time.seconds, time.nanos).ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn event(seconds: i64, event: Event) -> v1::RunEvent {
        v1::RunEvent {
            sequence: 0,
            time: Some(prost_types::Timestamp { seconds, nanos: 0 }),
            event: Some(event),
        }
    }

    fn test(id: &str, status: v1::TestStatus) -> v1::TestResult {
        v1::TestResult {
            job: "check".to_owned(),
            test_id: id.to_owned(),
            status: status.into(),
            key: Some(Digest::of(id.as_bytes()).into()),
            r#where: Some(v1::Provenance {
                agent_id: "one".to_owned(),
                slot: 0,
                image_id: "sha256:1".to_owned(),
            }),
            ..v1::TestResult::default()
        }
    }

    fn job(name: &str) -> v1::JobFinished {
        v1::JobFinished {
            job: name.to_owned(),
            status: v1::JobStatus::Passed.into(),
            ..v1::JobFinished::default()
        }
    }

    /// A run of a build and of a suite with tests that end like this.
    pub(crate) fn run(tests: &[(&str, v1::TestStatus)], verdict: v1::Verdict) -> Vec<v1::RunEvent> {
        let named = |name: &str| v1::Job {
            name: name.to_owned(),
            input_root: Some(Digest::of(name.as_bytes()).into()),
            ..v1::Job::default()
        };
        let spec = v1::RunSpec {
            commit: "0123456789012345678901234567890123456789".to_owned(),
            branch: "main".to_owned(),
            jobs: vec![named("make"), named("check")],
            ..v1::RunSpec::default()
        };
        let mut make = job("make");
        let file = regatta_wire::reapi::OutputFile {
            path: "out/app".to_owned(),
            digest: Some(Digest::of(b"application").into()),
            ..Default::default()
        };
        make.result.get_or_insert_default().output_files.push(file);
        let counts = tests.iter().map(|(_, status)| Counts::of(*status));
        let counts = counts.fold(Counts::default(), Counts::plus);
        let finished = v1::RunFinished {
            verdict: verdict.into(),
            counts: Some(v1::Counts {
                planned: counts.planned,
                passed: counts.passed,
                flaky: counts.flaky,
                failed: counts.failed,
                cached: counts.cached,
                skipped: counts.skipped,
                not_run: counts.not_run,
            }),
            leases: 2,
            ..v1::RunFinished::default()
        };
        let results = tests.iter().map(|(id, status)| test(id, *status));
        vec![
            event(10, Event::RunStarted(v1::RunStarted { spec: Some(spec) })),
            event(11, Event::JobFinished(make)),
            event(
                12,
                Event::TestsFinished(v1::TestsFinished {
                    results: results.collect(),
                }),
            ),
            event(13, Event::JobFinished(job("check"))),
            event(14, Event::RunFinished(finished)),
        ]
    }

    pub(crate) fn gathered(events: &[v1::RunEvent]) -> Result<Evidence, IncompleteRunError> {
        let mut builder = EvidenceBuilder::default();
        events.iter().for_each(|event| builder.take(event));
        builder.finish()
    }

    const GOOD: [(&str, v1::TestStatus); 3] = [
        ("a", v1::TestStatus::Passed),
        ("b", v1::TestStatus::Cached),
        ("c", v1::TestStatus::Skipped),
    ];

    #[test]
    fn events_add_up_to_evidence() {
        let events = run(&GOOD, v1::Verdict::Releasable);
        let evidence = gathered(&events).expect("is complete");
        assert_eq!(evidence.counts().planned, 3);
        let artefact = evidence.jobs["make"].artefacts["out/app"];
        assert_eq!(artefact, Digest::of(b"application"));
        assert_eq!(evidence.agents, BTreeSet::from(["one".to_owned()]));
        let other = run(&GOOD[..2], v1::Verdict::Releasable);
        let other = gathered(&other).expect("is complete");
        assert_ne!(evidence.plan(), other.plan());
        assert_eq!(
            (evidence.policy(), evidence.tree()),
            (other.policy(), other.tree())
        );
    }

    #[test]
    fn what_is_not_whole_or_contradicts_itself_is_no_evidence() {
        let events = run(&GOOD, v1::Verdict::Releasable);
        for lost in 0..events.len() {
            let mut events = events.clone();
            events.remove(lost);
            assert!(gathered(&events).is_err(), "without event {lost}");
        }
        // The coordinator was killed: a job has not ended, and one of its tests was not told.
        let mut cut = run(&[("a", v1::TestStatus::Passed)], v1::Verdict::Unknown);
        cut.remove(3);
        if let Some(Event::RunFinished(end)) = &mut cut[3].event {
            let counts = end.counts.as_mut().expect("is set");
            (counts.planned, counts.not_run) = (2, 1);
        }
        let cut = gathered(&cut).expect("is honest");
        assert_eq!(cut.status_of("check"), v1::JobStatus::Unknown);
        for status in [v1::TestStatus::Failed, v1::TestStatus::NotRun] {
            let bad = run(&[("a", status)], v1::Verdict::Releasable);
            assert!(gathered(&bad).is_err(), "{status:?}");
            let honest = run(&[("a", status)], v1::Verdict::NotReleasable);
            assert!(gathered(&honest).is_ok(), "{status:?}");
        }
    }
}
