//! Jest's test files, with the Jest of the image.

use std::process::Command;

use super::{check, run, timed_out};
use crate::fleet::Fleet;
use crate::program::{Ended, write};
use crate::workstation::bookworm;

const PIPELINE: &str = r#"
[jobs.good]
inputs = ["package.json", "good/**"]
suite = { adapter = "jest" }

[jobs.bad]
inputs = ["package.json", "bad/**"]
timeout = "20s"
suite = { adapter = "jest", run = ["jest", "--verbose"] }

[jobs.chosen]
inputs = ["**"]
suite = { adapter = "jest", run = ["jest", "--testPathPattern", "first"], filters = ["good"] }

[jobs.again]
inputs = ["package.json", "again/**"]
suite = { adapter = "jest" }

[jobs.absent]
suite = { adapter = "jest", run = ["node_modules/.bin/jest"] }
"#;
// What its own users want, and shards do not.
const PACKAGE: &str = r#"{ "jest": {
    "verbose": true, "collectCoverage": true, "coverageThreshold": { "global": { "lines": 100 } }
} }"#;
const ODD: &str = "good/sub é/odd [x] & (y).test.js";
const FIRST: &str = r#"
const { double } = require("./double");
test("doubles", () => { console.log("what it printed"); expect(double(2)).toBe(4); });
test.skip("later", () => {});
"#;

/// Passes at its second time.
const AGAIN: &str = r#"
jest.retryTimes(1);
let times = 0;
test("a", () => { times += 1; expect(times).toBe(2); });
"#;
const FAILS: &str =
    "test('a <b>', () => { expect('\\u0001').toBe('the reason'); });\ntest('c', () => {});\n";
const FILES: [(&str, &str); 7] = [
    ("regatta.toml", PIPELINE),
    ("package.json", PACKAGE),
    ("good/first.test.js", FIRST),
    (
        "good/double.js",
        "exports.double = (x) => 2 * x;\nexports.unused = () => 1;\n",
    ),
    (
        "good/skipped.test.js",
        "test.skip('a', () => {}); test.todo('b');\n",
    ),
    (ODD, "test('a', () => {});\n"),
    ("node_modules/ignored.test.js", "test('a', () => {});\n"),
];
const BAD: [(&str, &str); 10] = [
    ("bad/before.test.js", "test('a', () => {});\n"),
    ("bad/fails.test.js", FAILS),
    (
        "bad/rejects.test.js",
        "test('a', async () => { throw new Error('rejected'); });\n",
    ),
    (
        "bad/exits.test.js",
        "test('a', () => { process.exit(0); });\n",
    ),
    ("bad/hangs.test.js", "test('a', () => { for (;;); });\n"),
    (
        "bad/never.test.js",
        "test('a', () => new Promise(() => {}));\n",
    ),
    ("bad/broken.test.js", "this is no JavaScript\n"),
    ("bad/empty.test.js", "\n"),
    (
        "bad/new.test.js",
        "test('a', () => { expect({ a: 1 }).toMatchSnapshot(); });\n",
    ),
    ("bad/zafter.test.js", "test('a', () => {});\n"),
];

fn project(more: &[(&str, &str)]) -> tempfile::TempDir {
    let project = tempfile::tempdir().expect("a directory");
    write(project.path(), &FILES);
    write(project.path(), more);
    project
}

#[test]
fn jest_suites_run_as_jest_would() {
    let fleet = Fleet::with_image(&bookworm());
    let project = project(&[]);
    let good = |status| {
        [
            ("good/first.test.js", status, ""),
            (
                "good/skipped.test.js",
                "skipped",
                "each of its tests is skipped",
            ),
            (ODD, status, ""),
        ]
    };
    let ended = run(&fleet, &project, &["good", "chosen"]);
    ended.expect_code(0);
    check(&ended, "good", &good("passed"));
    check(&ended, "chosen", &[("good/first.test.js", "passed", "")]);
    let again = run(&fleet, &project, &["good"]);
    check(&again, "good", &good("cached"));
    assert_eq!(again.finished()["leases"], 0, "{again:#?}");
    write(project.path(), &[("again/again.test.js", AGAIN)]);
    let flaky = run(&fleet, &project, &["again"]);
    flaky.expect_code(0);
    let why = "its runner ran it again";
    check(&flaky, "again", &[("again/again.test.js", "flaky", why)]);
    let absent = run(&fleet, &project, &["absent"]);
    let complaint = ["tests could not be listed", "use an image that has Jest"];
    absent.expect_code(100).expect_complaint(&complaint);
    fleet.stop();
}

#[test]
fn a_package_that_names_jest_needs_no_configuration() {
    const PACKAGE: &str = r#"{
        "scripts": { "test": "SAID=yes jest --testPathIgnorePatterns=later" },
        "devDependencies": { "jest": "*" }
    }"#;
    const USES: &str = r#"
        test("uses", () => { expect(require("dependency")).toBe(process.env.SAID); });
    "#;
    let fleet = Fleet::with_image(&bookworm());
    let project = tempfile::tempdir().expect("a directory");
    write(
        project.path(),
        &[
            ("package.json", PACKAGE),
            (".gitignore", "node_modules\n"),
            (
                "node_modules/dependency/index.js",
                "module.exports = 'yes';\n",
            ),
            ("src/é.test.js", USES),
            ("src/other.test.js", "test('a', () => {});\n"),
            ("later/third.test.js", "test('a', () => { throw 1; });\n"),
        ],
    );
    let mut git = Command::new("git");
    Ended::of(git.current_dir(project.path()).args(["init", "--quiet"])).expect_code(0);
    let test = |arguments: &[&str]| {
        let mut command = fleet.command();
        let command = command.current_dir(project.path().join("src"));
        Ended::of(
            command
                .args(["--message-format", "json", "test"])
                .args(arguments),
        )
    };
    let whole = |status| {
        [
            ("src/other.test.js", status, ""),
            ("src/é.test.js", status, ""),
        ]
    };
    let ended = test(&[]);
    ended.expect_code(0);
    check(&ended, "jest", &whole("passed"));
    let again = test(&[]);
    check(&again, "jest", &whole("cached"));
    let chosen = test(&["--no-cache", "other"]);
    check(&chosen, "jest", &[("src/other.test.js", "passed", "")]);
    // What git ignores is an input, too.
    write(
        project.path(),
        &[(
            "node_modules/dependency/index.js",
            "module.exports = 'no';\n",
        )],
    );
    test(&[]).expect_code(100);
    test(&["--release"])
        .expect_code(96)
        .expect_complaint(&["is a Jest project"]);
    fleet.stop();
}

#[test]
fn what_jest_tests_do_to_jest_is_theirs() {
    let fleet = Fleet::with_image(&bookworm());
    let project = project(&BAD);
    let ended = run(&fleet, &project, &["bad"]);
    ended.expect_code(100).expect_complaint(&["the reason"]);
    let bad = [
        ("bad/before.test.js", "passed", ""),
        ("bad/fails.test.js", "failed", "1 of 2 tests failed: a <b>"),
        ("bad/rejects.test.js", "failed", "rejected"),
        (
            "bad/exits.test.js",
            "failed",
            "the runner ended while this file ran",
        ),
        ("bad/hangs.test.js", "failed", "20 s were over"),
        // Jest's own clock.
        ("bad/never.test.js", "failed", "Exceeded timeout"),
        (
            "bad/broken.test.js",
            "failed",
            "the file's tests cannot be run",
        ),
        (
            "bad/empty.test.js",
            "failed",
            "must contain at least one test",
        ),
        ("bad/new.test.js", "failed", "was not written"),
        ("bad/zafter.test.js", "passed", ""),
    ];
    check(&ended, "bad", &bad);
    assert_eq!(timed_out(&ended), ["bad/hangs.test.js"]);
    fleet.stop();
}
