//! What an agent shows to those who look after it.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use super::fleet::Fleet;
use super::program::{Ended, wait_until};

/// An address that was free a moment ago.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address")
}

fn page(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn an_agent_of_its_own_shows_its_metrics() {
    let mut fleet = Fleet::coordinator();
    let address = free_address();
    fleet.add_agent(&["--http-listen", &address.to_string()]);
    Ended::of(fleet.command().args(["exec", "--", "true"])).expect_code(0);
    assert!(page(address, "/healthz").ends_with("ok\n"));
    wait_until("the command is counted", || {
        let metrics = page(address, "/metrics");
        let shown = |line: &str| metrics.lines().any(|it| it.starts_with(line));
        shown("regatta_agent_exec_seconds_count 1") && shown("regatta_agent_slots{")
    });
    fleet.stop();
}
