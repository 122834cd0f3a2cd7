//! The addresses that a coordinator listens on.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;

use tokio::net::TcpListener;

use crate::config::CoordinatorConfig;
use crate::start_error::StartError;

/// An address that is listened on.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) listener: TcpListener,
    pub(crate) address: SocketAddr,
}

impl Bound {
    /// Listens on an address of this machine alone.
    pub(crate) async fn bind(address: SocketAddr) -> Result<Self, StartError> {
        if !address.ip().is_loopback() {
            return Err(StartError::NotLoopback { address });
        }
        let refused = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => StartError::AddressInUse { address },
            _ => StartError::Listen { address, source },
        };
        let listener = TcpListener::bind(address).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        Ok(Self { listener, address })
    }

    /// The same once more. A connection is accepted by either of both, and waits for the one that is left if the other
    /// is dropped.
    pub(crate) fn duplicate(&self) -> Result<Self, StartError> {
        let address = self.address;
        let failed = |source| StartError::Listen { address, source };
        let listener = self.listener.as_fd().try_clone_to_owned().map_err(failed)?;
        let listener = TcpListener::from_std(listener.into()).map_err(failed)?;
        Ok(Self { listener, address })
    }
}

/// Everything that is listened on.
#[derive(Debug)]
pub(crate) struct Listeners {
    pub(crate) grpc: Bound,
    pub(crate) http: Option<Bound>,
}

impl Listeners {
    /// Listens on what the configuration says.
    pub(crate) async fn bind(config: &CoordinatorConfig) -> Result<Self, StartError> {
        let grpc = Bound::bind(config.listen).await?;
        let http = match config.http_listen {
            Some(address) => Some(Bound::bind(address).await?),
            None => None,
        };
        Ok(Self { grpc, http })
    }

    /// The same once more.
    pub(crate) fn duplicate(&self) -> Result<Self, StartError> {
        let http = self.http.as_ref().map(Bound::duplicate).transpose()?;
        Ok(Self {
            grpc: self.grpc.duplicate()?,
            http,
        })
    }
}
