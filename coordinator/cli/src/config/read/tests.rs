use super::super::pipeline::{JobAction, SuiteAdapter};
use super::*;
use crate::jest::Jest;
use crate::pytest::Pytest;

fn parsed(text: &str) -> Result<Pipeline, ConfigError> {
    parse(text, Path::new("regatta.toml"), Path::new("."))
}

#[track_caller]
fn check_refused(text: &str, message: &str) {
    let error = parsed(text).expect_err("the configuration is bad");
    assert_eq!(error.to_string(), message);
}

#[test]
fn a_whole_configuration_is_read() {
    let pipeline = parsed(
        r#"
        [defaults]
        image = "debian:stable"
        env = { LANG = "C", A = "default" }
        timeout = "10m"
        [jobs.test]
        needs = ["build"]
        inputs = ["tests/**", "!tests/big/**"]
        [jobs.test.suite]
        discover = "./list"
        run = "./run \"$@\""
        junit = "out/junit.xml"
        filters = ["fast"]
        [jobs.build]
        image = "rust:1"
        inputs = ["src/**/*.c", "Makefile"]
        outputs = ["bin/tool"]
        run = ["make", "-j2"]
        env = { A = "job" }
        resources = { cpu = 0.5, memory = "512MiB" }
        network = true
        retry = 2
        isolation = "fresh"
        "#,
    )
    .expect("it is good");
    let names: Vec<_> = pipeline.jobs.iter().map(|job| job.name.as_str()).collect();
    assert_eq!(names, ["build", "test"]);
    let build = pipeline.job("build").expect("it is there");
    assert_eq!(
        build.image.as_ref().map(ImageReference::as_str),
        Some("rust:1")
    );
    assert_eq!(build.environment["A"], "job");
    assert_eq!(build.environment["LANG"], "C");
    assert_eq!((build.cpu_milli, build.memory_bytes), (500, 512 << 20));
    assert_eq!(build.timeout, Some(Duration::from_secs(600)));
    assert_eq!((build.retries, build.network), (2, true));
    assert_eq!(build.isolation, Isolation::Fresh);
    let words = vec!["make".to_owned(), "-j2".to_owned()];
    assert_eq!(build.action, JobAction::Command(words));
    let JobAction::Suite(suite) = &pipeline.job("test").expect("it is there").action else {
        panic!("a suite was expected");
    };
    assert_eq!(suite.discover, ["sh", "-ceu", "./list"]);
    assert_eq!(suite.run, ["sh", "-ceu", "./run \"$@\"", "run"]);
}

#[test]
fn jobs_are_selected_with_what_they_need() {
    let text = "
        [jobs]
        a = { run = 'x' }
        b = { run = 'x', needs = ['a'] }
        c = { run = 'x' }
    ";
    let pipeline = parsed(text).expect("it is good");
    let names = |selection: &[&str]| {
        let selection: Vec<_> = selection.iter().map(ToString::to_string).collect();
        pipeline.select(&selection).map(|jobs| {
            jobs.iter()
                .map(|job| job.name.to_string())
                .collect::<Vec<_>>()
        })
    };
    assert_eq!(names(&["b"]).expect("it is there"), ["a", "b"]);
    assert_eq!(names(&[]).expect("all"), ["a", "b", "c"]);
    assert_eq!(
        names(&["bb"]).expect_err("unknown").to_string(),
        "regatta.toml: there is no job `bb`; `regatta run --list` names them"
    );
}

#[test]
fn unknown_keys_are_named_with_the_nearest_valid_one() {
    check_refused(
        "[jobs.build]\nrun = 'x'\nimgae = 'y'\n",
        "regatta.toml:3:1: unknown key `imgae` in [jobs.build]; did you mean `image`?",
    );
    check_refused(
        "job = 1",
        "regatta.toml:1:1: unknown key `job` in the file; did you mean `jobs`?",
    );
    check_refused(
        "[defaults]\nzzz = 1",
        "regatta.toml:2:1: unknown key `zzz` in [defaults]; known are \
         env, image, isolation, network, resources, retry, timeout",
    );
    check_refused(
        "[jobs.a]\nrun = 'x'\n  resources = { cpus = 1 }",
        "regatta.toml:3:17: unknown key `cpus` in [jobs.a.resources]; did you mean `cpu`?",
    );
    check_refused(
        "[jobs.a.suite]\ndiscover='x'\nrun='x'\njunitt='x'",
        "regatta.toml:4:1: unknown key `junitt` in [jobs.a.suite]; did you mean `junit`?",
    );
}

#[test]
fn wrong_types_are_named() {
    check_refused(
        "[jobs.a]\nrun = 1",
        "regatta.toml:2:7: `run` in [jobs.a] must be a shell script or a list of arguments, \
         not a whole number",
    );
    check_refused(
        "[jobs.a]\nrun = ['x', 2]",
        "regatta.toml:2:13: `run` in [jobs.a] must be a list of strings, like [\"a\", \"b\"], \
         not a whole number",
    );
    check_refused(
        "[jobs.a]\nrun = 'x'\nnetwork = 'yes'",
        "regatta.toml:3:11: `network` in [jobs.a] must be true or false, not a string",
    );
    check_refused(
        "[jobs.a]\nrun = 'x'\ntimeout = 5",
        "regatta.toml:3:11: `timeout` in [jobs.a] must be a string with a unit, \
         like \"10m\" or \"90s\", not a whole number",
    );
    check_refused(
        "[jobs.a]\nrun = 'x'\nenv = { A = 1 }",
        "regatta.toml:3:13: `A` in [jobs.a.env] must be a string, not a whole number",
    );
    check_refused(
        "jobs = 1",
        "regatta.toml:1:8: `jobs` in the file must be a table, not a whole number",
    );
    check_refused(
        "[jobs]\na = 1",
        "regatta.toml:2:5: `a` in [jobs] must be a table, like [jobs.build], not a whole number",
    );
}

#[test]
fn values_that_make_no_sense_are_named() {
    check_refused(
        "[jobs.a]\nrun = 'x'\ntimeout = '5 minutes'",
        "regatta.toml:3:11: `timeout` in [jobs.a]: `5 minutes` is no duration; write numbers with \
         units d, h, m, s or ms, like 10m or 1h30m",
    );
    check_refused(
        "[jobs.a]\nrun = 'x'\nretry = 99",
        "regatta.toml:3:9: `retry` in [jobs.a]: `99` is not between 0 and 10",
    );
    check_refused(
        "[jobs.a]\nrun = 'x'\nisolation = 'none'",
        "regatta.toml:3:13: `isolation` in [jobs.a]: isolation is `run` or `fresh`, not `none`",
    );
    check_refused(
        "[jobs.a]\nrun = ''",
        "regatta.toml:2:7: `run` in [jobs.a]: the command is empty",
    );
    check_refused(
        "[jobs.a]\nrun = 'x'\ninputs = ['../up']",
        "regatta.toml:3:11: `inputs` in [jobs.a]: `../up` must be a relative path without `..`",
    );
    check_refused(
        "[jobs.a]\nrun = 'x'\noutputs = ['/abs']",
        "regatta.toml:3:12: `outputs` in [jobs.a]: `/abs` must be a relative path without `..`",
    );
    check_refused(
        "[jobs.a.suite]\ndiscover = 'x'\nrun = 'y'\nadapter = 'junit'",
        "regatta.toml:4:11: `adapter` in [jobs.a.suite]: `junit` is no adapter; \
         there are contract, bazel-sharding, ctest, go, googletest, jest, libtest, pytest",
    );
}

#[test]
fn adapters_take_what_they_need_and_nothing_else() {
    let adapter = |text: &str| {
        let text = format!("[jobs.a.suite]\n{text}");
        let mut jobs = parsed(&text).expect("it is good").jobs;
        match jobs.remove(0).action {
            JobAction::Suite(suite) => (suite.adapter, suite.discover, suite.run),
            JobAction::Command(_) => panic!("it has a suite"),
        }
    };
    let words = |words: &[&str]| {
        words
            .iter()
            .map(|&word| word.to_owned())
            .collect::<Vec<_>>()
    };
    let program = adapter("adapter = 'googletest'\nrun = ['./tests']");
    assert_eq!(
        program,
        (SuiteAdapter::GoogleTest, words(&[]), words(&["./tests"]))
    );
    let lists = adapter("adapter = 'libtest'\nrun = ['./tests']\ndiscover = ['./list']");
    assert_eq!(lists.1, ["./list"]);
    let (_, _, run) = adapter("adapter = 'ctest'");
    assert_eq!(run, words(&["ctest", "--test-dir", "build"]));
    let (_, _, run) = adapter("adapter = 'ctest'\nrun = ['ctest', '-L', 'fast']");
    assert_eq!(run, words(&["ctest", "-L", "fast"]));
    let (sharding, _, run) = adapter("adapter = 'bazel-sharding'\nshards = 3\nrun = ['./tests']");
    assert_eq!(sharding, SuiteAdapter::BazelSharding { shards: 3 });
    assert_eq!(run, words(&["./tests"]));
    let (default, _, run) = adapter("adapter = 'pytest'");
    assert_eq!(
        (default, run),
        (SuiteAdapter::Pytest(Pytest::default()), words(&[]))
    );
    let (fast, _, _) = adapter("adapter = 'pytest'\nrun = ['pytest', '-m', 'fast']");
    let wanted = Pytest::parse(&words(&["python3", "-m", "pytest", "-m", "fast"]));
    assert_eq!(fast, SuiteAdapter::Pytest(wanted.expect("it is pytest")));
    let (jest, _, run) = adapter("adapter = 'jest'");
    assert_eq!(
        (jest, run),
        (SuiteAdapter::Jest(Jest::default()), words(&[]))
    );
    check_refused(
        "[jobs.a.suite]\nadapter = 'jest'\nrun = 'npx jest'",
        "regatta.toml:3:7: `run` in [jobs.a.suite]: the jest adapter wants a list that starts Jest, like \
         [\"jest\"] or [\"npx\", \"jest\"]",
    );
    check_refused(
        "[jobs.a.suite]\nadapter = 'pytest'\nrun = 'pytest -m fast'",
        "regatta.toml:3:7: `run` in [jobs.a.suite]: the pytest adapter wants a list that begins like \
         [\"pytest\"] or [\"python3\", \"-m\", \"pytest\"]",
    );
    check_refused(
        "[jobs.a.suite]\nadapter = 'pytest'\ndiscover = 'ls'",
        "regatta.toml:3:12: `discover` in [jobs.a.suite]: the pytest adapter lists tests itself; \
         remove `discover`",
    );
    check_refused(
        "[jobs.a.suite]\nadapter = 'googletest'\nrun = './tests'",
        "regatta.toml:3:7: `run` in [jobs.a.suite]: the adapter adds arguments, which this script drops: \
         write a list, like [\"./tests\"], or pass on \"$@\"",
    );
    check_refused(
        "[jobs.a.suite]\nadapter = 'googletest'\nrun = './tests'\njunit = 'x.xml'",
        "regatta.toml:1:1: `junit` in [jobs.a.suite]: the googletest adapter needs no report of its \
         tests; remove `junit`",
    );
}

#[test]
fn shards_are_counted() {
    let wants = "the bazel-sharding adapter wants to know into how many shards the runner divides its tests: \
                 1 or more";
    check_refused(
        "[jobs.a.suite]\nadapter = 'bazel-sharding'\nrun = './tests'",
        &format!("regatta.toml:1:1: `shards` in [jobs.a.suite]: {wants}"),
    );
    check_refused(
        "[jobs.a.suite]\nadapter = 'bazel-sharding'\nrun = './tests'\nshards = 0",
        &format!("regatta.toml:4:10: `shards` in [jobs.a.suite]: {wants}"),
    );
    check_refused(
        "[jobs.a.suite]\nadapter = 'pytest'\nshards = 2",
        "regatta.toml:3:10: `shards` in [jobs.a.suite]: only the bazel-sharding adapter has shards; remove it",
    );
    check_refused(
        "[jobs.a.suite]\nadapter = 'bazel-sharding'\nshards = 2\nrun = 'x'\ndiscover = 'y'",
        "regatta.toml:5:12: `discover` in [jobs.a.suite]: each shard of the bazel-sharding adapter is a test, \
         so that nothing is listed; remove `discover`",
    );
}

#[test]
fn images_that_docker_could_not_have_are_named() {
    check_refused(
        "[jobs.a]\nrun = 'x'\nimage = 'debian 12'",
        "regatta.toml:3:9: `image` in [jobs.a]: `debian 12` holds ' '; images are called like \
         debian:12 or host:5000/name@sha256:...",
    );
    check_refused(
        "[jobs.a]\nrun = 'x'\nimage = 'Debian:12'",
        "regatta.toml:3:9: `image` in [jobs.a]: the name in `Debian:12` must be in lower case",
    );
    for image in [
        "debian:12",
        "HOST:5000/a/b__c-d.e:Tag_1",
        "name@sha256:0123456789abcdef",
        "sha256:0123456789abcdef",
    ] {
        let text = format!("[jobs.a]\nrun = 'x'\nimage = '{image}'");
        let pipeline = parse(&text, Path::new("regatta.toml"), Path::new(""));
        let pipeline = pipeline.expect("an image's name");
        let read = pipeline.jobs[0].image.as_ref().map(ImageReference::as_str);
        assert_eq!(read, Some(image));
    }
}

#[test]
fn jobs_that_cannot_work_are_named() {
    check_refused(
        "[jobs.a]\nimage = 'x'",
        "regatta.toml:1:7: [jobs.a] has neither `run` nor a `suite`: it would do nothing",
    );
    check_refused(
        "[jobs.a]\nrun = 'x'\n[jobs.a.suite]\n",
        "regatta.toml:1:7: [jobs.a] has both `run` and a `suite`; make it two jobs",
    );
    check_refused(
        "[jobs.build]\nrun = 'x'\n[jobs.test]\nrun = 'x'\nneeds = ['biuld']",
        "regatta.toml:3:7: [jobs.test] needs `biuld`, which is no job; did you mean `build`?",
    );
    check_refused(
        "[jobs]\na = { run = 'x', needs = ['b'] }\nb = { run = 'x', needs = ['c'] }\n\
         c = { run = 'x', needs = ['b'] }",
        "regatta.toml:3:1: the jobs need each other in a circle: b -> c -> b; \
         remove one of these `needs`",
    );
}

#[test]
fn texts_that_no_process_and_no_path_can_have_are_named() {
    check_refused(
        "[jobs.a]\nrun = [\"x\", \"a\\u0000\"]",
        "regatta.toml:2:13: `run` in [jobs.a]: a text cannot hold a NUL character",
    );
    check_refused(
        "[jobs.a]\nrun = \"x\\u0000\"",
        "regatta.toml:2:7: `run` in [jobs.a]: a text cannot hold a NUL character",
    );
    check_refused(
        "[jobs.a]\nrun = 'x'\noutputs = [\"a\\u0000\"]",
        "regatta.toml:3:12: `outputs` in [jobs.a]: a text cannot hold a NUL character",
    );
    check_refused(
        "[jobs.a]\nrun = ['', 'x']",
        "regatta.toml:2:8: `run` in [jobs.a]: the first word is the program to run, and it is empty",
    );
}

#[test]
fn jobs_may_need_each_other_as_deep_as_they_like() {
    const JOBS: usize = 10_000;
    let job = |number: usize| format!("[jobs.j{number}]\nrun = 'x'\nneeds = ['j{}']\n", number + 1);
    let mut text: String = (0..JOBS).map(job).collect();
    text.push_str(&format!("[jobs.j{JOBS}]\nrun = 'x'\n"));
    let pipeline = parsed(&text).expect("it is no circle");
    assert_eq!(pipeline.jobs[0].name.as_str(), format!("j{JOBS}"));
    assert_eq!(pipeline.jobs[JOBS].name.as_str(), "j0");
}

#[test]
fn what_is_no_toml_is_refused_with_its_place() {
    let error = parsed("[jobs\n").expect_err("it is bad").to_string();
    assert!(error.starts_with("regatta.toml:1:"), "{error}");
}

#[test]
fn the_file_is_found_from_below() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let deep = directory.path().join("a/b");
    std::fs::create_dir_all(&deep).expect("created");
    std::fs::create_dir(directory.path().join(".config")).expect("created");
    let file = directory.path().join(".config/regatta.toml");
    std::fs::write(&file, "").expect("written");
    let (found, root) = find(&deep).expect("it is there");
    assert_eq!((found, root.as_path()), (file.clone(), directory.path()));
    assert_eq!(root_of(&file), directory.path());
    assert_eq!(root_of(Path::new("regatta.toml")), Path::new("."));
}
