//! What the machines carry out: builds and tests, each of which does what its name says.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use regatta_model::Digest;
use regatta_wire::{reapi, v1};

use crate::stock::Stock;

/// What makes a suite of a list of tests: it has their names.
const SUITE: &str = "./suite";
/// What lists and runs them by the general contract.
const LIST: &str = "./list";
const RUN: &str = "./run";
const BUILD: &str = "./build";
/// Where the contract's runner finds its tests, and leaves its report.
const IDS: [&str; 2] = [".regatta", "tests"];
const REPORT: &str = "junit.xml";
/// What a build makes.
const OUTPUT: &str = "out";
/// How long a test may take, and one takes that never ends by itself.
const TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// What jobs start from: a directory with some files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct InputTree {
    /// The directory, then the files.
    pub(crate) blobs: Vec<Bytes>,
}

impl InputTree {
    /// Of runs that are much alike, most files are the same.
    pub(crate) fn of(variant: u64) -> Self {
        let files = (0..4_u64).map(|number| {
            let version = if number == 0 { variant } else { 0 };
            let text = format!("file {number} of version {version}\n");
            Bytes::from(text.repeat(3 + usize::try_from(number).unwrap_or(0)))
        });
        let files: Vec<Bytes> = files.collect();
        let nodes = files.iter().enumerate();
        let nodes = nodes.map(|(number, file)| reapi::FileNode {
            name: format!("file{number}"),
            digest: Some(Digest::of(file).into()),
            ..Default::default()
        });
        let directory = reapi::Directory {
            files: nodes.collect(),
            ..Default::default()
        };
        let mut blobs = vec![Bytes::from(directory.encode_to_vec())];
        blobs.extend(files);
        Self { blobs }
    }

    /// The digest of the directory.
    pub(crate) fn root(&self) -> Digest {
        self.digests().next().unwrap_or(Digest::EMPTY)
    }

    pub(crate) fn digests(&self) -> impl Iterator<Item = Digest> {
        self.blobs.iter().map(|bytes| Digest::of(bytes))
    }
}

/// How a test ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Passes,
    Fails,
    /// It fails the first time.
    Wavers,
    /// It never ends.
    Hangs,
}

impl Kind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Passes => "passes",
            Self::Fails => "fails",
            Self::Wavers => "wavers",
            Self::Hangs => "hangs",
        }
    }

    pub(crate) fn of(test: &str) -> Self {
        let all = [Self::Fails, Self::Wavers, Self::Hangs];
        let named = all.into_iter().find(|kind| test.starts_with(kind.name()));
        named.unwrap_or(Self::Passes)
    }
}

/// A suite whose tests run one by one.
pub(crate) fn suite(name: &str, tests: &[String], retries: u32) -> v1::Job {
    let suite = v1::Suite {
        adapter: v1::SuiteAdapter::Libtest.into(),
        run_arguments: vec![SUITE.to_owned(), tests.join(",")],
        ..Default::default()
    };
    job(name, retries, v1::job::Kind::Suite(suite))
}

/// A suite whose tests run together.
pub(crate) fn contract(name: &str, tests: &[String], retries: u32) -> v1::Job {
    let suite = v1::Suite {
        adapter: v1::SuiteAdapter::Contract.into(),
        discover_arguments: vec![LIST.to_owned(), tests.join(",")],
        run_arguments: vec![RUN.to_owned(), tests.join(",")],
        junit_path: REPORT.to_owned(),
        ..Default::default()
    };
    job(name, retries, v1::job::Kind::Suite(suite))
}

/// A build that makes a file.
pub(crate) fn build(name: &str, makes: &str) -> v1::Job {
    let build = v1::Build {
        arguments: vec![BUILD.to_owned(), makes.to_owned()],
        do_not_cache: false,
    };
    v1::Job {
        output_paths: vec![OUTPUT.to_owned()],
        ..job(name, 1, v1::job::Kind::Build(build))
    }
}

fn job(name: &str, retries: u32, kind: v1::job::Kind) -> v1::Job {
    v1::Job {
        name: name.to_owned(),
        input_root: Some(Digest::EMPTY.into()),
        retries,
        timeout: Some(regatta_wire::convert::duration_to_wire(TIMEOUT)),
        kind: Some(kind),
        ..Default::default()
    }
}

/// The same job, which needs another and sees what that one made.
pub(crate) fn after(needed: &str, mut job: v1::Job) -> v1::Job {
    job.needs = vec![needed.to_owned()];
    job.inputs_from = vec![v1::InputFrom {
        job: needed.to_owned(),
        output_path: OUTPUT.to_owned(),
        at: OUTPUT.to_owned(),
    }];
    job
}

/// What a machine is to do in one execution.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Task {
    /// Prints these lines.
    List(Vec<String>),
    Test(String),
    /// Several tests in one go.
    Tests(Vec<String>),
    Build(String),
    /// Its inputs are not in the store.
    Blocked(Digest),
    /// Nobody knows what that is.
    Nonsense,
}

impl Task {
    /// What an execution of a lease is. Inputs are fetched from the bucket.
    pub(crate) fn of(spec: &v1::LeaseSpec, execution: &v1::Execution, stock: &Stock) -> Self {
        let Some(command) = &spec.command else {
            return Self::Nonsense;
        };
        let listed = |text: &String| -> Vec<String> {
            text.split(',')
                .filter(|it| !it.is_empty())
                .map(str::to_owned)
                .collect()
        };
        if let Some(absent) = absent_below(spec.input_root.as_ref(), stock) {
            return Self::Blocked(absent);
        }
        match &command.arguments[..] {
            [program, all, rest @ ..] if program == SUITE => {
                if rest.iter().any(|it| it == "--ignored") {
                    return Self::List(Vec::new());
                }
                if rest.iter().any(|it| it == "--list") {
                    let lines = listed(all).into_iter();
                    return Self::List(lines.map(|test| format!("{test}: test")).collect());
                }
                let last = execution.extra_arguments.last();
                last.map_or(Self::Nonsense, |test| Self::Test(test.clone()))
            }
            [program, all, ..] if program == LIST => Self::List(listed(all)),
            [program, ..] if program == RUN => match ids(spec, stock) {
                Ok(tests) => Self::Tests(tests),
                Err(absent) => Self::Blocked(absent),
            },
            [program, made, ..] if program == BUILD => Self::Build(made.clone()),
            _ => Self::Nonsense,
        }
    }

    /// How long it takes, if its own part takes `own`.
    pub(crate) fn takes(&self, own: Duration) -> Duration {
        match self {
            Self::Test(test) if Kind::of(test) == Kind::Hangs => TIMEOUT,
            Self::Tests(tests) if tests.iter().any(|it| Kind::of(it) == Kind::Hangs) => TIMEOUT,
            _ => own,
        }
    }
}

/// Something that is absent of a directory with all that is in it.
fn absent_below(root: Option<&reapi::Digest>, stock: &Stock) -> Option<Digest> {
    let root = root.and_then(|it| Digest::try_from(it).ok())?;
    let Some(directory) = stock.blob(&root) else {
        return Some(root);
    };
    let directory = reapi::Directory::decode(directory).unwrap_or_default();
    let files = directory.files.iter().filter_map(|it| it.digest.as_ref());
    let mut files = files.filter_map(|it| Digest::try_from(it).ok());
    let absent = files.find(|it| !stock.has(it));
    absent.or_else(|| {
        let mut below = directory.directories.iter();
        below.find_map(|it| absent_below(it.digest.as_ref(), stock))
    })
}

/// The tests in the file that a lease's input root holds, or what of it is absent.
fn ids(spec: &v1::LeaseSpec, stock: &Stock) -> Result<Vec<String>, Digest> {
    let fetch = |digest: Option<&reapi::Digest>| {
        let digest = digest.and_then(|it| Digest::try_from(it).ok());
        let digest = digest.unwrap_or(Digest::EMPTY);
        stock.blob(&digest).ok_or(digest)
    };
    let root = fetch(spec.input_root.as_ref())?;
    let root = reapi::Directory::decode(root).unwrap_or_default();
    let below = root.directories.iter().find(|it| it.name == IDS[0]);
    let below = fetch(below.and_then(|it| it.digest.as_ref()))?;
    let below = reapi::Directory::decode(below).unwrap_or_default();
    let file = below.files.iter().find(|it| it.name == IDS[1]);
    let text = fetch(file.and_then(|it| it.digest.as_ref()))?;
    let text = String::from_utf8_lossy(&text).into_owned();
    Ok(text.lines().map(str::to_owned).collect())
}

/// How often each test was begun, in all runs.
pub(crate) type Begun = BTreeMap<String, u32>;

/// Whether a test passes this time.
pub(crate) fn passes(test: &str, begun: &mut Begun) -> bool {
    let count = begun.entry(test.to_owned()).or_default();
    *count += 1;
    match Kind::of(test) {
        Kind::Passes => true,
        Kind::Wavers => *count > 1,
        Kind::Fails | Kind::Hangs => false,
    }
}

/// What an execution of which `number` is the name came to: its outcome, and a blob that it names.
pub(crate) fn outcome(
    task: &Task,
    number: usize,
    verdicts: &[bool],
    as_blob: bool,
) -> (v1::ExecutionOutcome, Option<Bytes>) {
    match task {
        Task::List(lines) => (completed(0, &(lines.join("\n") + "\n")), None),
        Task::Test(test) => {
            let passed = verdicts.first().copied().unwrap_or(false);
            let summary = if passed {
                "ok. 1 passed; 0 failed"
            } else {
                "FAILED. 0 passed; 1 failed"
            };
            let text = format!("execution {number}.\n\ntest result: {summary}; 0 ignored;\n");
            let mut outcome = completed(if passed { 0 } else { 101 }, &text);
            if Kind::of(test) == Kind::Hangs {
                outcome.kind = v1::OutcomeKind::TimedOut.into();
            }
            let blob = as_blob.then(|| Bytes::from(text));
            if let (Some(blob), Some(result)) = (&blob, outcome.result.as_mut()) {
                result.stdout_raw = Bytes::new();
                result.stdout_digest = Some(Digest::of(blob).into());
            }
            (outcome, blob)
        }
        Task::Tests(tests) => {
            let xml = junit(tests, verdicts, number);
            let code = i32::from(!verdicts.iter().all(|passed| *passed));
            with_file(completed(code, ""), REPORT, xml)
        }
        Task::Build(made) => {
            let text = format!("execution {number}.\n");
            let file = format!("{made} was made\n");
            with_file(completed(0, &text), OUTPUT, file)
        }
        Task::Blocked(absent) => {
            let outcome = v1::ExecutionOutcome {
                kind: v1::OutcomeKind::Rejected.into(),
                message: "its inputs have gone".to_owned(),
                missing_blobs: vec![absent.into()],
                ..Default::default()
            };
            (outcome, None)
        }
        Task::Nonsense => (completed(127, ""), None),
    }
}

/// What a machine says that fails.
pub(crate) fn lost() -> v1::ExecutionOutcome {
    v1::ExecutionOutcome {
        kind: v1::OutcomeKind::Infrastructure.into(),
        message: "the disk is on fire".to_owned(),
        ..Default::default()
    }
}

fn completed(exit_code: i32, stdout: &str) -> v1::ExecutionOutcome {
    v1::ExecutionOutcome {
        kind: v1::OutcomeKind::Completed.into(),
        result: Some(reapi::ActionResult {
            exit_code,
            stdout_raw: Bytes::copy_from_slice(stdout.as_bytes()),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn with_file(
    mut outcome: v1::ExecutionOutcome,
    path: &str,
    text: String,
) -> (v1::ExecutionOutcome, Option<Bytes>) {
    let blob = Bytes::from(text);
    if let Some(result) = outcome.result.as_mut() {
        result.output_files.push(reapi::OutputFile {
            path: path.to_owned(),
            digest: Some(Digest::of(&blob).into()),
            ..Default::default()
        });
    }
    (outcome, Some(blob))
}

fn junit(tests: &[String], verdicts: &[bool], number: usize) -> String {
    let mut xml = "<testsuites><testsuite name=\"s\">".to_owned();
    for (test, passed) in tests.iter().zip(verdicts) {
        let failure = if *passed {
            ""
        } else {
            "<failure message=\"no\"/>"
        };
        let output = format!("<system-out>execution {number}.</system-out>");
        let case = format!("<testcase name=\"{test}\" time=\"0.1\">{failure}{output}</testcase>");
        xml.push_str(&case);
    }
    xml.push_str("</testsuite></testsuites>");
    xml
}

/// The execution that a text says it comes from.
pub(crate) fn execution_in(text: &[u8]) -> Option<usize> {
    let text = String::from_utf8_lossy(text);
    let (_, rest) = text.split_once("execution ")?;
    let (number, _) = rest.split_once('.')?;
    number.parse().ok()
}

/// The blobs that an action result names; none of these has a tree.
pub(crate) fn blobs_of(result: &reapi::ActionResult) -> impl Iterator<Item = Digest> {
    let files = result.output_files.iter().map(|file| file.digest.as_ref());
    let streams = [result.stdout_digest.as_ref(), result.stderr_digest.as_ref()];
    let named = files.chain(streams).flatten();
    let digests = named.filter_map(|digest| Digest::try_from(digest).ok());
    digests.filter(|digest| *digest != Digest::EMPTY)
}
