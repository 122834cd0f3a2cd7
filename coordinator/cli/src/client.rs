//! The connection to a coordinator.

use std::time::Duration;

use regatta_cas::{GrpcBlobStore, ServerAddresses, for_blobs};
use regatta_wire::reapi::GetCapabilitiesRequest;
use regatta_wire::reapi::capabilities_client::CapabilitiesClient;
use regatta_wire::reapi::execution_client::ExecutionClient;
use regatta_wire::v1;
use regatta_wire::v1::fleet_client::FleetClient;
use regatta_wire::v1::runs_client::RunsClient;
use regatta_wire::v1::suites_client::SuitesClient;
use tokio::time::timeout;
use tonic::Code;
use tonic::transport::Channel;

use crate::exit_code::{ExitCode, Failure};

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one of several coordinators may take to answer its first call.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How large a message may be: the results of many tests come in one.
const MESSAGE_LIMIT_BYTES: usize = 64 << 20;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address makes no sense. Fix it.
    #[error("`{url}` is no address of a coordinator; write it like grpc://127.0.0.1:8980")]
    BadUrl {
        /// The address.
        url: String,
    },
    /// The address asks for encryption, which this version does not have.
    #[error("`{url}`: encrypted connections are not supported yet; write grpc://HOST:PORT")]
    Encrypted {
        /// The address.
        url: String,
    },
    /// Nothing answers. Start a coordinator, or name another.
    #[error(
        "no coordinator answers at {url} ({detail}); start one with `regatta up`, or name another with \
         --coordinator or REGATTA_COORDINATOR"
    )]
    Unreachable {
        /// The address.
        url: String,
        /// What came back.
        detail: String,
    },
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        let code = match error {
            ConnectError::BadUrl { .. } | ConnectError::Encrypted { .. } => {
                ExitCode::BadConfiguration
            }
            ConnectError::Unreachable { .. } => ExitCode::CoordinatorUnreachable,
        };
        Self {
            code,
            error: error.into(),
        }
    }
}

/// A connection to a coordinator, on behalf of a tenant.
#[derive(Clone, Debug)]
pub struct Client {
    url: String,
    channel: Channel,
    instance: String,
}

impl Client {
    /// Connects; of several addresses, which commas separate, to the first that answers.
    ///
    /// # Errors
    /// The address makes no sense, or nothing answers there.
    pub async fn connect(url: &str, instance: &str) -> Result<Self, ConnectError> {
        let addresses =
            ServerAddresses::parse(&http_url(url)?).map_err(|_| ConnectError::BadUrl {
                url: url.to_owned(),
            })?;
        let endpoint = for_blobs(addresses.endpoint()).connect_timeout(CONNECT_TIMEOUT);
        let unreachable = |detail: String| ConnectError::Unreachable {
            url: url.to_owned(),
            detail,
        };
        let mut trouble = String::new();
        for _ in 0..addresses.count() {
            let connected = addresses.connect(&endpoint).await;
            let channel = connected.map_err(|error| unreachable(innermost(&error)))?;
            let client = Self {
                url: url.to_owned(),
                channel,
                instance: instance.to_owned(),
            };
            if addresses.count() == 1 {
                return Ok(client);
            }
            // Of several, one that hangs accepts connections, too.
            match client.check_answers().await {
                Ok(()) => return Ok(client),
                Err(detail) => trouble = detail,
            }
        }
        Err(unreachable(trouble))
    }

    /// Whether the coordinator takes calls.
    async fn check_answers(&self) -> Result<(), String> {
        let mut capabilities = self.capabilities();
        let asked = capabilities.get_capabilities(GetCapabilitiesRequest::default());
        match timeout(ANSWER_TIMEOUT, asked).await {
            Ok(Err(status)) if status.code() == Code::Unavailable => {
                Err(status.message().to_owned())
            }
            Ok(_) => Ok(()),
            Err(_) => Err(format!("no answer in {ANSWER_TIMEOUT:?}")),
        }
    }

    /// Where it leads.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The instance name.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Its runs.
    #[must_use]
    pub fn runs(&self) -> RunsClient<Channel> {
        RunsClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_LIMIT_BYTES)
            .max_encoding_message_size(MESSAGE_LIMIT_BYTES)
    }

    /// The newest runs, at most so many of those that it lists.
    ///
    /// # Errors
    /// It refuses, or does not answer.
    pub async fn list_runs(
        &self,
        limit: u32,
        active_only: bool,
    ) -> Result<v1::ListRunsResponse, Failure> {
        let request = v1::ListRunsRequest {
            instance_name: self.instance.clone(),
            limit,
            active_only,
        };
        let listed = self.runs().list_runs(request).await;
        let listed = listed.map_err(|status| refused("list the runs", &status))?;
        Ok(listed.into_inner())
    }

    /// What it knows of suites.
    #[must_use]
    pub fn suites(&self) -> SuitesClient<Channel> {
        SuitesClient::new(self.channel.clone())
    }

    /// Its agents.
    #[must_use]
    pub fn fleet(&self) -> FleetClient<Channel> {
        FleetClient::new(self.channel.clone())
    }

    /// Its execution of single actions.
    #[must_use]
    pub fn execution(&self) -> ExecutionClient<Channel> {
        ExecutionClient::new(self.channel.clone())
    }

    /// What it can do.
    #[must_use]
    pub fn capabilities(&self) -> CapabilitiesClient<Channel> {
        CapabilitiesClient::new(self.channel.clone())
    }

    /// Its blobs.
    #[must_use]
    pub fn blobs(&self) -> GrpcBlobStore {
        GrpcBlobStore::new(self.channel.clone(), self.instance.clone())
    }
}

/// The URL, or several that commas separate, as HTTP clients know them.
///
/// # Errors
/// It is no address of a coordinator.
pub fn http_url(urls: &str) -> Result<String, ConnectError> {
    let urls: Vec<String> = urls
        .split(',')
        .map(one_http_url)
        .collect::<Result<_, _>>()?;
    Ok(urls.join(","))
}

fn one_http_url(url: &str) -> Result<String, ConnectError> {
    let url = url.trim();
    let bad = || ConnectError::BadUrl {
        url: url.to_owned(),
    };
    let (scheme, rest) = url.split_once("://").ok_or_else(bad)?;
    match scheme {
        "grpc" | "http" if !rest.is_empty() => Ok(format!("http://{rest}")),
        "grpcs" | "https" => Err(ConnectError::Encrypted {
            url: url.to_owned(),
        }),
        _ => Err(bad()),
    }
}

/// The cause at the bottom of an error says what happened; the rest says to whom.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// Whether a status tells of the connection rather than of what a coordinator answered: only what was
/// made here has a cause.
pub(crate) fn is_unreachable(status: &tonic::Status) -> bool {
    std::error::Error::source(status).is_some()
}

/// What a refusal means for the process: `operation` completes "cannot".
#[must_use]
pub fn refused(operation: &str, status: &tonic::Status) -> Failure {
    let mut message = format!("cannot {operation}: {}", status.message());
    let code = match status.code() {
        Code::Unimplemented => {
            message +=
                "; what answers there is no coordinator, or another version: check --coordinator";
            ExitCode::BadConfiguration
        }
        Code::Unavailable if is_unreachable(status) => ExitCode::CoordinatorUnreachable,
        Code::InvalidArgument | Code::NotFound | Code::OutOfRange => ExitCode::BadConfiguration,
        Code::Cancelled => ExitCode::Cancelled,
        _ => ExitCode::Infrastructure,
    };
    Failure::new(code, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_bazel_writes_them() {
        let url = |url: &str| http_url(url).map_err(|error| Failure::from(error).code);
        assert_eq!(url("grpc://h:1"), Ok("http://h:1".to_owned()));
        assert_eq!(url("http://h:1"), Ok("http://h:1".to_owned()));
        let both = url("grpc://g:1, grpc://h:2");
        assert_eq!(both, Ok("http://g:1,http://h:2".to_owned()));
        for bad in ["h:1", "ftp://h", "grpc://", "grpcs://h:1", "grpc://h:1,"] {
            assert_eq!(url(bad), Err(ExitCode::BadConfiguration), "{bad}");
        }
    }

    #[test]
    fn a_stranger_is_told_from_a_coordinator() {
        let failure = refused("list the runs", &tonic::Status::unimplemented("404"));
        assert_eq!(failure.code, ExitCode::BadConfiguration);
        assert!(
            failure.to_string().ends_with("check --coordinator"),
            "{failure}"
        );
    }

    #[tokio::test]
    async fn nobody_there_has_its_own_exit_code_and_says_what_to_do() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        drop(listener);
        let refused = Client::connect(&format!("grpc://{address}"), "").await;
        let failure = Failure::from(refused.expect_err("nobody listens"));
        assert_eq!(failure.code, ExitCode::CoordinatorUnreachable);
        assert!(failure.to_string().contains("regatta up"), "{failure}");
    }
}
