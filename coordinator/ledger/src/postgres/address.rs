//! Where a PostgreSQL database is, and as whom to go there.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

use super::password_file::{self, ReadPasswordFileError};
use super::security::Security;

/// How long a connection may take to be made, unless the address says so itself.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a connection is idle before the other side is asked whether it is still there, how often it is
/// asked, and after how many questions without an answer it is taken for gone.
pub(super) const KEEPALIVE: (Duration, Duration, u32) =
    (Duration::from_secs(5), Duration::from_secs(2), 3);
/// How long sent data may go without an acknowledgement.
pub(super) const TCP_USER_TIMEOUT: Duration = Duration::from_secs(10);
/// PostgreSQL's own default.
const DEFAULT_PORT: u16 = 5432;

/// The address of a database: `postgres://USER@HOST:PORT/DATABASE?PARAMETERS`, as libpq has it; a directory
/// as `host` is a Unix socket's. It holds the password, and shows it to nobody.
///
/// With `sslmode=require` or `verify-full` connections are encrypted, and the server has to show a certificate for
/// the host's name from an authority in the file `sslrootcert`, or from one that this machine trusts. libpq asks for
/// less with `require`. Other connections are not encrypted, nor is a Unix socket's.
#[derive(Clone)]
pub struct PostgresAddress {
    config: Config,
    security: Option<Security>,
    place: String,
}

/// Why a text is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseAddressError {
    /// It is written another way.
    #[error("an address of PostgreSQL begins with `postgres://`")]
    Scheme,
    /// A part of it makes no sense. Fix it.
    #[error("the address of PostgreSQL cannot be understood: {detail}")]
    Invalid {
        /// Which part, and why; never the password.
        detail: String,
    },
    /// It names authorities and does not demand that anybody show a certificate.
    #[error(
        "the address of PostgreSQL names an sslrootcert, which counts with sslmode=verify-full"
    )]
    UnusedAuthorities,
}

impl FromStr for PostgresAddress {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !["postgres://", "postgresql://"]
            .iter()
            .any(|it| text.starts_with(it))
        {
            return Err(ParseAddressError::Scheme);
        }
        let (text, authorities) = without_authorities(text);
        let mut config: Config = text
            .parse()
            .map_err(|error: tokio_postgres::Error| invalid(&super::failure::chain(&error)))?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(invalid(
                "it names no host: write postgres://USER@HOST/DATABASE, or ?host=/DIRECTORY of a socket",
            ));
        }
        // The first `@` ends the password: what follows it would be shown as the host's name.
        let strange = |host: &Host| matches!(host, Host::Tcp(name) if name.contains('@'));
        if config.get_hosts().iter().any(strange) {
            return Err(invalid("an `@` in a name or a password is written %40"));
        }
        let demanded = config.get_ssl_mode();
        settle(&mut config);
        let security = match demanded {
            SslMode::Disable | SslMode::Prefer if authorities.is_some() => {
                return Err(ParseAddressError::UnusedAuthorities);
            }
            SslMode::Disable | SslMode::Prefer => None,
            _ if config.get_ssl_mode() == SslMode::Disable => None,
            // The enumeration may grow by other ways to demand it.
            _ => Some(Security::new(authorities)),
        };
        let place = place(&config);
        Ok(Self {
            config,
            security,
            place,
        })
    }
}

/// An address without the parameters that [`Config`] does not know, and the file that one of them names.
/// `sslmode=verify-full` is `require`, which asks for no less here.
fn without_authorities(address: &str) -> (Cow<'_, str>, Option<PathBuf>) {
    // What comes before is a name and a password, which may have a question mark.
    let credentials = address.find('@').unwrap_or_default();
    let Some(parameters) = address[credentials..].find('?') else {
        return (address.into(), None);
    };
    let (base, parameters) = address.split_at(credentials + parameters + 1);
    let (mut kept, mut authorities) = (Vec::new(), None);
    for parameter in parameters.split('&') {
        match parameter.split_once('=') {
            Some(("sslrootcert", file)) => {
                let file = percent_decode_str(file).decode_utf8_lossy();
                authorities = Some(PathBuf::from(file.as_ref()));
            }
            Some(("sslmode", "verify-full")) => kept.push("sslmode=require"),
            _ => kept.push(parameter),
        }
    }
    let address = format!("{base}{}", kept.join("&"));
    (address.trim_end_matches('?').to_owned().into(), authorities)
}

fn invalid(detail: &str) -> ParseAddressError {
    ParseAddressError::Invalid {
        detail: detail.to_owned(),
    }
}

/// What the address leaves open.
fn settle(config: &mut Config) {
    if config.get_application_name().is_none() {
        config.application_name(format!(
            "regatta coordinator, process {}",
            std::process::id()
        ));
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_TIMEOUT);
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(TCP_USER_TIMEOUT);
    }
    // libpq's rule: nobody listens to a Unix socket.
    let is_socket = |host: &Host| matches!(host, Host::Unix(_));
    if !config.get_hosts().is_empty() && config.get_hosts().iter().all(is_socket) {
        config.ssl_mode(SslMode::Disable);
    }
    let (idle, interval, retries) = KEEPALIVE;
    config.keepalives_idle(idle).keepalives_interval(interval);
    config.keepalives_retries(retries);
    // Of several servers, the one that takes writes.
    if config.get_hosts().len() > 1 && config.get_target_session_attrs() == TargetSessionAttrs::Any
    {
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
    }
}

/// For people: everything but the password and the parameters.
fn place(config: &Config) -> String {
    let hosts = config.get_hosts().iter().map(|host| match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(directory) => directory.display().to_string(),
    });
    let mut hosts: Vec<String> = hosts.collect();
    if hosts.is_empty() {
        hosts = config
            .get_hostaddrs()
            .iter()
            .map(ToString::to_string)
            .collect();
    }
    let user = config.get_user().map(|user| format!("{user}@"));
    format!(
        "postgres://{}{}:{}/{}",
        user.unwrap_or_default(),
        hosts.join(","),
        config.get_ports().first().unwrap_or(&DEFAULT_PORT),
        database(config)
    )
}

/// libpq's rule: a database that is not named is called as the user is.
fn database(config: &Config) -> &str {
    let user = config.get_user().unwrap_or_default();
    config.get_dbname().unwrap_or(user)
}

impl PostgresAddress {
    /// Whether it holds a password.
    #[must_use]
    pub fn has_password(&self) -> bool {
        self.config.get_password().is_some()
    }

    /// The same address with the password that a password file has for it, if it has one (PostgreSQL's
    /// manual, "The Password File"); one that the address holds itself stays.
    ///
    /// # Errors
    /// [`ReadPasswordFileError`] says what to do.
    pub fn with_password_of(mut self, file: &Path) -> Result<Self, ReadPasswordFileError> {
        if self.has_password() {
            return Ok(self);
        }
        let text = password_file::read(file)?;
        let host = match self.config.get_hosts().first() {
            Some(Host::Tcp(name)) => name.clone(),
            Some(Host::Unix(directory)) => directory.display().to_string(),
            None => String::new(),
        };
        let port = self.config.get_ports().first().unwrap_or(&DEFAULT_PORT);
        let user = self.config.get_user().unwrap_or_default();
        let key = [&host, &port.to_string(), database(&self.config), user];
        if let Some(password) = password_file::find(&text, key) {
            self.config.password(password);
        }
        Ok(self)
    }

    pub(super) const fn config(&self) -> &Config {
        &self.config
    }

    pub(super) const fn security(&self) -> Option<&Security> {
        self.security.as_ref()
    }

    pub(super) fn place(&self) -> &str {
        &self.place
    }
}

impl fmt::Display for PostgresAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.place)
    }
}

impl fmt::Debug for PostgresAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_tuple("PostgresAddress")
            .field(&self.place)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_shows_everything_but_its_password() {
        for (text, place) in [
            (
                "postgres://regatta:s3cret@db:5433/ledger?sslmode=prefer",
                "postgres://regatta@db:5433/ledger",
            ),
            (
                "postgresql://regatta:s3cret@/ledger?host=/run/postgresql",
                "postgres://regatta@/run/postgresql:5432/ledger",
            ),
            ("postgres://u@a,b", "postgres://u@a,b:5432/u"),
        ] {
            let address: PostgresAddress = text.parse().expect(text);
            assert_eq!(address.to_string(), place);
            assert!(!format!("{address:?}").contains("s3cret"));
            assert_eq!(address.has_password(), text.contains("s3cret"));
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_what_to_do() {
        for (text, words) in [
            ("mysql://a", "begins with `postgres://`"),
            (
                "postgres://u@h/d?sslrootcert=/ca.pem",
                "sslmode=verify-full",
            ),
            ("postgres://u@h/d?sslmode=verify-ca", "sslmode"),
            ("postgres://u:s3cret@h/d?nonsense=1", "nonsense"),
            ("postgres://u:s3cret@h:port/d", "port"),
            ("postgres:///d", "names no host"),
            ("postgres://u:p@s3cret@h/d", "%40"),
        ] {
            let error = text.parse::<PostgresAddress>().expect_err(text).to_string();
            assert!(error.contains(words), "{text}: {error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn encryption_is_demanded_as_libpq_is_told_to() {
        let security = |text: &str| {
            let address: PostgresAddress = text.parse().expect(text);
            (
                address.config().get_ssl_mode(),
                address.security().map(|it| format!("{it:?}")),
            )
        };
        let of = |file: Option<&str>| Some(format!("{:?}", Security::new(file.map(PathBuf::from))));
        let h = "postgres://u:p?w@h/d";
        assert_eq!(security(h), (SslMode::Prefer, None));
        for (parameters, file) in [
            ("sslmode=require", None),
            ("sslmode=verify-full", None),
            (
                "sslrootcert=%2Fa%20b.pem&sslmode=verify-full",
                Some("/a b.pem"),
            ),
            (
                "connect_timeout=7&sslmode=require&sslrootcert=ca.pem",
                Some("ca.pem"),
            ),
        ] {
            let found = security(&format!("{h}?{parameters}"));
            assert_eq!(found, (SslMode::Require, of(file)), "{parameters}");
        }
        let socket = "postgres://u@/d?host=/run/postgresql&sslmode=verify-full&sslrootcert=/ca.pem";
        assert_eq!(security(socket), (SslMode::Disable, None));
    }

    #[test]
    fn nothing_waits_for_ever() {
        let address: PostgresAddress = "postgres://u@h/d".parse().expect("valid");
        let config = address.config();
        assert_eq!(config.get_connect_timeout(), Some(&CONNECT_TIMEOUT));
        assert_eq!(config.get_tcp_user_timeout(), Some(&TCP_USER_TIMEOUT));
        assert_eq!(config.get_keepalives_retries(), Some(3));
        let own: PostgresAddress = "postgres://u@h/d?connect_timeout=7".parse().expect("valid");
        assert_eq!(
            own.config().get_connect_timeout().map(Duration::as_secs),
            Some(7)
        );
    }
}
