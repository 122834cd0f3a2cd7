//! Which tests of a suite go first whose tests all depend on every file.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use regatta_cas::merkle::TreeBuilder;
use regatta_cas::put_bytes;
use regatta_model::Digest;
use regatta_wire::reapi::command::EnvironmentVariable;
use regatta_wire::v1;

use super::contract::{any_runner, contract_runner, junit};
use super::fake_agent::{FakeAgent, Script, completed};
use super::fixture::{Fixture, contract, spec};

/// How many files of tests there are: those of one are a twentieth of the work.
const FILES: usize = 20;
const CHANGED: &str = "tests/test_1.py";
/// Tests of the file that changes. There are files whose names begin as its does, and files before and after it.
const OF_CHANGED: [&str; 2] = ["tests/test_1.py::one", "tests/test_1.py::two"];

/// A suite of files, and the ids that a fake runner was given, batch by batch.
struct Suite {
    fixture: Fixture,
    batches: Arc<Mutex<Vec<Vec<String>>>>,
    _agent: FakeAgent,
}

impl Suite {
    async fn start() -> Self {
        let fixture = Fixture::start().await;
        let files = (0..FILES).rev().map(path);
        let listed = files.map(|path| format!("{path}::one\n{path}::two\n"));
        let batches = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&batches);
        let report = move |ids: &[String]| {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.push(ids.to_vec());
            junit(ids.iter().map(String::as_str))
        };
        let listed: &str = listed.collect::<String>().leak();
        let agent = fixture.agent("a", contract_runner(&fixture, listed, report));
        Self {
            fixture,
            batches,
            _agent: agent,
        }
    }

    /// The root of all files, of which one has this content.
    async fn inputs(&self, content: &str) -> Digest {
        let blobs = self.fixture.blobs.as_ref();
        let mut tree = TreeBuilder::new();
        for path in (0..FILES).map(path) {
            let content = if path == CHANGED { content } else { "" };
            let file = put_bytes(blobs, content.to_owned().into()).await;
            let file = file.expect("is stored");
            tree.insert_file(&path, file, false).expect("fits");
        }
        let tree = tree.build();
        for bytes in tree.directories.values() {
            put_bytes(blobs, bytes.clone()).await.expect("is stored");
        }
        tree.root
    }

    fn job(input_root: Digest) -> v1::RunSpec {
        let input_root = Some(input_root.into());
        spec(vec![v1::Job {
            input_root,
            ..contract("acceptance")
        }])
    }

    /// Runs all tests; the batches in their order.
    async fn run(&self, input_root: Digest) -> Vec<Vec<String>> {
        let story = self.fixture.run(Self::job(input_root)).await;
        assert_eq!(
            story.end().verdict(),
            v1::Verdict::Releasable,
            "{:?}",
            story.end().reasons
        );
        let mut batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *batches)
    }
}

fn path(number: usize) -> String {
    format!("tests/test_{number}.py")
}

fn tests(batches: &[Vec<String>]) -> usize {
    batches.iter().map(Vec::len).sum()
}

/// As many tests as the changed file has, in the order in which they were granted.
fn first(batches: &[Vec<String>]) -> BTreeSet<&str> {
    let ids = batches.iter().flatten().map(String::as_str);
    ids.take(OF_CHANGED.len()).collect()
}

#[tokio::test]
async fn the_tests_of_a_changed_file_go_first() {
    let suite = Suite::start().await;
    let (before, now) = (suite.inputs("1").await, suite.inputs("2").await);
    let batches = suite.run(before).await;
    assert_eq!(tests(&batches), 2 * FILES);
    assert_ne!(
        first(&batches),
        BTreeSet::from(OF_CHANGED),
        "it means nothing"
    );
    let request = v1::PlanRunRequest {
        spec: Some(Suite::job(now)),
    };
    let plan = suite.fixture.runs().plan_run(request).await;
    let plan = plan.expect("is planned").into_inner();
    let planned = &plan.jobs[0].first_batches[0].first_test;
    assert!(OF_CHANGED.contains(&planned.as_str()), "{planned}");
    let batches = suite.run(now).await;
    assert_eq!(tests(&batches), 2 * FILES);
    assert_eq!(first(&batches), BTreeSet::from(OF_CHANGED), "{batches:?}");
    // Whoever goes back and has it cached has nothing to order.
    assert_eq!(tests(&suite.run(before).await), 0);
}

#[tokio::test]
async fn tests_run_in_another_order_if_the_earlier_inputs_are_gone() {
    let suite = Suite::start().await;
    let (before, now) = (suite.inputs("1").await, suite.inputs("2").await);
    suite.run(before).await;
    let deleted = suite.fixture.blobs.delete(&before).await;
    deleted.expect("is deleted");
    let batches = suite.run(now).await;
    assert_eq!(tests(&batches), 2 * FILES);
    assert_ne!(first(&batches), BTreeSet::from(OF_CHANGED), "{batches:?}");
}

/// What a run of some suites does in one slot, if each of their tests is known to last longer than a listing is
/// expected to.
#[tokio::test]
async fn all_suites_are_listed_before_their_tests_run() {
    const SUITES: u32 = 6;
    let fixture = Fixture::start().await;
    let done = Arc::new(Mutex::new(Vec::new()));
    let runner = any_runner(&fixture, "slow\n", |_| {
        let report = "<testsuites><testcase name=\"slow\" time=\"5\"/></testsuites>";
        (completed(0, ""), Some(report.to_owned()))
    });
    let seen = Arc::clone(&done);
    let script: Script = Arc::new(move |spec, execution| {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.extend(spec.command.clone().map(|command| command.arguments));
        runner(spec, execution)
    });
    let _agent = fixture.agent("a", script);
    // Equal listings would be carried out once.
    let jobs = || {
        (0..SUITES).map(|number| v1::Job {
            environment: vec![EnvironmentVariable {
                name: "NUMBER".to_owned(),
                value: number.to_string(),
            }],
            ..contract(&format!("suite-{number}"))
        })
    };
    fixture.run(spec(jobs().collect())).await;
    done.lock().unwrap_or_else(PoisonError::into_inner).clear();
    let again = v1::RunSpec {
        skip_cache_lookup: true,
        ..spec(jobs().collect())
    };
    let story = fixture.run(again).await;
    assert_eq!(story.counts().passed, SUITES);
    let done = done.lock().unwrap_or_else(PoisonError::into_inner);
    let lists = done.iter().take_while(|words| words[..] == ["./list"]);
    assert_eq!(lists.count(), SUITES as usize, "{done:?}");
}
