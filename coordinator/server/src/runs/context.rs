//! What the tasks of a run share.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use regatta_cas::{BlobStore, WrongReads};
use regatta_ledger::{Ledger, RunCounts};
use regatta_model::{Digest, FailureClass, Isolation, RunId};
use regatta_scheduler::{AdmissionError, FailedAt, UnitError};
use regatta_wire::convert::duration_to_wire;
use regatta_wire::v1::run_event::Event;
use regatta_wire::{reapi, v1};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::log::RunLog;
use super::needed::Needed;
use super::plan::{Plan, PlannedJob};
use super::recorded::{Recorded, RecordedSuite};
use super::run_services::RunServices;
use super::state::{JobEnd, JobStatus};
use super::suite::Audit;
use super::surroundings::Surroundings;
use super::times::Times;
use crate::action_cache::ActionCache;
use crate::cas::InputTrees;
use crate::dispatch::{BatchShape, Dispatcher, TaskHandle, UnitPlan, Work};

/// How often work is offered to a scheduler whose queue is full.
const MAX_ADMISSION_ATTEMPTS: u32 = 120;

/// A run under way.
#[derive(Debug)]
pub(super) struct RunContext {
    pub(super) run: RunId,
    pub(super) plan: Plan,
    pub(super) dispatcher: Arc<Dispatcher>,
    pub(super) results: Arc<ActionCache>,
    pub(super) blobs: Arc<dyn BlobStore>,
    /// When the store sent wrong bytes.
    pub(super) wrong_reads: WrongReads,
    pub(super) trees: Arc<InputTrees>,
    /// What jobs left that others may need.
    pub(super) needed: Needed,
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) log: Arc<RunLog>,
    /// Leases granted so far; after a restart, those granted since, and one if there was any before.
    pub(super) leases: AtomicU64,
    /// What they took.
    pub(super) times: Times,
    /// Jobs that a slot has taken something of.
    leased: Mutex<BTreeSet<String>>,
    /// What of running jobs has failed.
    pub(super) failures: Failures,
    /// What whoever submitted the run has been warned of.
    pub(super) warned: Mutex<BTreeSet<String>>,
    /// What is executed again though it is known.
    pub(super) audit: Audit,
    /// What came of it in earlier processes.
    pub(super) recorded: Recorded,
}

/// Counts failures while their jobs go on.
#[derive(Debug, Default)]
pub(super) struct Failures {
    count: AtomicU32,
    more: Notify,
}

impl Failures {
    /// So many have been seen already, which is news to whoever asks first.
    fn after(count: u32) -> Self {
        let failures = Self {
            count: AtomicU32::new(count),
            ..Self::default()
        };
        if count > 0 {
            failures.more.notify_one();
        }
        failures
    }

    pub(super) fn add_one(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.more.notify_one();
    }

    /// How many there are, once there are more than there were.
    pub(super) async fn seen(&self) -> u32 {
        self.more.notified().await;
        self.count.load(Ordering::Relaxed)
    }
}

impl RunContext {
    pub(super) fn new(
        run: RunId,
        plan: Plan,
        recorded: Recorded,
        services: RunServices,
        log: Arc<RunLog>,
    ) -> Arc<Self> {
        let audit = Audit::new(plan.audit, services.audit_share).going_on(&recorded);
        let leases = AtomicU64::new(u64::from(recorded.has_executed()));
        let failures = Failures::after(recorded.failures());
        let warned = Mutex::new(recorded.warnings().clone());
        let leased = Mutex::new(recorded.leased().clone());
        Arc::new(Self {
            run,
            plan,
            dispatcher: services.dispatcher,
            results: services.results,
            blobs: services.blobs,
            wrong_reads: services.wrong_reads,
            trees: services.trees,
            needed: Needed::default(),
            ledger: services.ledger,
            log,
            leases,
            times: Times::default(),
            leased,
            failures,
            warned,
            audit,
            recorded,
        })
    }

    /// A slot has taken something of a job, which watchers are told of the first time.
    fn count_lease(&self, job: String) {
        self.leases.fetch_add(1, Ordering::Relaxed);
        let mut leased = self.leased.lock().unwrap_or_else(PoisonError::into_inner);
        if leased.insert(job.clone()) {
            self.log.append(Event::JobLeased(v1::JobLeased { job }));
        }
    }

    /// Whether anything has been leased for it.
    pub(super) fn has_executed(&self) -> bool {
        self.leases.load(Ordering::Relaxed) > 0
    }

    /// Tells watchers of something that concerns the whole run, however many jobs meet with it.
    pub(super) fn warn_once(&self, message: String) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.insert(message.clone()) {
            let job = String::new();
            self.log
                .append(Event::Warning(v1::Warning { job, message }));
        }
    }
}

/// A job under way.
#[derive(Clone, Debug)]
pub(super) struct JobContext {
    pub(super) run: Arc<RunContext>,
    pub(super) index: usize,
    /// With the outputs of other jobs laid in.
    pub(super) input_root: Digest,
    /// As they were when the job started.
    pub(super) surroundings: Surroundings,
    pub(super) cancel: CancellationToken,
}

/// How a job ended, and what it leaves.
#[derive(Clone, Debug)]
pub(super) struct JobOutcome {
    pub(super) end: JobEnd,
    pub(super) result: Option<reapi::ActionResult>,
    pub(super) cached: bool,
    /// What produced a cached result, if it is known.
    pub(super) origin: v1::ResultOrigin,
    pub(super) provenance: Option<v1::Provenance>,
    /// Of a build: how many attempts came to an end, this one included; 0 if nothing ran.
    pub(super) attempts: u32,
}

impl From<JobEnd> for JobOutcome {
    fn from(end: JobEnd) -> Self {
        Self {
            end,
            result: None,
            cached: false,
            origin: v1::ResultOrigin::default(),
            provenance: None,
            attempts: 0,
        }
    }
}

/// What to submit for a job.
#[derive(Clone)]
pub(super) struct JobWork {
    pub(super) command: reapi::Command,
    pub(super) units: Vec<UnitPlan>,
    pub(super) shape: BatchShape,
    pub(super) batch_overhead: Duration,
    pub(super) merge_key: Option<Digest>,
    pub(super) stream_output: bool,
    /// Where the same has just failed, if it is tried again.
    pub(super) failed_at: Option<FailedAt>,
    /// How long each execution may take, if that is not what the job says.
    pub(super) time_limit: Option<Duration>,
    /// What may do it in place of a process of its own.
    pub(super) worker: Option<v1::PersistentWorker>,
}

impl JobContext {
    pub(super) fn job(&self) -> &PlannedJob {
        &self.run.plan.jobs[self.index]
    }

    pub(super) fn name(&self) -> String {
        self.job().name.to_string()
    }

    /// Whether another job needs what it makes.
    pub(super) fn is_awaited(&self) -> bool {
        let mut jobs = self.run.plan.jobs.iter();
        jobs.any(|job| job.needs.contains(&self.index))
    }

    /// A slot has taken something of it.
    pub(super) fn count_lease(&self) {
        self.run.count_lease(self.name());
    }

    /// What came of the suite in earlier processes.
    pub(super) fn recorded_suite(&self) -> Option<&RecordedSuite> {
        self.run.recorded.suite(self.job().name.as_str())
    }

    /// The job's command with these arguments.
    pub(super) fn command(&self, arguments: Vec<String>) -> reapi::Command {
        reapi::Command {
            arguments,
            ..self.job().template.clone()
        }
    }

    /// Offers work until it is taken; a run that is to execute nothing goes without.
    pub(super) async fn submit(&self, work: JobWork) -> Result<TaskHandle, JobEnd> {
        if self.run.plan.spec.cached_only {
            let text = "what it needs is not cached, and this run executes nothing";
            return Err(unknown(text.to_owned()));
        }
        let work = self.dispatched(work);
        for _ in 0..MAX_ADMISSION_ATTEMPTS {
            let pause = match self.run.dispatcher.submit(work.clone()) {
                Ok(handle) => return Ok(handle),
                Err(
                    AdmissionError::QueueFull { retry_after, .. }
                    | AdmissionError::TenantQueueFull { retry_after, .. }
                    | AdmissionError::TooManyRequirements { retry_after, .. },
                ) => retry_after,
                Err(error @ AdmissionError::Empty) => return Err(unknown(error.to_string())),
            };
            tokio::select! {
                () = self.cancel.cancelled() => return Err(cancelled()),
                () = tokio::time::sleep(pause) => {}
            }
        }
        Err(unknown(
            "the coordinator's queue stayed full for too long".to_owned(),
        ))
    }

    /// Work as agents are to carry it out.
    pub(super) fn dispatched(&self, work: JobWork) -> Work {
        let job = self.job();
        let settings = &job.settings;
        let isolation = match settings.isolation {
            Isolation::Run => v1::Isolation::Run,
            Isolation::Fresh => v1::Isolation::Fresh,
        };
        let image = settings
            .image
            .as_ref()
            .map(|image| image.as_str().to_owned());
        let spec = v1::LeaseSpec {
            instance_name: self.run.plan.tenant.to_string(),
            run_id: self.run.run.to_string(),
            description: self.name(),
            image: image.unwrap_or_default(),
            isolation: isolation.into(),
            network: settings.network,
            cpu_milli: settings.resources.cpu_milli,
            memory_bytes: settings.resources.memory_bytes,
            mount_path: job.mount_path.clone(),
            command: Some(work.command),
            input_root: Some(self.input_root.into()),
            timeout: Some(duration_to_wire(work.time_limit.unwrap_or(job.timeout))),
            executions: Vec::new(),
            stream_output: work.stream_output,
            // It has none of these before it is leased.
            task_id: 0,
            claim: Bytes::new(),
            avoid_slot: None,
            chroot: settings.chroot,
            worker: work.worker,
            image_id: self.surroundings.image_id().unwrap_or_default().to_owned(),
        };
        Work {
            tenant: self.run.plan.tenant.clone(),
            run: self.run.run.clone(),
            priority: 0,
            platform: settings.requirements.clone(),
            spec,
            units: work.units,
            batch_overhead: work.batch_overhead,
            merge_key: work.merge_key,
            failed_at: work.failed_at,
            shape: work.shape,
            is_ahead: false,
        }
    }
}

pub(super) fn unknown(message: String) -> JobEnd {
    JobEnd::without_tests(JobStatus::Unknown, Some(FailureClass::Infra), message)
}

pub(super) fn cancelled() -> JobEnd {
    JobEnd::without_tests(JobStatus::Cancelled, Some(FailureClass::Cancelled), "")
}

pub(super) fn failed(class: FailureClass, message: String) -> JobEnd {
    let status = if class == FailureClass::Infra {
        JobStatus::Unknown
    } else {
        JobStatus::Failed
    };
    JobEnd {
        status,
        class: Some(class),
        message,
        counts: RunCounts::default(),
    }
}

/// A unit without an answer, as the end of its job.
pub(super) fn of_unit(error: &UnitError) -> JobEnd {
    match error {
        UnitError::Cancelled => cancelled(),
        UnitError::Unsatisfiable { .. }
        | UnitError::NoAgent
        | UnitError::Held { .. }
        | UnitError::AttemptsExhausted { .. } => unknown(error.to_string()),
    }
}
