//! Which tests a suite has.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use regatta_model::{Digest, FailureClass, Truncation};
use regatta_wire::{reapi, v1};

use super::harness::{CompanyByTest, ListCommand};
use super::sharding;
use super::worker::worker_of;
use crate::runs::action::{ActionSpec, Lookup, judge, run_action};
use crate::runs::context::{JobContext, failed, unknown};
use crate::runs::output::{tail_to_show, whole};
use crate::runs::overlay::root_of;
use crate::runs::plan::{Adapter, Harness, PlannedSuite};
use crate::runs::state::JobEnd;

/// The longest list of tests that is read, in bytes.
pub(super) const MAX_LISTING_BYTES: u64 = 64 << 20;
/// How much of a failed discovery's output its message repeats, in bytes.
const MESSAGE_OUTPUT_BYTES: u64 = 4096;

/// The tests of a suite, after its filters.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Listing {
    pub(super) ids: Vec<String>,
    /// Those of them that the suite itself says not to run.
    pub(super) ignored: BTreeSet<String>,
    /// What discovery left for the batches: a directory that is laid over the working directory.
    pub(super) byproducts: Option<Digest>,
}

/// Asks the suite for its tests.
pub(super) async fn discover(job: &JobContext, suite: &PlannedSuite) -> Result<Listing, JobEnd> {
    let listing = listing_of_all(job, suite).await?;
    let ids = listing.ids;
    check_unique(&ids)?;
    check_there(&suite.only_tests, &ids)?;
    warn_of_strangers(job, suite, &ids);
    let repeated = suite.repetition.as_ref().map(|it| &it.test);
    let selected = |id: &String| {
        if let Some(repeated) = repeated {
            return id == repeated;
        }
        let mut filters = suite.filters.iter();
        (suite.filters.is_empty() || filters.any(|filter| id.contains(filter.as_str())))
            && (suite.only_tests.is_empty() || suite.only_tests.contains(id))
    };
    let ids: Vec<String> = ids.into_iter().filter(selected).collect();
    Ok(Listing { ids, ..listing })
}

/// Every test, before filters.
async fn listing_of_all(job: &JobContext, suite: &PlannedSuite) -> Result<Listing, JobEnd> {
    match &suite.adapter {
        Adapter::Harness(harness) => of_harness(job, suite, *harness).await,
        Adapter::Sharding { shards } => Ok(Listing {
            ids: sharding::ids(*shards),
            ..Listing::default()
        }),
        Adapter::Contract {
            byproducts_path, ..
        } => of_contract(job, suite, byproducts_path.as_deref()).await,
    }
}

async fn of_harness(
    job: &JobContext,
    suite: &PlannedSuite,
    harness: Harness,
) -> Result<Listing, JobEnd> {
    let all = harness.list(suite);
    let ignored = harness.list_ignored(suite);
    let (ids, ignored) = match ignored.filter(|_| !suite.include_ignored) {
        Some(ignored) => {
            let (ids, ignored) = tokio::try_join!(list(job, all), list(job, ignored))?;
            (ids, ignored.into_iter().collect())
        }
        None => {
            let ids = list(job, all).await?;
            let ignored = match suite.include_ignored {
                true => BTreeSet::new(),
                false => harness.ignored_by_name(&ids),
            };
            (ids, ignored)
        }
    };
    if ids.is_empty() && !harness.may_have_no_test() {
        return Err(without_tests());
    }
    Ok(Listing {
        ids,
        ignored,
        byproducts: None,
    })
}

async fn of_contract(
    job: &JobContext,
    suite: &PlannedSuite,
    byproducts_path: Option<&str>,
) -> Result<Listing, JobEnd> {
    let command = ListCommand {
        arguments: suite.discover_arguments.clone(),
        parse: parse_lines,
    };
    let outputs = byproducts_path.map(str::to_owned).into_iter().collect();
    let making = (outputs, worker_of(job, suite));
    let (ids, result) = list_and_make(job, command, making).await?;
    if ids.is_empty() {
        return Err(without_tests());
    }
    Ok(Listing {
        ids,
        byproducts: byproducts(job, &result).await,
        ..Listing::default()
    })
}

/// What discovery left for the batches, which can do without it.
async fn byproducts(job: &JobContext, result: &reapi::ActionResult) -> Option<Digest> {
    let made = result.output_directories.first()?;
    match root_of(job.run.blobs.as_ref(), made).await {
        Ok(root) => {
            job.run.needed.add(result);
            Some(root)
        }
        Err(error) => {
            tracing::warn!(run = %job.run.run, %error, "what discovery left is not used");
            None
        }
    }
}

/// For each test that does not run alone, what runs with it.
pub(super) async fn companies(
    job: &JobContext,
    suite: &PlannedSuite,
) -> Result<CompanyByTest, JobEnd> {
    let command = match &suite.adapter {
        Adapter::Harness(harness) => harness.list_companies(suite),
        Adapter::Sharding { .. } | Adapter::Contract { .. } => None,
    };
    match command {
        Some(command) => list(job, command).await,
        None => Ok(BTreeMap::new()),
    }
}

/// A suite that has no test proves nothing.
fn without_tests() -> JobEnd {
    let text = "discovery exited with code 0 and listed no test".to_owned();
    failed(FailureClass::Test, text)
}

async fn list<Listed>(job: &JobContext, command: ListCommand<Listed>) -> Result<Listed, JobEnd> {
    let (listed, _) = list_and_make(job, command, (Vec::new(), None)).await?;
    Ok(listed)
}

/// What a command lists, and what it came to.
async fn list_and_make<Listed>(
    job: &JobContext,
    command: ListCommand<Listed>,
    (output_paths, worker): (Vec<String>, Option<v1::PersistentWorker>),
) -> Result<(Listed, reapi::ActionResult), JobEnd> {
    let ListCommand { arguments, parse } = command;
    let skip = job.run.plan.spec.skip_cache_lookup;
    let spec = ActionSpec {
        arguments,
        cache: Some(if skip {
            Lookup::Skipped
        } else {
            Lookup::Allowed
        }),
        stream_output: false,
        output_paths,
        attempt: 1,
        failed_at: None,
        worker,
        // Until all suites are listed, nobody knows which of all tests is the longest.
        is_awaited: true,
    };
    let answer = run_action(job, spec).await?;
    let result = answer.result();
    let blobs = job.run.blobs.as_ref();
    if let Err((class, message)) = judge(&answer.outcome) {
        let limit = MESSAGE_OUTPUT_BYTES;
        let errors = tail_to_show(
            blobs,
            &result.stderr_raw,
            result.stderr_digest.as_ref(),
            limit,
        )
        .await;
        let output = tail_to_show(
            blobs,
            &result.stdout_raw,
            result.stdout_digest.as_ref(),
            limit,
        )
        .await;
        let shown = shown(&errors, &output);
        return Err(failed(
            class,
            format!("tests could not be listed: {message}{shown}"),
        ));
    }
    let digest = result.stdout_digest.as_ref();
    check_length(digest)?;
    let output = whole(blobs, &result.stdout_raw, digest, MAX_LISTING_BYTES)
        .await
        .map_err(|error| unknown(format!("the list of tests cannot be read: {error}")))?;
    if let Some(truncation) = Truncation::find(&output) {
        return Err(cut_off(truncation));
    }
    let text = std::str::from_utf8(&output).map_err(|_| {
        failed(
            FailureClass::Test,
            "the list of tests is not UTF-8".to_owned(),
        )
    })?;
    let ids = parse(text).map_err(|problem| {
        let shown = shown(&Bytes::new(), &output);
        failed(
            FailureClass::Test,
            format!("the list of tests cannot be read: {problem}{shown}"),
        )
    })?;
    Ok((ids, result))
}

/// More would not be read.
fn check_length(list: Option<&reapi::Digest>) -> Result<(), JobEnd> {
    let length = list.map_or(0, |digest| digest.size_bytes);
    match u64::try_from(length).is_ok_and(|length| length > MAX_LISTING_BYTES) {
        true => Err(failed(
            FailureClass::Test,
            format!(
                "the list of tests has more than the {MAX_LISTING_BYTES} bytes that are read: make several suites of it"
            ),
        )),
        false => Ok(()),
    }
}

/// What is not on the list would not run, and nobody would miss it.
fn cut_off(Truncation { total, .. }: Truncation) -> JobEnd {
    unknown(format!(
        "the list of tests has {total} bytes, and the agent kept a part of it: it needs a `--max-log-size` of as many, and \
         the run `--no-cache`"
    ))
}

/// The end of an output, for a message.
fn shown(errors: &Bytes, output: &Bytes) -> String {
    let bytes = if errors.is_empty() { output } else { errors };
    let limit = usize::try_from(MESSAGE_OUTPUT_BYTES).unwrap_or(usize::MAX);
    let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(limit)..]);
    if text.trim().is_empty() {
        String::new()
    } else {
        format!("\n{}", text.trim_end())
    }
}

fn check_unique(ids: &[String]) -> Result<(), JobEnd> {
    let mut seen = BTreeSet::new();
    let twice: BTreeSet<_> = ids.iter().filter(|id| !seen.insert(id.as_str())).collect();
    if twice.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = twice.into_iter().map(|id| format!("`{id}`")).collect();
    Err(failed(
        FailureClass::Test,
        format!("tests are listed twice: {}", names.join(", ")),
    ))
}

/// A test that was asked for by its name and is not there is no test that passed.
fn check_there(wanted: &BTreeSet<String>, ids: &[String]) -> Result<(), JobEnd> {
    /// Enough to see what is wrong.
    const NAMED: usize = 10;
    let ids: BTreeSet<_> = ids.iter().collect();
    let absent = wanted.iter().filter(|id| !ids.contains(id));
    let absent: Vec<_> = absent.map(|id| format!("`{id}`")).collect();
    if absent.is_empty() {
        return Ok(());
    }
    let (count, named) = (absent.len(), absent[..absent.len().min(NAMED)].join(", "));
    Err(failed(
        FailureClass::Test,
        format!("{count} of the tests that were asked for are not in the suite: {named}"),
    ))
}

/// A quarantine of a test that is no more is to be taken out.
fn warn_of_strangers(job: &JobContext, suite: &PlannedSuite, ids: &[String]) {
    let ids: BTreeSet<_> = ids.iter().collect();
    let strangers = suite.quarantine.keys().filter(|id| !ids.contains(id));
    let named: Vec<_> = strangers.map(|id| format!("`{id}`")).collect();
    if !named.is_empty() {
        let (name, named) = (job.name(), named.join(", "));
        let message = format!("the quarantine of `{name}` names what is no test of it: {named}");
        job.run.warn_once(message);
    }
}

/// One id a line. The contract knows nothing else.
#[expect(
    clippy::unnecessary_wraps,
    reason = "parsers of listings have one type"
)]
fn parse_lines(text: &str) -> Result<Vec<String>, String> {
    Ok(text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect())
}
