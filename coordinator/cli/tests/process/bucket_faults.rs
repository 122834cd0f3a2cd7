//! A run whose bucket hangs, breaks off, lies and crawls while it goes on.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use super::faulty_proxy::{Concerned, Fault, FaultyProxy};
use super::fleet::Fleet;
use super::program::{Ended, Running, regatta, wait_until, write};
use super::s3_server::{self, S3Server};

/// More often than anybody asks.
const ALWAYS: usize = usize::MAX;
const TESTS: usize = 300;
/// How much a build makes of each of its outputs, in bytes: one goes into the bucket in parts.
const LARGE: usize = 12 << 20;
const SMALL: usize = 200_000;
/// How long the bucket is at least as bad as each fault has it.
const SPELL: Duration = Duration::from_secs(4);
const FAULTS: [Fault; 8] = [
    Fault::Hang,
    Fault::HangInAnswer,
    Fault::CutAnswer,
    Fault::CorruptAnswer,
    Fault::CorruptRequest,
    Fault::LoseAnswer,
    Fault::Reset,
    Fault::Crawl,
];

const PIPELINE: &str = r#"
[jobs.build]
inputs = ["seed", "make.sh"]
run = ["sh", "make.sh"]
outputs = ["large", "small"]

[jobs.unit]
needs = ["build"]
inputs = ["suite.sh"]
[jobs.unit.suite]
adapter = "libtest"
run = ["sh", "suite.sh"]
"#;

/// Outputs that compress badly, and what they are, for tests to see.
const MAKE: &str = r#"
openssl enc -aes-128-ctr -nosalt -pass file:seed -in /dev/zero 2> log | head -c LARGE > large
openssl enc -aes-128-ctr -nosalt -pass pass:small -in /dev/zero 2> log | head -c SMALL > small
"#;

/// Each test looks at what was built, and says something that no other says.
const SUITE: &str = r#"
for last; do :; done
case "$*" in
*--list*--ignored*|*--ignored*--list*) exit ;;
*--list*) seq 1 TESTS | sed 's/.*/test-&: test/'; exit ;;
esac
echo "$last" >> DIRECTORY/begun
sleep 0.6
large=$(wc -c < large)
small=$(sha256sum < small | cut -c 1-64)
[ "$large" = LARGE ] || { echo "large has $large bytes"; exit 101; }
[ "$small" = "$(cat DIRECTORY/small.sha256)" ] || { echo "small is $small"; exit 101; }
echo "said by $last"; echo "running 1 test"; echo
echo "test result: ok. 1 passed; 0 failed; 0 ignored"
"#;

/// A fleet that reaches its bucket through a proxy.
struct Place {
    fleet: Fleet,
    proxy: FaultyProxy,
    server: S3Server,
    /// Where the proxy lives.
    _runtime: Runtime,
}

impl Place {
    fn new() -> Self {
        Self::told(&[])
    }

    /// One whose coordinator is told more.
    fn told(more: &[&str]) -> Self {
        let server = S3Server::start();
        let runtime = Runtime::new().expect("a runtime");
        let proxy = runtime.block_on(FaultyProxy::before(server.address()));
        let endpoint = format!("http://{}", proxy.address());
        let environment = s3_server::environment(&endpoint);
        let storage = S3Server::url();
        let told = [&["--storage", storage.as_str()], more].concat();
        let mut fleet = Fleet::told_in(&environment, &told);
        fleet.add_agent(&[]);
        Self {
            fleet,
            proxy,
            server,
            _runtime: runtime,
        }
    }

    /// What `regatta cas verify` finds in the bucket itself, once nothing writes to it any more.
    fn verify(&self) -> Ended {
        let endpoint = format!("http://{}", self.server.address());
        let mut verify = regatta();
        verify.args(["cas", "verify", "--storage", &S3Server::url()]);
        verify
            .arg("--state-dir")
            .arg(self.fleet.state().join("coordinator"));
        verify.envs(s3_server::environment(&endpoint));
        Ended::of(&mut verify)
    }
}

fn project() -> tempfile::TempDir {
    // Not below /tmp, of which each job has its own.
    let project = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let directory = project.path().display().to_string();
    let filled = |text: &str| {
        text.replace("DIRECTORY", &directory)
            .replace("TESTS", &TESTS.to_string())
            .replace("LARGE", &LARGE.to_string())
            .replace("SMALL", &SMALL.to_string())
    };
    let seed = uuid::Uuid::new_v4().to_string();
    let (make, suite) = (filled(MAKE), filled(SUITE));
    let files = [
        ("regatta.toml", PIPELINE),
        ("seed", &seed),
        ("make.sh", &make),
        ("suite.sh", &suite),
    ];
    write(project.path(), &files);
    let made = format!(
        "openssl enc -aes-128-ctr -nosalt -pass pass:small -in /dev/zero 2> log | head -c {SMALL} | sha256sum | cut -c 1-64 > small.sha256; rm log"
    );
    let mut sh = std::process::Command::new("sh");
    Ended::of(sh.args(["-c", &made]).current_dir(project.path())).expect_code(0);
    project
}

/// Reads of what is in the bucket, its packs and lists aside.
const READS: Concerned = Concerned {
    method: "GET",
    path_has: "/cas/",
};
/// How soon whoever watches is told, on a machine that has much to do.
const SOON: Duration = Duration::from_secs(15);

#[test]
fn whoever_watches_a_run_that_waits_for_right_bytes_is_told() {
    let place = Place::new();
    let project = project();
    let build = PIPELINE.split("[jobs.unit]").next().expect("a part");
    write(project.path(), &[("regatta.toml", build)]);
    // Whatever an agent stores is read before it is said to be whole.
    place.proxy.spoil(Fault::CorruptAnswer, READS, ALWAYS);
    let mut run = place.fleet.command();
    run.args(["--message-format", "json", "run"]);
    let mut running = Running::begin(run.current_dir(project.path()));
    wait_until("wrong bytes come", || place.proxy.applied() > 0);
    let wrong = Instant::now();
    running.expect_words("sends other bytes than were stored");
    assert!(wrong.elapsed() < SOON, "{:?}", wrong.elapsed());
    place.proxy.heal();
    running.end().expect_code(0);
    place.fleet.stop();
}

/// How long whoever probes a coordinator may wait, on a machine that has much to do.
const PROBE_LIMIT: Duration = Duration::from_secs(2);

#[test]
fn whoever_probes_is_told_at_once_of_a_bucket_that_hangs() {
    // Of one with a limit it is known what is not there, which answers for no bucket.
    for told in [&[] as &[&str], &["--cache-size", "1GiB"]] {
        let place = Place::told(told);
        let probed = || {
            let asked = Instant::now();
            let page = place.fleet.page("/readyz");
            let took = asked.elapsed();
            assert!(took < PROBE_LIMIT, "{took:?}: {page:?}");
            page
        };
        wait_until("it is ready", || probed().0 == 200);
        place.proxy.spoil(Fault::Hang, Concerned::ALL, ALWAYS);
        wait_until("it is not ready", || probed().0 == 503);
        let hangs = Instant::now();
        while hangs.elapsed() < Duration::from_secs(20) {
            let (status, page) = probed();
            assert_eq!(status, 503, "{page}");
            assert!(page.starts_with("storage: "), "{page}");
        }
        place.proxy.heal();
        wait_until("it is ready again", || probed().0 == 200);
        place.fleet.stop();
    }
}

/// How long the S3 server is away: longer than what is asked for a few times waits.
const AWAY: Duration = Duration::from_secs(10);

#[test]
fn whoever_uploads_waits_for_a_bucket_that_is_away_for_some_seconds_and_says_so() {
    let place = Place::new();
    let project = project();
    let build = PIPELINE.split("[jobs.unit]").next().expect("a part");
    write(project.path(), &[("regatta.toml", build)]);
    place
        .proxy
        .spoil(Fault::Status(503), Concerned::ALL, ALWAYS);
    let away = Instant::now();
    let mut run = place.fleet.command();
    run.args(["--message-format", "json", "run"]);
    let mut running = Running::begin(run.current_dir(project.path()));
    running.expect_words("they are offered again");
    wait_until("it was away for long", || away.elapsed() > AWAY);
    place.proxy.heal();
    let ended = running.end();
    ended.expect_code(0).expect_complaint(&["s3://"]);
    place.fleet.stop();
}

fn begun(project: &Path) -> usize {
    let begun = std::fs::read_to_string(project.join("begun"));
    begun.unwrap_or_default().lines().count()
}

/// Each test is told of once, and has passed.
#[track_caller]
fn expect_each_test_once(ended: &Ended) {
    ended.expect_code(0);
    let finished = ended.finished();
    assert_eq!(finished["verdict"], "RELEASABLE", "{finished}");
    for part in ["planned", "passed"] {
        assert_eq!(finished["counts"][part], TESTS, "{finished}");
    }
    let mut told = BTreeMap::new();
    for line in ended.lines("test") {
        *told.entry(line["test"].to_string()).or_insert(0) += 1;
    }
    assert_eq!(told.len(), TESTS, "{told:?}");
    assert!(told.values().all(|count| *count == 1), "{told:?}");
}

#[test]
fn a_run_outlives_whatever_its_bucket_does() {
    let mut place = Place::new();
    let project = project();
    let directory = project.path();
    let run = |fleet: &Fleet| {
        let mut run = fleet.command();
        run.args(["--message-format", "json", "run", "--no-duplicates"]);
        Running::begin(run.current_dir(directory))
    };
    let mut running = run(&place.fleet);
    // The first finds what is built on its way to the bucket.
    running.expect_words(r#""type":"job-started""#);
    let mut spoilt = Vec::new();
    for fault in FAULTS {
        place.proxy.spoil(fault, Concerned::ALL, ALWAYS);
        let begun_to_fail = Instant::now();
        wait_until("it is met for a while", || {
            begun_to_fail.elapsed() >= SPELL && place.proxy.applied() > 0
        });
        spoilt.push((fault, place.proxy.applied()));
        place.proxy.heal();
        let before = begun(directory);
        wait_until("it goes on", || begun(directory) > before.min(TESTS - 1));
    }
    let ended = running.end();
    eprintln!("spoilt: {spoilt:?}");
    expect_each_test_once(&ended);

    // Whoever knows nothing but the bucket finds all that could be stored there, and all of it right.
    let log = place.fleet.log_of("coordinator");
    let unstored = log.matches("a result could not be stored").count();
    let address = place.fleet.url().trim_start_matches("grpc://").to_owned();
    place.fleet.kill_coordinator();
    place.verify().expect_code(0);
    place.fleet.start_coordinator(&address);
    let again = run(&place.fleet).end();
    again.expect_code(0);
    let counts = &again.finished()["counts"];
    let [passed, cached] = ["passed", "cached"].map(|part| counts[part].as_u64());
    let sum = passed.zip(cached).map(|(passed, cached)| passed + cached);
    assert_eq!(sum, Some(TESTS as u64), "{again:#?}");
    eprintln!("not stored: {unstored}, executed again: {passed:?}");
    assert!(passed <= Some(unstored as u64), "{unstored}: {again:#?}");
    place.fleet.stop();
}
