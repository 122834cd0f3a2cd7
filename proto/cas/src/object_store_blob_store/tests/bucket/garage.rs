//! A real S3 server for one test: Garage, one node with one bucket on loopback, and gone at its end.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Where the program is: `cargo xtask test` says it.
const PROGRAM: &str = "REGATTA_TEST_GARAGE";
/// The longest that the server may take to start.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const BUCKET: &str = "blobs";
pub(crate) const REGION: &str = "garage";
pub(crate) const ACCESS_KEY: &str = "GK0123456789abcdef01234567";
pub(crate) const SECRET_KEY: &str =
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

#[derive(Debug)]
pub(crate) struct GarageServer {
    directory: TempDir,
    child: Child,
    address: SocketAddr,
}

impl GarageServer {
    pub(crate) fn start() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("regatta-garage-")
            .tempdir()
            .expect("a directory");
        let (address, rpc) = (free_address(), free_address());
        let root = directory.path().display();
        let settings = format!(
            "metadata_dir = \"{root}/meta\"\n\
             data_dir = \"{root}/data\"\n\
             db_engine = \"sqlite\"\n\
             replication_factor = 1\n\
             rpc_bind_addr = \"{rpc}\"\n\
             rpc_public_addr = \"{rpc}\"\n\
             rpc_secret = \"{SECRET_KEY}\"\n\
             [s3_api]\n\
             s3_region = \"{REGION}\"\n\
             api_bind_addr = \"{address}\"\n"
        );
        let path = directory.path().join("garage.toml");
        std::fs::write(&path, settings).expect("a file");
        let program = std::env::var_os(PROGRAM).expect("run these tests with `cargo xtask test`");
        let log = std::fs::File::create(directory.path().join("log")).expect("a log");
        let child = Command::new(program)
            .arg("--config")
            .arg(path)
            .args(["server", "--single-node", "--default-bucket"])
            .env("GARAGE_DEFAULT_ACCESS_KEY", ACCESS_KEY)
            .env("GARAGE_DEFAULT_SECRET_KEY", SECRET_KEY)
            .env("GARAGE_DEFAULT_BUCKET", BUCKET)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("garage starts");
        let server = Self {
            directory,
            child,
            address,
        };
        server.wait_until_it_listens();
        server
    }

    /// Where S3 is served.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    fn wait_until_it_listens(&self) {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(self.address).is_err() {
            let log = std::fs::read_to_string(self.directory.path().join("log"));
            let log = log.unwrap_or_default();
            assert!(Instant::now() < deadline, "Garage does not start:\n{log}");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

impl Drop for GarageServer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// An address that nobody listens on.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("an address")
}
