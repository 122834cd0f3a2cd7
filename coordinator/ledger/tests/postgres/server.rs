//! A real PostgreSQL for one test: on a Unix socket in a temporary directory, and gone at its end.

use std::io::Write as _;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// PostgreSQL's own.
const DEFAULT_PORT: u16 = 5432;
/// The longest that the server may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where Debian has each release's programs.
const RELEASES: &str = "/usr/lib/postgresql";
/// Whom the server runs as if this is root, which it refuses to run as: Debian's user for it.
const SERVER_USER: &str = "postgres";
/// Who may do anything in the database.
pub(crate) const USER: &str = "regatta";
/// The database that every server has.
pub(crate) const DATABASE: &str = "postgres";

/// How a server is told to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stop {
    /// Connections are ended, and what is in memory is written.
    Fast,
    /// At once, as if the power had failed: what counts is what is in its log.
    Immediate,
}

#[derive(Debug)]
pub(crate) struct PostgresServer {
    directory: TempDir,
    /// Which is a part of its socket's name, too.
    port: u16,
    /// More of its settings.
    settings: Vec<String>,
    child: Option<Child>,
}

impl PostgresServer {
    pub(crate) fn start() -> Self {
        Self::with_settings(&[])
    }

    /// One that listens on loopback as well, where it wants a password.
    pub(crate) fn on_tcp(password: &str) -> Self {
        Self::on_tcp_with(password, &[])
    }

    /// The same with settings of its own, as `NAME=VALUE`.
    pub(crate) fn on_tcp_with(password: &str, settings: &[&str]) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        drop(listener);
        let server = Self::begun(port, &[settings, &["listen_addresses=127.0.0.1"]].concat());
        server.sql(&format!("ALTER ROLE {USER} PASSWORD '{password}'"));
        server
    }

    /// With settings of its own, as `NAME=VALUE`.
    pub(crate) fn with_settings(settings: &[&str]) -> Self {
        Self::begun(DEFAULT_PORT, settings)
    }

    fn begun(port: u16, settings: &[&str]) -> Self {
        let directory = tempfile::Builder::new()
            .prefix("regatta-postgres-")
            .tempdir()
            .expect("a directory");
        give_away(directory.path());
        let mut server = Self {
            directory,
            port,
            settings: settings.iter().map(ToString::to_string).collect(),
            child: None,
        };
        let mut make = as_server_user("initdb");
        make.args([
            "--auth-local=trust",
            "--auth-host=scram-sha-256",
            "--encoding=UTF8",
            "--no-locale",
            "--no-sync",
        ]);
        make.args(["--username", USER, "--pgdata"])
            .arg(server.data());
        expect_success(&make.output().expect("initdb starts"));
        server.start_again();
        server
    }

    pub(crate) fn start_again(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let mut start = as_server_user("postgres");
        start.arg("-D").arg(self.data());
        start.arg("-k").arg(self.directory.path());
        start.args(["-p", &self.port.to_string()]);
        for setting in ["listen_addresses=", "max_connections=30"] {
            start.args(["-c", setting]);
        }
        for setting in &self.settings {
            start.args(["-c", setting]);
        }
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.log());
        let log = log.expect("a log");
        start
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log);
        self.child = Some(start.spawn().expect("postgres starts"));
        let deadline = Instant::now() + PATIENCE;
        while !self.is_ready() {
            let log = std::fs::read_to_string(self.log()).unwrap_or_default();
            assert!(
                Instant::now() < deadline,
                "PostgreSQL does not start:\n{log}"
            );
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    fn is_ready(&self) -> bool {
        let mut ask = self.client("pg_isready");
        ask.output().is_ok_and(|output| output.status.success())
    }

    pub(crate) fn stop(&mut self, how: Stop) {
        let signal = match how {
            Stop::Fast => "INT",
            Stop::Immediate => "QUIT",
        };
        self.send(signal);
        let mut child = self.child.take().expect("it runs");
        child.wait().expect("it ends");
    }

    /// Sends a signal to the process that takes connections.
    pub(crate) fn send(&self, signal: &str) {
        let child = self.child.as_ref().expect("it runs");
        let mut kill = Command::new("kill");
        kill.args(["-s", signal, &child.id().to_string()]);
        expect_success(&kill.output().expect("kill starts"));
    }

    /// Where the socket is.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    /// What it has written to its log.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(self.log()).expect("a log")
    }

    /// The address of a database.
    pub(crate) fn url(&self, database: &str) -> String {
        let directory = self.directory.path().display();
        format!("postgres://{USER}@/{database}?host={directory}")
    }

    /// The host and the port of the one that listens on loopback.
    pub(crate) fn authority(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What a statement answers, as text; statements that have no place in a transaction go alone.
    #[track_caller]
    pub(crate) fn sql(&self, statements: &str) -> String {
        let mut ask = self.client("psql");
        ask.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align"]);
        ask.args([
            "--set",
            "ON_ERROR_STOP=1",
            "--dbname",
            DATABASE,
            "--username",
            USER,
        ]);
        ask.stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut asking = ask.spawn().expect("psql starts");
        let mut stdin = asking.stdin.take().expect("it is piped");
        stdin.write_all(statements.as_bytes()).expect("it is read");
        drop(stdin);
        let output = asking.wait_with_output().expect("psql ends");
        expect_success(&output);
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn client(&self, program: &str) -> Command {
        let mut command = Command::new(find(program));
        command.arg("--host").arg(self.directory.path());
        command.args(["--port", &self.port.to_string()]);
        command
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.stop(Stop::Immediate);
        }
    }
}

/// Makes a directory the server user's, if that is somebody else.
pub(crate) fn give_away(path: &Path) {
    if let Some((user, group)) = server_user() {
        chown(path, Some(user), Some(group)).expect("root may");
    }
}

/// The server's user and its group, if it does not run as whoever we are.
fn server_user() -> Option<(u32, u32)> {
    let own = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").expect("/proc"));
    if own != 0 {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").expect("users");
    let line = users
        .lines()
        .find(|line| line.split(':').next() == Some(SERVER_USER));
    let fields: Vec<&str> = line
        .expect("run these tests with `cargo xtask test`")
        .split(':')
        .collect();
    Some((
        fields[2].parse().expect("a number"),
        fields[3].parse().expect("a number"),
    ))
}

/// A program of the server's, which ends with the thread that starts it.
fn as_server_user(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "INT"]);
    if let Some((user, group)) = server_user() {
        command.args(["--reuid", &user.to_string(), "--regid", &group.to_string()]);
        command.arg("--clear-groups");
    }
    command.arg("--").arg(find(program)).current_dir("/");
    command
}

/// The newest release's.
fn find(program: &str) -> PathBuf {
    let releases = std::fs::read_dir(RELEASES).into_iter().flatten().flatten();
    let programs = releases.filter_map(|release| {
        let number: u32 = release.file_name().to_str()?.parse().ok()?;
        let program = release.path().join("bin").join(program);
        program.is_file().then_some((number, program))
    });
    programs
        .max()
        .map_or_else(|| program.into(), |(_, program)| program)
}

#[track_caller]
pub(crate) fn expect_success(output: &Output) {
    assert!(output.status.success(), "{output:#?}");
}
