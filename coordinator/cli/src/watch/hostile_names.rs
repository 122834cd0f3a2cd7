//! Names and messages that move a cursor, hide, or look like others, in all that is made of a run.

use regatta_wire::v1::{self, run_event::Event};

use super::screen::memory::MemoryScreen;
use super::*;

/// What a test may be called, a machine may answer and an agent may be called.
const HOSTILE: &str = "\x1b[2J\u{9b}1m\u{202e}\x0b";
/// The same as everybody is to see it.
const SHOWN: &str = "\\u{1b}[2J\\u{9b}1m\\u{202e}\\u{b}";

fn spoil(text: &mut String) {
    if !text.is_empty() {
        text.push_str(HOSTILE);
    }
}

fn spoil_result(result: &mut v1::TestResult) {
    spoil(&mut result.test_id);
    spoil(&mut result.message);
    if let Some(place) = &mut result.r#where {
        spoil(&mut place.agent_id);
    }
}

/// Has every name and message of a run be hostile; what tests print is as it was.
fn hostile(mut events: Vec<v1::RunEvent>) -> Vec<v1::RunEvent> {
    for event in events.iter_mut().filter_map(|event| event.event.as_mut()) {
        match event {
            Event::TestsFinished(finished) => finished.results.iter_mut().for_each(spoil_result),
            Event::TestRetried(retried) => retried.result.iter_mut().for_each(spoil_result),
            Event::JobFinished(finished) => spoil(&mut finished.message),
            Event::InfrastructureRetry(retry) => {
                spoil(&mut retry.test_id);
                spoil(&mut retry.agent_id);
                spoil(&mut retry.message);
            }
            Event::TestSlow(slow) => {
                spoil(&mut slow.test_id);
                spoil(&mut slow.agent_id);
                spoil(&mut slow.duplicate_agent_id);
            }
            Event::RunFinished(finished) => finished.reasons.iter_mut().for_each(spoil),
            _ => {}
        }
    }
    events.push(v1::RunEvent {
        event: Some(Event::Warning(v1::Warning {
            job: String::new(),
            message: HOSTILE.to_owned(),
        })),
        ..v1::RunEvent::default()
    });
    events
}

fn told(mut sink: impl EventSink) {
    for event in hostile([super::recorded::mixed_run(), super::recorded::build_run()].concat()) {
        sink.event(&event).expect("it is written");
    }
    sink.finish().expect("it is written");
}

#[track_caller]
fn check(text: &str, is_json: bool) {
    let hidden = HOSTILE.chars().filter(|it| !it.is_ascii_graphic());
    for character in hidden {
        assert!(!text.contains(character), "{text:?}");
    }
    let shown = match is_json {
        true => "\\u001b[2J\\u009b1m\\u202e\\u000b",
        false => SHOWN,
    };
    assert!(text.contains(shown), "{text}");
}

#[test]
fn no_reader_of_a_run_is_deceived() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = |name: &str| directory.path().join(name);
    let read = |name: &str| std::fs::read_to_string(file(name)).expect("it is written");
    for live_output in [false, true] {
        let screen = MemoryScreen::default();
        let options = ReportOptions {
            paint: Paint::Plain,
            level: StatusLevel::All,
            live_output,
        };
        told(HumanReport::new(options, screen.clone()));
        check(&screen.text.borrow(), false);
    }
    told(JunitReport::new(file("junit.xml")));
    check(&read("junit.xml"), false);
    let mut annotations = Vec::new();
    told(GithubReport::new(
        &mut annotations,
        Some(file("summary.md")),
    ));
    check(&String::from_utf8(annotations).expect("UTF-8"), false);
    check(
        &read("summary.md").replace("\\\\", "\\").replace("\\[", "["),
        false,
    );
    let mut log = Vec::new();
    told(GitlabReport::new(&mut log, file("quality.json"), 0));
    let log = String::from_utf8(log).expect("UTF-8");
    check(&log.replace("\x1b[0K", ""), false);
    let mut lines = Vec::new();
    told(JsonReport::new(&mut lines));
    check(&String::from_utf8(lines).expect("UTF-8"), true);
}

#[test]
fn cases_of_a_report_are_as_many_as_tests() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("junit.xml");
    let mut report = JunitReport::new(file.clone());
    let names = ["v\x0btz", "vtz", "v\\u{b}tz", "v\ntz", "v tz", "\x1b[1mvtz"];
    let result = |name: &str| v1::TestResult {
        job: "unit".to_owned(),
        test_id: name.to_owned(),
        status: v1::TestStatus::Passed.into(),
        ..v1::TestResult::default()
    };
    let finished = v1::TestsFinished {
        results: names.map(result).into(),
    };
    let event = v1::RunEvent {
        event: Some(Event::TestsFinished(finished)),
        ..v1::RunEvent::default()
    };
    report.event(&event).expect("memory takes it");
    report.finish().expect("it is written");
    let text = std::fs::read_to_string(file).expect("it is written");
    let mut found: Vec<_> = text.split("<testcase name=\"").skip(1).collect();
    found = found
        .iter()
        .filter_map(|rest| rest.split('"').next())
        .collect();
    found.sort_unstable();
    found.dedup();
    assert_eq!(found.len(), names.len(), "{text}");
}
