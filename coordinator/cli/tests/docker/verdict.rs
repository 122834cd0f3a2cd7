//! `regatta verdict`, `regatta verify` and `regatta keys`.

use std::path::Path;
use std::process::Command;

use super::fleet::Fleet;
use super::program::{Ended, regatta, write};
use super::repository::{commit, git};

const PIPELINE: &str = r#"
[jobs.make]
inputs = ["words"]
run = "sort words > sorted"
outputs = ["sorted"]
"#;

#[track_caller]
fn check(ended: &Ended, code: i32, words: &[&str]) {
    ended.expect_code(code);
    for words in words {
        assert!(ended.stdout.contains(words), "no {words:?} in {ended:#?}");
    }
}

/// A project with a commit, and a place beside it.
struct Project {
    root: tempfile::TempDir,
    out: tempfile::TempDir,
}

impl Project {
    fn new() -> Self {
        let [root, out] = [(); 2].map(|()| tempfile::tempdir().expect("a directory"));
        git(
            root.path(),
            &["init", "--quiet", "--initial-branch", "main"],
        );
        write(
            root.path(),
            &[("regatta.toml", PIPELINE), ("words", "b\na\n")],
        );
        Self { root, out }
    }

    fn path(&self) -> &Path {
        self.root.path()
    }

    /// A file beside it.
    fn file(&self, name: &str) -> String {
        self.out.path().join(name).display().to_string()
    }

    fn run(&self, fleet: &Fleet, arguments: &[&str]) -> Ended {
        Ended::of(fleet.command().current_dir(self.path()).args(arguments))
    }
}

#[test]
fn a_commit_has_the_verdict_of_the_runs_of_its_files() {
    let fleet = Fleet::of(1);
    let project = Project::new();
    let run = |arguments: &[&str]| project.run(&fleet, arguments);
    let good = commit(project.path());
    let unknown = run(&["verdict"]);
    check(&unknown, 2, &["UNKNOWN: no run of commit", &good]);
    run(&["run"]).expect_code(0);
    let of_main = format!("commit  {good} on main\n");
    let words = [
        "RELEASABLE\n",
        &of_main,
        "artefacts  make/sorted ",
        "signed by",
    ];
    check(&run(&["verdict"]), 0, &words);

    // The report of a run is no change of its project.
    run(&["run", "--junit", "report.xml"]).expect_code(0);
    run(&["run", "--junit", "report.xml"]).expect_code(0);
    std::fs::remove_file(project.path().join("report.xml")).expect("it is there");
    let verdict = run(&["verdict"]);
    let words = [
        "RELEASABLE\n",
        "leases  0\n",
        "s from the commit to the verdict\n",
    ];
    check(&verdict, 0, &words);
    let history = run(&[
        "history", "--format", "json", "--by", "branch", "--branch", "main",
    ]);
    let history: serde_json::Value = serde_json::from_str(&history.stdout).expect("is JSON");
    let (runs, lead) = (&history["groups"][0], "lead_seconds_p50");
    assert_eq!(runs["name"], "main");
    // The first of its runs ends it, so that all of them have one.
    assert!(runs[lead].as_f64() > Some(0.0), "{history}");
    assert_eq!(runs[lead], runs["lead_seconds_p95"]);

    // A change that is not committed says nothing of the commit, and a bad commit is bad.
    write(project.path(), &[("words", "")]);
    run(&["run"]).expect_code(0);
    assert_eq!(run(&["verdict"]).stdout, verdict.stdout);
    let jobs = "[jobs.make]\nrun = 'exit 3'\n[jobs.lint]\nrun = 'true'\n";
    write(project.path(), &[("regatta.toml", jobs)]);
    let bad = commit(project.path());
    run(&["run"]).expect_code(101);
    let failed = run(&["verdict"]);
    check(&failed, 1, &["NOT_RELEASABLE\n", "because", &bad]);
    run(&["run", "lint"]).expect_code(0);
    assert_eq!(run(&["verdict"]).stdout, failed.stdout, "less passed since");
    assert_eq!(run(&["verdict", &good]).stdout, verdict.stdout);
    run(&["verdict", "no-such-tag"])
        .expect_code(96)
        .expect_complaint(&["git knows no commit `no-such-tag`"]);
    fleet.stop();
}

#[test]
fn a_verdict_can_be_verified_without_the_coordinator() {
    let mut fleet = Fleet::of(1);
    let project = Project::new();
    let file = |name: &str| project.file(name);
    let good = commit(project.path());
    project.run(&fleet, &["run"]).expect_code(0);
    let (bundle, key) = (file("verdict.intoto.jsonl"), file("key.pub"));
    let verdict = project.run(&fleet, &["verdict", "--output", &bundle]);
    let printed = project.run(&fleet, &["keys"]);
    std::fs::write(&key, &printed.expect_code(0).stdout).expect("written");
    let text = std::fs::read_to_string(&bundle).expect("is there");
    let json = project.run(&fleet, &["verdict", "--json", "main"]);
    assert_eq!(json.stdout, text);

    // The key outlives the coordinator, and so does what it signed.
    let address = fleet.url().replacen("grpc://", "", 1);
    fleet.kill_coordinator();
    let verify = |arguments: &[&str]| Ended::of(regatta().arg("verify").args(arguments));
    let verified = verify(&[&bundle, "--key", &key, "--commit", &good]);
    verified.expect_code(0);
    assert_eq!(verified.stdout, verdict.stdout);
    verify(&[&bundle, "--key", &key, "--commit", &"0".repeat(40)])
        .expect_code(1)
        .expect_complaint(&["cannot be believed", &good]);
    std::fs::write(file("sorted"), "a\nb\n").expect("written");
    let made = verify(&[&bundle, "--key", &key, "--artefact", &file("sorted")]);
    check(&made, 0, &["RELEASABLE\n", " is sorted, as it was made\n"]);
    std::fs::write(file("sorted"), "b\na\n").expect("written");
    verify(&[&bundle, "--key", &key, "--artefact", &file("sorted")])
        .expect_code(1)
        .expect_complaint(&[
            "cannot be believed",
            "is nothing that a build of it has made",
        ]);
    let edited = text.replacen("ey", "eZ", 1);
    assert_ne!(edited, text);
    std::fs::write(file("edited"), edited).expect("written");
    verify(&[&file("edited"), "--key", &key])
        .expect_code(1)
        .expect_complaint(&["cannot be believed: line 1", "no signature of the key"]);
    let other = Ended::of(regatta().args(["keys", "--new", &file("other.pem")]));
    std::fs::write(file("other.pub"), &other.expect_code(0).stdout).expect("written");
    verify(&[&bundle, "--key", &file("other.pub")]).expect_code(1);
    Ended::of(regatta().args(["keys", "--new", &file("other.pem")])).expect_code(99);
    verify_with_openssl(&text, Path::new(&key), project.out.path());

    fleet.start_coordinator(&address);
    let again = project.run(&fleet, &["verdict", &good]);
    assert_eq!(again.stdout, verdict.stdout);
    let kept = project.run(&fleet, &["verdict", &good, "--kept"]);
    check(&kept, 0, &["GIVEN", "RELEASABLE"]);
    assert_eq!(kept.stdout.lines().count(), 2, "it is one, {kept:#?}");
    fleet.stop();
}

/// Somebody else's Ed25519, over DSSE as its specification has it.
fn verify_with_openssl(bundle: &str, key: &Path, out: &Path) {
    let line = bundle.lines().next().expect("a line");
    let envelope: serde_json::Value = serde_json::from_str(line).expect("is JSON");
    let decode = |text: &serde_json::Value, name: &str| {
        let encoded = out.join("encoded");
        std::fs::write(&encoded, text.as_str().expect("is text")).expect("written");
        let mut base64 = Command::new("base64");
        let decoded = base64
            .arg("--decode")
            .arg(&encoded)
            .output()
            .expect("decodes");
        std::fs::write(out.join(name), &decoded.stdout).expect("written");
        decoded.stdout
    };
    let payload = decode(&envelope["payload"], "payload");
    decode(&envelope["signatures"][0]["sig"], "signature");
    let kind = "application/vnd.in-toto+json";
    let head = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len());
    std::fs::write(out.join("signed"), [head.as_bytes(), &payload].concat()).expect("written");
    let mut openssl = Command::new("openssl");
    let openssl = openssl
        .args(["pkeyutl", "-verify", "-pubin", "-rawin", "-inkey"])
        .arg(key)
        .args(["-in", "signed", "-sigfile", "signature"])
        .current_dir(out);
    Ended::of(openssl).expect_code(0);
    let statement: serde_json::Value = serde_json::from_slice(&payload).expect("is JSON");
    assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
}

const SUITE: &str = r#"case $1 in
list) printf 'one\ntwo\n';;
run)
  printf '<testsuite name="s">' > junit.xml
  while read -r id; do
    printf '<testcase name="%s" classname="">' "$id" >> junit.xml
    if [ "$id" = two ]; then printf '<failure message="is broken"/>' >> junit.xml; fi
    printf '</testcase>' >> junit.xml
  done < "${2#@}"
  printf '</testsuite>' >> junit.xml;;
esac
"#;

fn with_policy(policy: &str) -> String {
    format!(
        r#"
[policy]
{policy}
{PIPELINE}
[jobs.lint]
run = "true"

[jobs.check]
inputs = ["suite.sh"]
[jobs.check.suite]
discover = ["sh", "suite.sh", "list"]
run = ["sh", "suite.sh", "run"]
junit = "junit.xml"
[[jobs.check.suite.quarantine]]
test = "two"
owner = "jane@example.org"
expires = 2999-12-31
"#
    )
}

#[test]
fn a_commit_is_releasable_once_all_that_its_policy_requires_has_run() {
    let fleet = Fleet::of(1);
    let project = Project::new();
    let run = |arguments: &[&str]| project.run(&fleet, arguments);
    let has_policy = |policy: &str| {
        let files = [
            ("regatta.toml", &with_policy(policy)[..]),
            ("suite.sh", SUITE),
        ];
        write(project.path(), &files);
    };
    has_policy("required = ['make', 'check']\nmax_quarantined = 1");
    commit(project.path());
    run(&["run", "lint"]).expect_code(0);
    let lacks = ["`check`", "`make`"]
        .map(|job| format!("because  job {job}, which the policy requires, has not run\n"));
    let nothing = run(&["verdict"]);
    check(&nothing, 2, &["UNKNOWN\n", &lacks[0], &lacks[1]]);
    run(&["run", "make"]).expect_code(0);
    let half = run(&["verdict"]);
    check(&half, 2, &["UNKNOWN\n", &lacks[0]]);
    assert!(!half.stdout.contains("`make`"), "{half:#?}");

    // What three runs did, one at a time.
    run(&["run", "check"]).expect_code(0);
    let (bundle, key) = (project.file("verdict.jsonl"), project.file("key.pub"));
    let whole = run(&["verdict", "--output", &bundle]);
    let words = [
        "RELEASABLE\n",
        "and runs  ",
        "required  check, make; at most 1 quarantined (policy ",
        "quarantine  check two\n",
    ];
    check(&whole, 0, &words);
    let printed = run(&["keys"]);
    std::fs::write(&key, &printed.expect_code(0).stdout).expect("written");
    let verify = |policy: &str| {
        let policy = project.path().join(policy).display().to_string();
        let options = ["--key", &key, "--policy", &policy];
        Ended::of(regatta().args(["verify", &bundle]).args(options))
    };
    assert_eq!(verify("regatta.toml").expect_code(0).stdout, whole.stdout);

    // A looser policy is not the commit's, and nobody takes it for that.
    let loose = with_policy("required = ['lint']");
    write(
        project.path(),
        &[("loose.toml", &loose), (".gitignore", "loose.toml\n")],
    );
    let other = verify("loose.toml");
    other
        .expect_code(1)
        .expect_complaint(&["by another policy, which requires check, make"]);
    commit(project.path());
    run(&["run", "--file", "loose.toml", "lint"]).expect_code(0);
    check(&run(&["verdict"]), 2, &["UNKNOWN: no run of commit"]);

    // A limit fails the run that exceeds it, and its commit.
    has_policy("max_quarantined = 0");
    commit(project.path());
    let exceeds = "tests that failed in quarantine: 1, and the policy allows 0";
    let ended = run(&["run"]);
    ended.expect_code(100);
    assert!(ended.stdout.contains(exceeds), "{ended:#?}");
    check(&run(&["verdict"]), 1, &["NOT_RELEASABLE\n", exceeds]);
    fleet.stop();
}

#[test]
fn what_is_in_no_commit_makes_the_difference() {
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path();
    let in_root = |arguments: &[&str]| git(root, arguments);
    let write = |name: &str| write(root, &[(name, name)]);
    in_root(&["init", "--quiet"]);
    ["a", "sub/b"].into_iter().for_each(write);
    std::fs::write(root.join(".gitignore"), "ignored\n").expect("written");
    in_root(&["add", "--all"]);
    in_root(&["commit", "--quiet", "--message", "m"]);
    ["ignored", "sub/report.xml"].into_iter().for_each(write);
    let report = root.join("sub/report.xml");
    let before = regatta::git::head(root);
    let is_dirty = |directory: &str, own: Option<&Path>| {
        let commit = regatta::git::commit_of(&root.join(directory), own, before.as_deref());
        assert!(regatta::git::is_id(&commit.id), "{commit:?}");
        commit.is_dirty()
    };
    for directory in ["", "sub"] {
        assert!(is_dirty(directory, None));
        assert!(!is_dirty(directory, Some(&report)));
    }
    let knows =
        |directory: &str, file: &str| regatta::git::knows(&root.join(directory), Path::new(file));
    assert!(knows("", "a") && knows("", "sub/b") && knows("sub", "b"));
    assert!(!knows("", "ignored") && !knows("", "*"));
    let module = root.display().to_string();
    in_root(&["init", "--quiet", "outer"]);
    let outer = ["-C", "outer", "-c", "protocol.file.allow=always"];
    in_root(&[&outer[..], &["submodule", "--quiet", "add", &module, "in"]].concat());
    assert!(knows("outer", "in/sub/b"));
    std::fs::remove_dir_all(root.join("outer")).expect("removed");
    write("c");
    assert!(is_dirty("sub", Some(&report)));
}
