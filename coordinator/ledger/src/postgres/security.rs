//! How a connection to PostgreSQL is encrypted, and how it is known who answers.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::OnceCell;
use tokio_postgres_rustls::MakeRustlsConnect;

/// What a client names that begins with TLS (PostgreSQL's manual, `sslnegotiation=direct`).
const PROTOCOL: &[u8] = b"postgresql";

/// TLS to a server that has a certificate for the host's name, from an authority that is trusted.
#[derive(Clone)]
pub(super) struct Security {
    /// The file of the authorities; without one, those of this machine.
    authorities: Option<PathBuf>,
    /// Made for the first connection; clones share it.
    connector: Arc<OnceCell<MakeRustlsConnect>>,
}

/// Why there is nobody whose certificates are believed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadAuthoritiesError {
    /// The file that the address names is not there, may not be read or has no certificates in PEM.
    #[error("the certificates in {} (sslrootcert) cannot be used: {detail}", .file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// Why.
        detail: String,
    },
    /// There are none on this machine.
    #[error(
        "this machine has no certificate authorities ({detail}): install them (ca-certificates), or name a file \
         with sslrootcert=FILE"
    )]
    Machine {
        /// What was found instead.
        detail: String,
    },
    /// TLS cannot be spoken at all.
    #[error("TLS cannot be set up: {detail}")]
    Setup {
        /// Why.
        detail: String,
    },
}

impl Security {
    /// With the authorities in a file, or those of this machine (`SSL_CERT_FILE` and `SSL_CERT_DIR` count).
    pub(super) fn new(authorities: Option<PathBuf>) -> Self {
        Self {
            authorities,
            connector: Arc::default(),
        }
    }

    /// What makes connections secure. Certificates are read once.
    pub(super) async fn connector(&self) -> Result<MakeRustlsConnect, ReadAuthoritiesError> {
        let make = || async {
            let file = self.authorities.clone();
            let made = tokio::task::spawn_blocking(move || connector(file.as_deref()));
            made.await.unwrap_or_else(|error| Err(setup(&error)))
        };
        self.connector.get_or_try_init(make).await.cloned()
    }
}

impl fmt::Debug for Security {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Security")
            .field("authorities", &self.authorities)
            .finish_non_exhaustive()
    }
}

fn connector(file: Option<&Path>) -> Result<MakeRustlsConnect, ReadAuthoritiesError> {
    let authorities = match file {
        Some(file) => authorities_of(file)?,
        None => authorities_of_machine()?,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| setup(&error))?;
    let config = config.with_root_certificates(authorities);
    let mut config = config.with_no_client_auth();
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(MakeRustlsConnect::new(config))
}

fn authorities_of(file: &Path) -> Result<RootCertStore, ReadAuthoritiesError> {
    let unusable = |error: &dyn fmt::Display| ReadAuthoritiesError::File {
        file: file.to_owned(),
        detail: error.to_string(),
    };
    let mut authorities = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(|error| unusable(&error))? {
        let certificate = certificate.map_err(|error| unusable(&error))?;
        let added = authorities.add(certificate);
        added.map_err(|error| unusable(&error))?;
    }
    match authorities.is_empty() {
        true => Err(unusable(&"there are none in it")),
        false => Ok(authorities),
    }
}

fn authorities_of_machine() -> Result<RootCertStore, ReadAuthoritiesError> {
    let found = rustls_native_certs::load_native_certs();
    let mut authorities = RootCertStore::empty();
    authorities.add_parsable_certificates(found.certs);
    if authorities.is_empty() {
        let errors: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
        return Err(ReadAuthoritiesError::Machine {
            detail: errors.join("; "),
        });
    }
    Ok(authorities)
}

/// Whether the server's certificate was not believed.
pub(super) fn is_distrust(error: &tokio_postgres::Error) -> bool {
    let first: &dyn Error = error;
    let mut causes = std::iter::successors(Some(first), |error| (*error).source());
    causes.any(|error| {
        let inner = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        let inner = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        matches!(inner, Some(rustls::Error::InvalidCertificate(_)))
    })
}

fn setup(error: &dyn fmt::Display) -> ReadAuthoritiesError {
    ReadAuthoritiesError::Setup {
        detail: error.to_string(),
    }
}
