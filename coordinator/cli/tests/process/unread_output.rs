//! Commands whose output nobody reads to its end.

use std::process::{Command, Output, Stdio};

use super::fleet::Fleet;
use super::program::{Ended, write};

/// What a shell says of a program that a pipe has ended whose reader is gone.
const UNREAD: i32 = 141;

/// Most of it on the standard output, and a little elsewhere.
const PIPELINE: &str = "[jobs.make]\nrun = 'echo elsewhere >&2; seq 1 100000'\n";

/// How a command ends with these two outputs.
fn ended(command: &mut Command, stdout: impl Into<Stdio>, stderr: impl Into<Stdio>) -> Output {
    let command = command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
    let child = command.spawn().expect("it starts");
    child.wait_with_output().expect("it ends")
}

/// A pipe that nobody reads.
fn unread() -> std::io::PipeWriter {
    let (_, writer) = std::io::pipe().expect("a pipe");
    writer
}

#[test]
fn who_has_read_enough_ends_a_command_without_a_word_and_other_pipes_are_errors() {
    let fleet = Fleet::told(&[]);
    let project = tempfile::tempdir().expect("a directory");
    write(project.path(), &[("regatta.toml", PIPELINE)]);
    let mut run = fleet.command();
    run.args(["--message-format", "json", "run"]);
    let run = Ended::of(run.current_dir(project.path()));
    run.expect_code(0);
    let run = run.lines("run-submitted")[0]["run_id"].clone();
    let run = run.as_str().expect("a text");
    let questions: [&[&str]; 4] = [
        &["logs", run],
        &["history"],
        &["ps", "--all"],
        &["--message-format", "json", "run"],
    ];
    for question in questions {
        let mut command = fleet.command();
        command.current_dir(project.path()).args(question);
        let ended = ended(&mut command, unread(), Stdio::piped());
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(UNREAD), "{question:?}: {said}");
        assert!(!said.contains("error"), "{question:?}: {said}");
    }
    // What is read first is all there.
    let mut logs = fleet.command();
    let mut child = logs
        .args(["logs", run])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let read = {
        let mut head = Command::new("head");
        let output = child.stdout.take().expect("it is a pipe");
        // Nobody has the pipe from then on.
        head.args(["-n", "2"]).stdin(output).output()
    };
    assert_eq!(read.expect("it starts").stdout, b"1\n2\n");
    let status = child.wait().expect("it ends");
    assert_eq!(status.code(), Some(UNREAD));
    // Its standard error is another file.
    let mut logs = fleet.command();
    let ended = ended(logs.args(["logs", run]), Stdio::null(), unread());
    assert_eq!(ended.status.code(), Some(99));
    fleet.stop();
}
