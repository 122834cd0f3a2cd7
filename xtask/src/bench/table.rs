//! What was measured, as a table for people.

use serde_json::Value;

use super::bazel::INTERNAL;
use super::{figure, gain};

/// What a build by Bazel is to cost at most: seconds or a share of the sandbox's, and processor time of
/// coordinator and agent for each action. The machine and its load decide too much to fail because of it.
const COLD_AIM: Aim = Aim {
    seconds: None,
    of_local: Some(0.8),
    regatta_ms: 8.0,
};
const WARM_AIM: Aim = Aim {
    seconds: Some(2.5),
    of_local: None,
    regatta_ms: 0.4,
};

struct Aim {
    seconds: Option<f64>,
    of_local: Option<f64>,
    regatta_ms: f64,
}

/// Prints all that was measured.
pub(super) fn print(measured: &Value) {
    let figure = |pointer: &str| figure(measured, pointer);
    println!(
        "{:38} {:>9} {:>9}",
        "from request to result", "p50 ms", "p99 ms"
    );
    for (name, row) in [
        ("action in a warm slot", "/fleet/action/one_by_one"),
        ("action that needs a new container", "/fleet/action/fresh"),
        ("docker run --rm", "/docker_run"),
        ("action whose result is cached", "/fleet/action/cached"),
        ("GetActionResult", "/fleet/call/get_action_result"),
        ("FindMissingBlobs of one", "/fleet/call/find_missing_1"),
        (
            "FindMissingBlobs of 10,000",
            "/fleet/call/find_missing_10000",
        ),
        ("ByteStream.Read of 4 KiB", "/fleet/call/read_4_kib"),
    ] {
        let (middle, tail) = (
            figure(&format!("{row}/p50_ms")),
            figure(&format!("{row}/p99_ms")),
        );
        println!("{name:38} {middle:9.2} {tail:9.2}");
    }
    println!("{:38} {:9.0} times", "gain of a warm slot", gain(measured));
    print_processor_time(measured);
    println!("\n{:38} {:>9}", "1 GiB", "MiB/s");
    for (name, pointer) in [
        ("blob in, over gRPC", "/fleet/blob/write_mib_per_s"),
        ("blob out, over gRPC", "/fleet/blob/read_mib_per_s"),
        ("bare TCP over loopback", "/fleet/blob/tcp_mib_per_s"),
        ("cp of a file", "/file_copy/mib_per_s"),
    ] {
        println!("{name:38} {:9.0}", figure(pointer));
    }
    println!("\n{:38} {:>9}", "resident memory at rest", "MiB");
    println!(
        "{:38} {:9.0}",
        "coordinator",
        figure("/memory/coordinator_mib")
    );
    println!("{:38} {:9.0}", "agent", figure("/memory/agent_mib"));
    println!("\n{:38} {:>9}", "a project of 50,000 files", "ms");
    for (name, pass) in [
        ("digested for the first time", "first"),
        ("seen to be unchanged", "unchanged"),
    ] {
        println!(
            "{name:38} {:9.0}",
            figure(&format!("/digest_tree/{pass}/ms"))
        );
    }
    print_scheduler(&measured["scheduler"]);
    if let Some(bazel) = measured.get("bazel") {
        print_bazel(bazel);
    }
}

fn print_processor_time(measured: &Value) {
    println!(
        "\n{:38} {:>11} {:>9}",
        "processor time in ms, each", "coordinator", "agent"
    );
    for (name, way) in [
        ("action, one after another", "one_by_one"),
        ("action, fifty at once", "fifty_at_once"),
        ("action whose result is cached", "cached"),
    ] {
        let used = |member: &str| {
            figure(
                measured,
                &format!("/fleet/action/{way}/processor_ms/{member}"),
            )
        };
        println!(
            "{name:38} {:11.2} {:9.2}",
            used("coordinator"),
            used("agent")
        );
    }
    let rate = figure(measured, "/fleet/action/fifty_at_once/actions_per_second");
    println!("{:38} {rate:11.0}", "actions a second, fifty at once");
}

fn print_scheduler(points: &Value) {
    println!(
        "\n{:>10} {:>8} {:>18} {:>16} {:>12}",
        "tasks", "agents", "us an assignment", "assignments/s", "bytes/task"
    );
    for point in points.as_array().into_iter().flatten() {
        println!(
            "{:10} {:8} {:18.2} {:16.0} {:12.0}",
            figure(point, "/tasks"),
            figure(point, "/agents"),
            figure(point, "/nanos_per_assignment") / 1e3,
            figure(point, "/assignments_per_second"),
            figure(point, "/bytes_per_task"),
        );
    }
}

/// A line for each build.
fn print_bazel(bazel: &Value) {
    println!("\n{:58} processor time in ms, each", "");
    println!(
        "{:38} {:>9} {:>9} {:>11} {:>9} {:>9} {:>9}",
        format!("Bazel 4, {:.0} actions", figure(bazel, "/actions")),
        "s",
        "of local",
        "coordinator",
        "agent",
        "both",
        "docker"
    );
    let sandbox = words(&bazel["local"]["ways"]);
    print_build(&format!("local, {sandbox}"), &bazel["local"]);
    for (way, aim) in [("cold", COLD_AIM), ("warm", WARM_AIM)] {
        for fleet in bazel["fleets"].as_array().into_iter().flatten() {
            let jobs = figure(fleet, "/jobs");
            print_build(&format!("{way}, --jobs {jobs}"), &fleet[way]);
        }
        println!(
            "{:38} {} {} {:11} {:9} {:9.2}",
            format!("{way}, at most"),
            cell(aim.seconds, 9),
            cell(aim.of_local, 9),
            "",
            "",
            aim.regatta_ms
        );
    }
}

/// How actions were done that needed a process.
fn words(ways: &Value) -> String {
    let ways = ways.as_object().into_iter().flatten();
    let ways = ways.map(|(way, _)| way.as_str());
    let spawned: Vec<_> = ways.filter(|way| *way != INTERNAL).collect();
    spawned.join(", ")
}

fn print_build(name: &str, build: &Value) {
    let value = |pointer: &str| build.pointer(pointer).and_then(Value::as_f64);
    println!(
        "{name:38} {} {} {} {} {} {}",
        cell(value("/seconds"), 9),
        cell(value("/of_local"), 9),
        cell(value("/processor_ms/coordinator"), 11),
        cell(value("/processor_ms/agent"), 9),
        cell(value("/regatta_ms"), 9),
        cell(value("/processor_ms/docker"), 9),
    );
}

/// A figure that some lines lack.
fn cell(value: Option<f64>, width: usize) -> String {
    let text = value.map_or(String::new(), |value| format!("{value:.2}"));
    format!("{text:>width$}")
}
