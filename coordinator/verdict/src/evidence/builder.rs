//! From events to evidence.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use regatta_model::Digest;
use regatta_wire::v1::run_event::Event;
use regatta_wire::{reapi, v1};

use super::{Evidence, IncompleteRunError, JobEvidence, SuiteEvidence, TestEvidence};
use crate::flaky::Execution;
use crate::stages::Stages;

/// What the events so far have said.
#[derive(Debug, Default)]
pub struct EvidenceBuilder {
    spec: Option<v1::RunSpec>,
    end: Option<v1::RunFinished>,
    jobs: BTreeMap<String, JobEvidence>,
    suites: BTreeMap<String, SuiteEvidence>,
    images: BTreeSet<String>,
    agents: BTreeSet<String>,
    audited_hits: u64,
    failures: BTreeSet<Execution>,
    infrastructure_retries: u64,
    started_at: Option<Timestamp>,
    first_leased_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    /// When jobs that have not ended did what.
    stages: BTreeMap<String, Stages>,
    /// What cannot have been.
    contradiction: Option<String>,
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
                if let Some(result) = &retried.result {
                    self.place(result.r#where.as_ref());
                    self.failed(result);
                }
            }
            Some(Event::JobStarted(started)) => {
                let stages = Stages {
                    queued_at: time,
                    ..Stages::default()
                };
                self.stages.insert(started.job.clone(), stages);
            }
            Some(Event::JobLeased(leased)) => self.leased(&leased.job, time),
            Some(Event::JobFinished(finished)) => self.job(finished, time),
            Some(Event::HitsAudited(audited)) => self.audited_hits += u64::from(audited.agreed),
            Some(Event::InfrastructureRetry(_)) => self.infrastructure_retries += 1,
            Some(Event::RunFinished(finished)) => {
                self.end = Some(finished.clone());
                self.finished_at = time;
            }
            Some(
                Event::SuitePlanned(_)
                | Event::RunResumed(_)
                | Event::HitsExecuted(_)
                | Event::CancelRequested(_)
                | Event::SuiteComplained(_)
                | Event::BatchUnexplained(_)
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
        self.failed(result);
        let key = result.key.as_ref().and_then(|key| key.try_into().ok());
        let suite = self.suites.entry(result.job.clone()).or_default();
        let test = TestEvidence {
            status: status_of(result),
            key,
            execution: Execution::of(result),
            cached_from: result.cached_from.clone(),
            cached_where: result.cached_where.clone(),
        };
        suite.tests.insert(result.test_id.clone(), test);
    }

    /// Remembers a result that tells of a failure of its test's own.
    fn failed(&mut self, result: &v1::TestResult) {
        let is_own = match result.failure_class() {
            v1::FailureClass::Infra | v1::FailureClass::Cancelled => false,
            v1::FailureClass::Test
            | v1::FailureClass::Timeout
            | v1::FailureClass::Oom
            | v1::FailureClass::Unspecified => true,
        };
        let has_failed = match result.status() {
            v1::TestStatus::Failed | v1::TestStatus::Flaky | v1::TestStatus::Quarantined => is_own,
            v1::TestStatus::Passed
            | v1::TestStatus::Cached
            | v1::TestStatus::Skipped
            | v1::TestStatus::NotRun
            | v1::TestStatus::Unspecified => false,
        };
        let execution = Execution::of(result).filter(|_| has_failed);
        self.failures.extend(execution);
    }

    /// A slot has taken the first of a job's work.
    fn leased(&mut self, job: &str, time: Option<Timestamp>) {
        self.first_leased_at = self.first_leased_at.or(time);
        match self.stages.get_mut(job) {
            Some(stages) => stages.started_at = time,
            None => self.contradict(format!(
                "job `{job}` had a slot before it began or after it ended"
            )),
        }
    }

    fn contradict(&mut self, detail: String) {
        self.contradiction.get_or_insert(detail);
    }

    /// A job's stages, now that it has ended.
    fn ended(&mut self, finished: &v1::JobFinished, time: Option<Timestamp>) -> Stages {
        let begun = self.stages.remove(&finished.job);
        match finished.status() {
            v1::JobStatus::Passed | v1::JobStatus::Failed if begun.is_none() => {
                self.contradict(format!("job `{}` has ended and never began", finished.job));
            }
            v1::JobStatus::Passed
            | v1::JobStatus::Failed
            | v1::JobStatus::Cancelled
            | v1::JobStatus::NotRun
            | v1::JobStatus::Unknown
            | v1::JobStatus::Unspecified => {}
        }
        let stages = Stages {
            finished_at: time,
            ..begun.unwrap_or_default()
        };
        stages.in_order()
    }

    fn job(&mut self, finished: &v1::JobFinished, time: Option<Timestamp>) {
        self.place(finished.r#where.as_ref());
        let stages = self.ended(finished, time);
        let result = finished.result.iter();
        let files = result.clone().flat_map(|result| &result.output_files);
        let files = files.map(|file| (&file.path, file.digest.as_ref()));
        let directories = result.flat_map(|result| &result.output_directories);
        let trees = directories.clone().filter_map(|it| it.tree_digest.as_ref());
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
            cached_from: finished.cached_from.clone(),
            cached_where: finished.cached_where.clone(),
            cached_times: finished
                .result
                .as_ref()
                .filter(|_| finished.cached)
                .and_then(produced),
            place: finished.r#where.clone(),
            stages,
            flaky: finished.status() == v1::JobStatus::Passed && finished.attempts > 1,
            trees: trees
                .filter_map(|tree| Digest::try_from(tree).ok())
                .collect(),
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
        if let Some(detail) = self.contradiction {
            return Err(IncompleteRunError::Contradiction { detail });
        }
        let spec = self.spec.ok_or_else(|| lacks("beginning"))?;
        let evidence = Evidence {
            // Files that differ from the commit were made later.
            committed_at: spec
                .committed_at
                .as_ref()
                .filter(|_| !spec.dirty)
                .and_then(time_of),
            spec,
            end: self.end.ok_or_else(|| lacks("end"))?,
            jobs: self.jobs,
            suites: self.suites,
            images: self.images,
            agents: self.agents,
            audited_hits: self.audited_hits,
            failures: self.failures,
            infrastructure_retries: self.infrastructure_retries,
            started_at: self
                .started_at
                .ok_or_else(|| lacks("time of its beginning"))?,
            first_leased_at: self.first_leased_at,
            finished_at: self.finished_at.ok_or_else(|| lacks("time of its end"))?,
        };
        evidence.check()?;
        Ok(evidence)
    }
}

/// How a test ended. What a machine lost has not run, though it is told as a failure: the run counts it so, too.
fn status_of(result: &v1::TestResult) -> v1::TestStatus {
    match (result.status(), result.failure_class()) {
        (v1::TestStatus::Failed | v1::TestStatus::Unspecified, v1::FailureClass::Infra) => {
            v1::TestStatus::NotRun
        }
        (status, _) => status,
    }
}

/// When a result was produced, if it says so.
fn produced(result: &reapi::ActionResult) -> Option<(Timestamp, Timestamp)> {
    let metadata = result.execution_metadata.as_ref()?;
    let began = metadata
        .execution_start_timestamp
        .as_ref()
        .and_then(time_of)?;
    let ended = metadata
        .execution_completed_timestamp
        .as_ref()
        .and_then(time_of)?;
    (began <= ended).then_some((began, ended))
}

fn time_of(time: &prost_types::Timestamp) -> Option<Timestamp> {
    Timestamp::new(time.seconds, time.nanos).ok()
}
