//! What becomes of an execution, as it is reported.

use std::io;
use std::sync::Arc;

use regatta_model::{Digest, SlotIndex, UnitIndex};
use regatta_runtime::{RuntimeError, Usage};
use regatta_wire::convert::duration_to_wire;
use regatta_wire::{reapi, v1};
use rustix::io::Errno;

use crate::input_tree::TreeError;

/// A reported outcome. It is cheap to clone, for it is part of every report until it is acknowledged.
pub(crate) type Outcome = Arc<v1::ExecutionOutcome>;

/// The errors that the files of a view can cause by being what they are: links that lead nowhere, around
/// or out, files where directories are needed, modes that keep everyone away. Any machine meets them.
const CAUSED_BY_FILES: [Errno; 12] = [
    Errno::ACCESS,
    Errno::EXIST,
    Errno::ISDIR,
    Errno::LOOP,
    Errno::NAMETOOLONG,
    Errno::NOENT,
    Errno::NOTDIR,
    Errno::NXIO,
    Errno::OPNOTSUPP,
    Errno::PERM,
    Errno::TXTBSY,
    Errno::XDEV,
];

/// Why an execution has no result.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    /// It cannot be carried out anywhere.
    Rejected {
        message: String,
        missing_blobs: Vec<Digest>,
    },
    /// This machine failed it.
    Infrastructure { message: String },
    /// This machine has no image for it, and got none from whoever it asked; another may have one.
    ImageAbsent { message: String },
    /// This machine has no image for it, and could ask nobody.
    RegistryUnreachable { message: String },
    /// It ran, and the coordinator's store took no result of it for as long as that was worth waiting for.
    StoreExhausted { message: String },
}

impl Refusal {
    pub(crate) fn rejected(message: impl Into<String>) -> Self {
        Self::Rejected {
            message: message.into(),
            missing_blobs: Vec::new(),
        }
    }

    pub(crate) fn infrastructure(message: impl Into<String>) -> Self {
        Self::Infrastructure {
            message: message.into(),
        }
    }

    /// What went wrong in a job's view: the doing of the input tree or the job, if the error is one of those
    /// that a tree of files can cause, and otherwise the machine's fault.
    pub(crate) fn in_view(error: &io::Error, message: impl Into<String>) -> Self {
        if is_caused_by_files(error) {
            Self::rejected(message)
        } else {
            Self::infrastructure(message)
        }
    }

    pub(crate) fn outcome(self, unit: UnitIndex, slot: SlotIndex) -> Outcome {
        let (kind, message, missing_blobs) = match self {
            Self::Rejected {
                message,
                missing_blobs,
            } => (v1::OutcomeKind::Rejected, message, missing_blobs),
            Self::Infrastructure { message } => {
                (v1::OutcomeKind::Infrastructure, message, Vec::new())
            }
            Self::ImageAbsent { message } => (v1::OutcomeKind::ImageAbsent, message, Vec::new()),
            Self::RegistryUnreachable { message } => {
                (v1::OutcomeKind::RegistryUnreachable, message, Vec::new())
            }
            Self::StoreExhausted { message } => {
                (v1::OutcomeKind::StoreExhausted, message, Vec::new())
            }
        };
        Arc::new(v1::ExecutionOutcome {
            unit: unit.0,
            kind: kind.into(),
            message,
            missing_blobs: missing_blobs.iter().map(reapi::Digest::from).collect(),
            slot: slot.0,
            ..Default::default()
        })
    }
}

/// Whether any machine would meet this error in the same view.
pub(crate) fn is_caused_by_files(error: &io::Error) -> bool {
    Errno::from_io_error(error).is_some_and(|errno| CAUSED_BY_FILES.contains(&errno))
}

impl From<&RuntimeError> for Refusal {
    fn from(error: &RuntimeError) -> Self {
        match error {
            RuntimeError::ImageUnavailable { .. } => Self::ImageAbsent {
                message: error.to_string(),
            },
            RuntimeError::RegistryUnreachable { .. } => Self::RegistryUnreachable {
                message: error.to_string(),
            },
            RuntimeError::UnfitTree { .. } => Self::rejected(error.to_string()),
            RuntimeError::Engine { .. } | RuntimeError::ContainerLost { .. } => {
                Self::infrastructure(error.to_string())
            }
            RuntimeError::Io { source, .. } => Self::infrastructure(format!("{error}: {source}")),
        }
    }
}

impl From<&TreeError> for Refusal {
    fn from(error: &TreeError) -> Self {
        match error {
            TreeError::Missing { digests } => Self::Rejected {
                message: error.to_string(),
                missing_blobs: digests.clone(),
            },
            TreeError::Invalid { .. } => Self::rejected(error.to_string()),
            TreeError::Store(source) => Self::infrastructure(format!("{error}: {source}")),
            TreeError::Io { source, .. } => Self::infrastructure(format!("{error}: {source}")),
        }
    }
}

/// What an execution used.
pub(crate) fn usage_to_wire(usage: &Usage) -> v1::ResourceUsage {
    v1::ResourceUsage {
        user_cpu: Some(duration_to_wire(usage.user_cpu)),
        system_cpu: Some(duration_to_wire(usage.system_cpu)),
        peak_memory_bytes: usage.peak_memory_bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_the_machines_fault_and_a_file_in_the_way_is_not() {
        let refused = |errno: Errno| Refusal::in_view(&errno.into(), "why");
        for errno in [
            Errno::NOSPC,
            Errno::MFILE,
            Errno::NFILE,
            Errno::IO,
            Errno::DQUOT,
        ] {
            assert_eq!(refused(errno), Refusal::infrastructure("why"), "{errno}");
        }
        for errno in [
            Errno::NOTDIR,
            Errno::EXIST,
            Errno::LOOP,
            Errno::XDEV,
            Errno::NAMETOOLONG,
        ] {
            assert_eq!(refused(errno), Refusal::rejected("why"), "{errno}");
        }
        let unknown = io::Error::other("a short read");
        assert_eq!(
            Refusal::in_view(&unknown, "why"),
            Refusal::infrastructure("why")
        );
    }
}
