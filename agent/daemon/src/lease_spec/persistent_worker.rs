//! A process that does for several leases what each would start a process for.

use regatta_model::Digest;
use regatta_wire::convert::required_digest;
use regatta_wire::v1;

use super::InvalidLeaseError;
use crate::view_path::ViewPath;

/// How a persistent worker is started, and what it finds in its view before it is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct WorkerSpec {
    /// Leases of one run with the same key may be given to the same process.
    pub(crate) key: String,
    /// Its `argv`.
    pub(crate) arguments: Vec<String>,
    pub(crate) files: Vec<RequestFile>,
}

/// A file of one request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RequestFile {
    /// Relative to the view.
    pub(crate) path: ViewPath,
    pub(crate) digest: Digest,
}

impl WorkerSpec {
    pub(super) fn read(
        worker: v1::PersistentWorker,
        working_directory: &ViewPath,
    ) -> Result<Self, InvalidLeaseError> {
        if worker.arguments.is_empty() {
            return Err(InvalidLeaseError::Missing {
                field: "worker.arguments",
            });
        }
        let file = |file: v1::persistent_worker::RequestFile| {
            let path = working_directory.join(&file.path);
            let path = path.map_err(|source| InvalidLeaseError::Path {
                field: "worker.files.path",
                source,
            })?;
            let digest = required_digest(file.digest.as_ref(), "worker.files.digest")?;
            Ok(RequestFile { path, digest })
        };
        Ok(Self {
            key: worker.key,
            arguments: worker.arguments,
            files: worker
                .files
                .into_iter()
                .map(file)
                .collect::<Result<_, InvalidLeaseError>>()?,
        })
    }
}
