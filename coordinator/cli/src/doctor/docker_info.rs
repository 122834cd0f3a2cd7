//! What the Docker engine says of itself.
//!
//! One question, asked over its socket as plain HTTP/1.0, whose answer ends with the connection: the
//! runtime's port has no place for what only people want to know.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::Deserialize;

use super::{Check, Level};

const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
/// How long the engine may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long its answer may be, in bytes.
const ANSWER_LIMIT_BYTES: u64 = 4 << 20;

/// What `GET /info` answers, as far as it concerns us.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DockerInfo {
    server_version: String,
    driver: String,
    #[serde(default)]
    cgroup_version: String,
    #[serde(default)]
    memory_limit: bool,
    #[serde(default)]
    pids_limit: bool,
    #[serde(default)]
    mem_total: u64,
    #[serde(default, rename = "NCPU")]
    cpus: u32,
}

impl DockerInfo {
    /// Asks the engine. Blocks.
    pub(super) fn read() -> io::Result<Self> {
        let host = std::env::var("DOCKER_HOST").unwrap_or_default();
        let path = host.strip_prefix("unix://").unwrap_or(DEFAULT_SOCKET);
        let mut socket = UnixStream::connect(path)?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        socket.set_write_timeout(Some(TIMEOUT))?;
        socket.write_all(b"GET /info HTTP/1.0\r\nHost: docker\r\n\r\n")?;
        let mut answer = Vec::new();
        socket.take(ANSWER_LIMIT_BYTES).read_to_end(&mut answer)?;
        Self::parse(&answer)
    }

    fn parse(answer: &[u8]) -> io::Result<Self> {
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
        let Some(body) = end.and_then(|end| answer.get(end + 4..)) else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it answers no HTTP",
            ));
        };
        serde_json::from_slice(body).map_err(io::Error::from)
    }

    pub(super) fn checks(&self) -> Vec<Check> {
        let machine = format!("{} CPUs, {} MiB of memory", self.cpus, self.mem_total >> 20);
        let mut checks = vec![
            Check::new(
                Level::Ok,
                "docker",
                format!("{} with {machine}", self.server_version),
            ),
            self.check_driver(),
        ];
        let cgroup = match self.cgroup_version.as_str() {
            "" => "version 1",
            "1" => "version 1",
            _ => "version 2",
        };
        checks.push(Check::new(Level::Ok, "cgroup", cgroup));
        checks.push(self.check_limits());
        checks
    }

    fn check_driver(&self) -> Check {
        match self.driver.as_str() {
            "vfs" => Check::new(
                Level::Warn,
                "storage",
                "vfs copies the image for every container; use overlay2 or fuse-overlayfs",
            ),
            driver => Check::new(Level::Ok, "storage", driver),
        }
    }

    fn check_limits(&self) -> Check {
        const NAME: &str = "limits";
        match (self.memory_limit, self.pids_limit) {
            (true, true) => Check::new(Level::Ok, NAME, "memory and processes can be limited"),
            (false, _) => Check::new(
                Level::Warn,
                NAME,
                "memory cannot be limited: one job can take the machine's; enable the memory cgroup",
            ),
            (true, false) => Check::new(
                Level::Warn,
                NAME,
                "the number of processes cannot be limited; enable the pids cgroup",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_is_judged_by_what_it_says() {
        let answer =
            b"HTTP/1.0 200 OK\r\nA: b\r\n\r\n{\"ServerVersion\":\"20.10\",\"Driver\":\"vfs\",\
            \"MemoryLimit\":true,\"PidsLimit\":true,\"MemTotal\":1048576,\"NCPU\":2,\"More\":{}}";
        let checks = DockerInfo::parse(answer).expect("it is an answer").checks();
        let levels: Vec<_> = checks.iter().map(|check| check.level).collect();
        assert_eq!(levels, [Level::Ok, Level::Warn, Level::Ok, Level::Ok]);
        assert_eq!(checks[0].detail, "20.10 with 2 CPUs, 1 MiB of memory");
        assert!(DockerInfo::parse(b"nonsense").is_err());
    }
}
