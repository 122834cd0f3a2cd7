//! Go modules and Go's test programs, with the go command of the image.

use super::{check, run, tests};
use crate::fleet::Fleet;
use crate::program::{Ended, write};
use crate::toolbox::Toolbox;
use crate::workstation::bookworm;

const SUM: &str = "package m\nfunc Sum(a, b int) int { return a + b }\n";
const SUM_TEST: &str = r#"package m

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

func TestMain(m *testing.M) {
	fmt.Println("before all tests")
	code := m.Run()
	fmt.Println("after them")
	os.Exit(code)
}

func TestSum(t *testing.T) {
	fmt.Print("no newline")
	if Sum(1, 2) != 3 { t.Fatal("no sum") }
}
func TestÜber_1(t *testing.T) {}
func TestReadsAFile(t *testing.T) {
	text, err := os.ReadFile("testdata/ü x")
	if err != nil || string(text) != "here" { t.Fatal(string(text), err) }
}
func TestSkipsItself(t *testing.T) { t.Skipf("not %s", "here") }
func TestManySubtests(t *testing.T) {
	for i := 0; i < 2000; i++ {
		t.Run(strings.Repeat("x", 20)+fmt.Sprint(i), func(t *testing.T) { t.Parallel() })
	}
}
func ExampleSum() {
	fmt.Println(Sum(1, 2))
	// Output: 3
}
func ExampleSum_withoutOutput() { fmt.Println(Sum(1, 2)) }
func BenchmarkSum(b *testing.B) { b.Fatal("not run") }
func FuzzSum(f *testing.F) {
	f.Add(1)
	f.Fuzz(func(t *testing.T, a int) { if Sum(a, 0) != a { t.Fatal(a) } })
}
"#;
// With cgo, which makes it a dynamic program.
const SUB_TEST: &str = r#"package sub

import "testing"
import "os/user"

func TestSub(t *testing.T) { user.Current() }
"#;
const BAD_TEST: &str = r#"package bad_test

import (
	"fmt"
	"os"
	"syscall"
	"testing"
)

func TestPasses(t *testing.T) {}
func TestFails(t *testing.T) { t.Error("the reason") }
func TestPanics(t *testing.T) { panic("the panic") }
func TestExits(t *testing.T) { os.Exit(0) }
func TestExitsUnseen(t *testing.T) {
	fmt.Println("PASS")
	syscall.Exit(0)
}
func TestHangs(t *testing.T) { select {} }
func TestReallyHangs(t *testing.T) { for { syscall.Pause() } }
func TestClosesItsOutput(t *testing.T) { os.Stdout.Close() }
func ExamplePrints() {
	fmt.Println("one")
	// Output: two
}
func FuzzFails(f *testing.F) {
	f.Add("seed")
	f.Fuzz(func(t *testing.T, text string) { t.Fatal(text) })
}
"#;

fn module() -> Toolbox {
    let toolbox = Toolbox::new(&bookworm(), &["go"]);
    toolbox.write(&[
        ("go.mod", "module example.com/m\n\ngo 1.19\n"),
        ("sum.go", SUM),
        ("sum_test.go", SUM_TEST),
        ("testdata/ü x", "here"),
        ("none/none.go", "package none\n"),
        ("sub/sub_test.go", SUB_TEST),
    ]);
    toolbox
}

/// How many top-level tests go itself says that there are, by how they ended.
fn count(ended: &Ended, status: &str) -> usize {
    let begin = format!("--- {status}: ");
    // What a test printed without a newline stands before it.
    let lines = ended
        .stdout
        .lines()
        .filter(|line| !line.starts_with("    "));
    lines.filter(|line| line.contains(&begin)).count()
}

#[test]
fn a_go_module_needs_no_configuration() {
    let fleet = Fleet::with_image(&bookworm());
    let toolbox = module();
    let first = toolbox.test(&fleet, "", &["--junit", "junit.xml"]);
    first.expect_code(0);
    let good = |status| {
        [
            ("TestSum", status, ""),
            ("TestÜber_1", status, ""),
            ("TestReadsAFile", status, ""),
            ("TestSkipsItself", "skipped", "not here"),
            ("TestManySubtests", status, ""),
            ("ExampleSum", status, ""),
            ("FuzzSum", status, ""),
        ]
    };
    check(&first, "example.com/m", &good("passed"));
    let sub = |status| [("TestSub", status, "")];
    check(&first, "example.com/m/sub", &sub("passed"));
    let own = toolbox.shell("go test -v ./...");
    own.expect_code(0);
    assert_eq!(
        tests(&first).len(),
        count(&own, "PASS") + count(&own, "SKIP"),
        "{own:#?}"
    );
    assert_eq!(count(&own, "SKIP"), 1);

    let again = toolbox.test(&fleet, "", &["--junit", "junit.xml"]);
    check(&again, "example.com/m", &good("cached"));
    assert_eq!(again.finished()["leases"], 0, "{again:#?}");

    // From there downwards, as `go test ./...`.
    let below = toolbox.test(&fleet, "sub", &["--no-cache"]);
    check(&below, "example.com/m/sub", &sub("passed"));
    assert_eq!(tests(&below).len(), 1, "{below:#?}");
    let all = ["--workspace", "--exclude", ".", "Sub"];
    let rest = toolbox.test(&fleet, "sub", &all);
    check(&rest, "example.com/m/sub", &sub("cached"));
    assert_eq!(tests(&rest).len(), 1, "{rest:#?}");

    toolbox.write(&[("testdata/ü x", "changed")]);
    let changed = toolbox.test(&fleet, "", &["--no-fail-fast"]);
    changed.expect_code(100);
    check(&changed, "example.com/m/sub", &sub("cached"));
    toolbox.test(&fleet, "none", &[]).expect_code(4);
    let features = toolbox.test(&fleet, "", &["--release"]);
    features
        .expect_code(96)
        .expect_complaint(&["is a Go module", "GOFLAGS"]);
    toolbox.write(&[("sub/sub_test.go", "package sub\nfunc TestSub( {}\n")]);
    let broken = toolbox.test(&fleet, "", &[]);
    broken
        .expect_code(101)
        .expect_complaint(&["example.com/m/sub"]);
    let text = "package sub\nimport \"testing\"\nfunc TestSub(t *testing.T) { x }\n";
    toolbox.write(&[("sub/sub_test.go", text)]);
    let broken = toolbox.test(&fleet, "", &[]);
    broken
        .expect_code(101)
        .expect_complaint(&["undefined: x", "the build failed of example.com/m/sub"]);
    fleet.stop();
}

#[test]
fn go_tests_end_as_they_do_by_themselves() {
    let fleet = Fleet::with_image(&bookworm());
    let toolbox = Toolbox::new(&bookworm(), &["go"]);
    toolbox.write(&[
        ("go.mod", "module bad\n\ngo 1.19\n"),
        ("bad_test.go", BAD_TEST),
    ]);
    let ended = toolbox.test(&fleet, "", &["--no-fail-fast", "--timeout", "5s"]);
    ended
        .expect_code(100)
        .expect_complaint(&["the reason", "the panic"]);
    let expected = [
        ("TestPasses", "passed", ""),
        ("TestFails", "failed", ""),
        ("TestPanics", "failed", ""),
        ("TestExits", "failed", ""),
        (
            "TestExitsUnseen",
            "failed",
            "before it said that the test passed",
        ),
        // Go sees by itself that nothing can go on.
        ("TestHangs", "failed", ""),
        ("TestReallyHangs", "failed", ""),
        (
            "TestClosesItsOutput",
            "failed",
            "before it said that the test passed",
        ),
        ("ExamplePrints", "failed", ""),
        ("FuzzFails", "failed", ""),
    ];
    check(&ended, "bad", &expected);
    fleet.stop();
}

const PIPELINE: &str = r#"
[jobs.build]
inputs = ["go.mod", "**/*_test.go"]
env = { GOCACHE = "/tmp/cache" }
run = "go test -c -o sub/sub.test ./sub && printf '#!/bin/sh\necho hello' > nothing && chmod +x nothing"
outputs = ["nothing", "sub/sub.test"]

[jobs.check]
needs = ["build"]
suite = { adapter = "go", run = 'cd sub && exec ./sub.test "$@"' }

[jobs.nothing]
needs = ["build"]
suite = { adapter = "go", run = ["./nothing"] }

[jobs.mistaken]
needs = ["build"]
suite = { adapter = "go", discover = 'echo TestOther; : "$@"', run = ["sub/sub.test"] }
"#;

#[test]
fn a_go_program_may_be_built_by_a_job() {
    let fleet = Fleet::with_image(&bookworm());
    let project = tempfile::tempdir().expect("a directory");
    let test = "package sub\nimport \"testing\"\nfunc TestSub(t *testing.T) {}\n";
    let files = [
        ("regatta.toml", PIPELINE),
        ("go.mod", "module m\n\ngo 1.19\n"),
        ("sub/sub_test.go", test),
    ];
    write(project.path(), &files);
    let ended = run(&fleet, &project, &[]);
    ended.expect_code(100);
    check(&ended, "check", &[("TestSub", "passed", "")]);
    check(
        &ended,
        "mistaken",
        &[("TestOther", "failed", "did not run exactly this test: PASS")],
    );
    ended.expect_complaint(&["no line of a list that a Go test program prints"]);
    fleet.stop();
}
