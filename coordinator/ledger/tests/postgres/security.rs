//! Encrypted connections, and servers that are not believed.

use std::path::{Path, PathBuf};
use std::process::Command;

use regatta_ledger::{CoordinatorIdentity, Inheritance, Ledger, OpenPostgresError, PostgresLedger};
use tempfile::TempDir;

use super::server::{DATABASE, PostgresServer, USER, expect_success, give_away};

const PASSWORD: &str = "s3cret";
/// Whom the certificate is for. It is for no other name of this machine.
const HOST: &str = "127.0.0.1";
/// What the server says of an encrypted connection whose password was right.
const ADMITTED: &str = "SSL enabled";

/// Authorities, and what they signed.
struct Certificates {
    directory: TempDir,
}

impl Certificates {
    /// One authority that signed a server's certificate, and one that did not.
    fn new() -> Self {
        let made = Self {
            directory: tempfile::tempdir().expect("a directory"),
        };
        for authority in ["authority", "stranger"] {
            made.make(&["-subj", &format!("/CN={authority}")], authority);
        }
        let (certificate, key) = (made.certificate("authority"), made.key("authority"));
        let signed_by = ["-CA", path(&certificate), "-CAkey", path(&key)];
        let name = format!("subjectAltName=IP:{HOST}");
        let own = ["-addext", &name, "-addext", "basicConstraints=CA:FALSE"];
        let subject = ["-subj", "/CN=server"];
        made.make(&[&signed_by[..], &own, &subject].concat(), "server");
        for mine in [made.directory.path(), &made.key("server")] {
            give_away(mine);
        }
        made
    }

    fn make(&self, arguments: &[&str], name: &str) {
        let mut make = Command::new("openssl");
        make.args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"]);
        make.args(["-pkeyopt", "ec_paramgen_curve:prime256v1"]);
        make.args(arguments);
        make.arg("-keyout").arg(self.key(name));
        make.arg("-out").arg(self.certificate(name));
        expect_success(&make.output().expect("openssl starts"));
    }

    fn certificate(&self, name: &str) -> PathBuf {
        self.directory.path().join(format!("{name}.pem"))
    }

    fn key(&self, name: &str) -> PathBuf {
        self.directory.path().join(format!("{name}.key"))
    }

    /// A server that shows the certificate.
    fn server(&self) -> PostgresServer {
        let file = |name: &str, file: &Path| format!("{name}={}", path(file));
        PostgresServer::on_tcp_with(
            PASSWORD,
            &[
                "ssl=on",
                "log_connections=on",
                &file("ssl_cert_file", &self.certificate("server")),
                &file("ssl_key_file", &self.key("server")),
            ],
        )
    }
}

fn path(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

async fn open(authority: &str, parameters: &str) -> Result<PostgresLedger, OpenPostgresError> {
    let url = format!("postgres://{USER}:{PASSWORD}@{authority}/{DATABASE}?{parameters}");
    let address = url.parse().expect("an address");
    PostgresLedger::open(
        address,
        &CoordinatorIdentity::default(),
        Inheritance::OfTheSame,
    )
    .await
}

#[tokio::test]
async fn every_connection_is_encrypted_if_that_is_demanded() {
    let certificates = Certificates::new();
    let server = certificates.server();
    let file = certificates.certificate("authority");
    let demanded = format!("sslmode=verify-full&sslrootcert={}", path(&file));
    let ledger = open(&server.authority(), &demanded).await.expect("opens");
    ledger.reserve_tokens(4096).await.expect("reserves");
    assert_eq!(ledger.reserved_tokens().await, Ok(4096));
    let sessions = "FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
        WHERE application_name LIKE 'regatta coordinator%'";
    // The one that writes, and one that reads.
    let encrypted = server.sql(&format!("SELECT bool_and(ssl), count(*) > 1 {sessions}"));
    assert_eq!(encrypted, "t|t");
    assert!(server.said().contains(ADMITTED), "{}", server.said());
}

#[tokio::test]
async fn a_server_that_is_not_the_one_that_is_meant_learns_nothing() {
    let certificates = Certificates::new();
    let server = certificates.server();
    let authority = path(&certificates.certificate("authority")).to_owned();
    let demanded = |file: &str| format!("sslmode=require&sslrootcert={file}");
    let stranger = demanded(path(&certificates.certificate("stranger")));
    let nowhere = demanded("/no/such/file.pem");
    let no_certificate = demanded(path(&certificates.key("authority")));
    let other_name = server.authority().replace(HOST, "localhost");
    for (host, parameters, words) in [
        (server.authority(), stranger.as_str(), "UnknownIssuer"),
        (server.authority(), "sslmode=require", "UnknownIssuer"),
        (other_name, &demanded(&authority), "localhost"),
        (server.authority(), &nowhere, "/no/such/file.pem"),
        (server.authority(), &no_certificate, "authority.key"),
    ] {
        let error = open(&host, parameters).await.expect_err(words);
        let untrusted = matches!(error, OpenPostgresError::Untrusted { .. });
        assert!(untrusted && error.to_string().contains(words), "{error}");
        assert!(!error.to_string().contains(PASSWORD), "{error}");
    }
    assert!(!server.said().contains(ADMITTED), "{}", server.said());
}

#[tokio::test]
async fn a_server_without_encryption_is_not_spoken_to_if_it_is_demanded() {
    let server = PostgresServer::on_tcp(PASSWORD);
    let error = open(&server.authority(), "sslmode=require").await;
    let error = error.expect_err("cannot be opened").to_string();
    assert!(error.contains("server does not support TLS"), "{error}");
    let opened = open(&server.authority(), "sslmode=prefer").await;
    opened.expect("opens without");
}
