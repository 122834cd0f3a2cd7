//! What a lease asks for, validated.

mod persistent_worker;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use regatta_agent_core::{Demand, Shape, ShareKey, Work};
use regatta_model::{
    Digest, ImageReference, InvalidIdError, Isolation, NetworkAccess, Resources, RootDirectory,
    RunId, SlotIndex, TaskId, TenantId, UnitIndex,
};
use regatta_runtime::ContainerShape;
use regatta_wire::convert::{
    InvalidDurationError, RequiredDigestError, duration_from_wire, required_digest,
};
use regatta_wire::{reapi, v1};

pub(crate) use persistent_worker::WorkerSpec;

use crate::view_path::{InvalidPathError, ViewPath};

/// What a slot is given.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Assignment {
    /// Work.
    Valid(Box<LeaseSpec>),
    /// Work that cannot be carried out anywhere, and why.
    Invalid {
        /// The executions that want an answer.
        units: Vec<UnitIndex>,
        /// What is wrong.
        message: String,
    },
}

/// What a lease asks for.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct LeaseSpec {
    pub(crate) tenant: TenantId,
    pub(crate) run: RunId,
    /// What the coordinator calls the work.
    pub(crate) task: TaskId,
    pub(crate) description: String,
    pub(crate) shape: ContainerShape,
    pub(crate) isolation: Isolation,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) working_directory: ViewPath,
    pub(crate) outputs: Vec<DeclaredOutput>,
    pub(crate) directory_format: reapi::command::OutputDirectoryFormat,
    pub(crate) input_root: Digest,
    pub(crate) timeout: Duration,
    pub(crate) executions: Vec<Execution>,
    pub(crate) stream_output: bool,
    /// What may stay for other leases of the run.
    pub(crate) worker: Option<WorkerSpec>,
    /// What a coordinator that did not grant the lease is to be told.
    pub(crate) claim: Bytes,
}

impl Assignment {
    /// What a coordinator that did not grant the lease is to be told; nothing of what cannot be carried out.
    pub(crate) fn claim(&self) -> Bytes {
        match self {
            Self::Valid(spec) => spec.claim.clone(),
            Self::Invalid { .. } => Bytes::new(),
        }
    }
}

/// An output that a command declares.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct DeclaredOutput {
    /// As the command spells it: relative to its working directory.
    pub(crate) declared: String,
    /// Relative to the view.
    pub(crate) path: ViewPath,
    /// Whether it is there, as an empty directory, before the command starts.
    pub(crate) made_ahead: bool,
}

/// One run of the command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Execution {
    pub(crate) unit: UnitIndex,
    pub(crate) extra_arguments: Vec<String>,
    pub(crate) extra_environment: BTreeMap<String, String>,
}

/// What this agent fills in where a lease says nothing.
#[derive(Clone, Debug)]
pub(crate) struct LeaseDefaults {
    /// Whether the runtime has images at all.
    pub(crate) has_images: bool,
    /// Whether the runtime can make an input root the root directory.
    pub(crate) can_change_root: bool,
    pub(crate) image: Option<ImageReference>,
    pub(crate) work_path: String,
    /// The run that leases belong to which run nothing.
    pub(crate) nobody: RunId,
    /// The tenant of that run.
    pub(crate) nowhere: TenantId,
}

/// Why a lease cannot be carried out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidLeaseError {
    #[error("{0}")]
    Id(#[from] InvalidIdError),
    #[error("{field}: {source}")]
    Path {
        field: &'static str,
        source: InvalidPathError,
    },
    #[error("{0}")]
    Digest(#[from] RequiredDigestError),
    #[error("timeout: {0}")]
    Timeout(#[from] InvalidDurationError),
    #[error("{field} is missing")]
    Missing { field: &'static str },
    #[error(
        "it asks for its input root as the root directory, which this agent cannot do: run the agent as root, \
         on a kernel and a file system that have overlays"
    )]
    FixedRoot,
    #[error("mount path `{path}` is not absolute")]
    RelativeMountPath { path: String },
    #[error("it asks for image {image}, but this agent runs plain processes and has no images")]
    ImageWithoutContainers { image: ImageReference },
    #[error(
        "it names no image and this agent has no default: name one, or start the agent with one"
    )]
    NoImage,
}

impl LeaseDefaults {
    /// The container to have ready before anything is known of the work.
    pub(crate) fn shape(&self) -> Option<Shape> {
        let known = !self.has_images || self.image.is_some();
        known.then(|| Shape {
            image: self.image.clone().filter(|_| self.has_images),
            work_path: self.work_path.clone(),
            root: RootDirectory::Image,
            resources: Resources::default(),
            network: NetworkAccess::Off,
        })
    }

    fn image_for(&self, text: &str) -> Result<Option<ImageReference>, InvalidLeaseError> {
        match (text.is_empty(), self.has_images) {
            (true, false) => Ok(None),
            (true, true) => self
                .image
                .clone()
                .map(Some)
                .ok_or(InvalidLeaseError::NoImage),
            (false, true) => Ok(Some(text.parse()?)),
            (false, false) => Err(InvalidLeaseError::ImageWithoutContainers {
                image: text.parse()?,
            }),
        }
    }

    fn shape_of(&self, spec: &v1::LeaseSpec) -> Result<Shape, InvalidLeaseError> {
        let given = Some(&spec.mount_path).filter(|path| !path.is_empty());
        let work_path = given.unwrap_or(&self.work_path).clone();
        if !work_path.starts_with('/') {
            return Err(InvalidLeaseError::RelativeMountPath { path: work_path });
        }
        let root = match (spec.chroot, self.can_change_root) {
            (false, _) => RootDirectory::Image,
            (true, true) => RootDirectory::InputRoot,
            (true, false) => return Err(InvalidLeaseError::FixedRoot),
        };
        let network = if spec.network {
            NetworkAccess::On
        } else {
            NetworkAccess::Off
        };
        Ok(Shape {
            image: self.image_for(&spec.image)?,
            work_path,
            root,
            resources: Resources {
                cpu_milli: spec.cpu_milli,
                memory_bytes: spec.memory_bytes,
            },
            network,
        })
    }

    /// Reads a lease. What is wrong with it becomes the answer to its executions.
    pub(crate) fn read(&self, spec: v1::LeaseSpec) -> Work<Arc<Assignment>> {
        let units = spec
            .executions
            .iter()
            .map(|execution| UnitIndex(execution.unit))
            .collect();
        let avoid = spec.avoid_slot.map(SlotIndex);
        match self.try_read(spec) {
            Ok((demand, spec)) => Work {
                demand,
                avoid,
                spec: Arc::new(Assignment::Valid(Box::new(spec))),
            },
            Err(error) => {
                let message = format!("the lease is not valid: {error}");
                Work {
                    demand: self.nothing_shared(),
                    avoid,
                    spec: Arc::new(Assignment::Invalid { units, message }),
                }
            }
        }
    }

    /// For a lease that runs nothing.
    fn nothing_shared(&self) -> Demand {
        let shape = Shape {
            image: None,
            work_path: self.work_path.clone(),
            root: RootDirectory::Image,
            resources: Resources::default(),
            network: NetworkAccess::Off,
        };
        let key = ShareKey {
            tenant: self.nowhere.clone(),
            run: self.nobody.clone(),
            shape,
        };
        Demand {
            key,
            isolation: Isolation::Fresh,
        }
    }

    fn try_read(&self, spec: v1::LeaseSpec) -> Result<(Demand, LeaseSpec), InvalidLeaseError> {
        let shape = self.shape_of(&spec)?;
        let isolation = match v1::Isolation::try_from(spec.isolation) {
            Ok(v1::Isolation::Run | v1::Isolation::Unspecified) => Isolation::Run,
            // What a later release asks for by another is no weaker than it can be here.
            Ok(v1::Isolation::Fresh) | Err(_) => Isolation::Fresh,
        };
        let tenant: TenantId = spec.instance_name.parse()?;
        let run: RunId = spec.run_id.parse()?;
        let command = spec
            .command
            .ok_or(InvalidLeaseError::Missing { field: "command" })?;
        if command.arguments.is_empty() {
            return Err(InvalidLeaseError::Missing {
                field: "command.arguments",
            });
        }
        let timeout = spec
            .timeout
            .ok_or(InvalidLeaseError::Missing { field: "timeout" })?;
        let working_directory = ViewPath::parse(&command.working_directory).map_err(|source| {
            InvalidLeaseError::Path {
                field: "working directory",
                source,
            }
        })?;
        let outputs = outputs(&command, &working_directory)?;
        let key = ShareKey {
            tenant: tenant.clone(),
            run: run.clone(),
            shape: shape.clone(),
        };
        let worker = spec
            .worker
            .map(|it| WorkerSpec::read(it, &working_directory));
        // What is to be alone stays for nothing, and one after the other is for processes of their own.
        let may_stay = match &spec.executions[..] {
            [only] => isolation == Isolation::Run && only.extra_environment.is_empty(),
            _ => false,
        };
        let worker = worker.transpose()?.filter(|_| may_stay);
        let spec = LeaseSpec {
            tenant,
            run,
            task: TaskId(spec.task_id),
            description: spec.description,
            shape: ContainerShape {
                image_id: Some(spec.image_id).filter(|id| !id.is_empty()),
                ..container_shape(&shape)
            },
            isolation,
            directory_format: command.output_directory_format(),
            environment: environment(command.environment_variables),
            arguments: command.arguments,
            working_directory,
            outputs,
            input_root: required_digest(spec.input_root.as_ref(), "input_root")?,
            timeout: duration_from_wire(&timeout)?,
            executions: spec.executions.into_iter().map(Execution::from).collect(),
            stream_output: spec.stream_output,
            worker,
            claim: spec.claim,
        };
        Ok((Demand { key, isolation }, spec))
    }
}

impl From<v1::Execution> for Execution {
    fn from(execution: v1::Execution) -> Self {
        Self {
            unit: UnitIndex(execution.unit),
            extra_arguments: execution.extra_arguments,
            extra_environment: environment(execution.extra_environment),
        }
    }
}

impl LeaseSpec {
    /// `argv` of one execution.
    pub(crate) fn arguments_of(&self, execution: &Execution) -> Vec<String> {
        self.arguments
            .iter()
            .chain(&execution.extra_arguments)
            .cloned()
            .collect()
    }

    /// The environment of one execution.
    pub(crate) fn environment_of(&self, execution: &Execution) -> BTreeMap<String, String> {
        let mut environment = self.environment.clone();
        environment.extend(execution.extra_environment.clone());
        environment
    }
}

/// What the runtime is asked for.
pub(crate) fn container_shape(shape: &Shape) -> ContainerShape {
    ContainerShape {
        image: shape.image.clone(),
        image_id: None,
        work_path: PathBuf::from(&shape.work_path),
        root: shape.root,
        resources: shape.resources,
        network: shape.network,
    }
}

/// What a command declares. A client that fills in the legacy `output_directories`, such as Bazel 4, finds
/// them there when its command starts, as it does in Bazel's own sandbox. The specification asks for
/// their parents alone, and of `output_paths` nobody expects more.
#[expect(
    deprecated,
    reason = "clients of versions before 2.1 set no other field"
)]
fn outputs(
    command: &reapi::Command,
    working_directory: &ViewPath,
) -> Result<Vec<DeclaredOutput>, InvalidLeaseError> {
    let output = |declared: &String| {
        let path = working_directory
            .join(declared)
            .map_err(|source| InvalidLeaseError::Path {
                field: "output path",
                source,
            })?;
        Ok(DeclaredOutput {
            declared: declared.clone(),
            path,
            made_ahead: command.output_directories.contains(declared),
        })
    };
    command.output_paths.iter().map(output).collect()
}

fn environment(variables: Vec<reapi::command::EnvironmentVariable>) -> BTreeMap<String, String> {
    variables
        .into_iter()
        .map(|variable| (variable.name, variable.value))
        .collect()
}
