//! What rows of the statements mean, whichever database they come from. Numbers beyond SQL's signed 64 bits
//! are stored by their bits.

use std::time::Duration;

use bytes::Bytes;
use regatta_model::{Digest, RunId, Timestamp, Verdict};

use crate::{
    CoordinatorIdentity, GivenVerdict, KeptBlob, KnownTest, LedgerError, NewRun, OldRun,
    OldRunPlace, RunCounts, RunEnd, RunRecord, RunTimes, StoredEvent, TestHistory, Timing,
};

/// The columns of a row, from 0. What is not of the type that the schema says is an error.
pub(crate) trait Columns {
    fn text(&self, column: usize) -> Result<String, LedgerError>;
    fn optional_text(&self, column: usize) -> Result<Option<String>, LedgerError>;
    fn number(&self, column: usize) -> Result<i64, LedgerError>;
    fn optional_number(&self, column: usize) -> Result<Option<i64>, LedgerError>;
    fn bytes(&self, column: usize) -> Result<Bytes, LedgerError>;
}

pub(crate) fn event(row: &dyn Columns) -> Result<StoredEvent, LedgerError> {
    Ok(StoredEvent {
        sequence: unsigned(row.number(0)?),
        bytes: row.bytes(1)?,
        teaches: None,
    })
}

pub(crate) fn run_record(row: &dyn Columns) -> Result<RunRecord, LedgerError> {
    let new = NewRun {
        run: row.text(0)?.parse().map_err(corrupt)?,
        tenant: row.text(1)?.parse().map_err(corrupt)?,
        description: row.text(2)?,
        commit: row.text(3)?,
        branch: row.text(4)?,
        submitted_at: time(row.number(5)?),
        committed_at: optional_time(row, 16)?,
    };
    let end = row
        .optional_number(6)?
        .map(|finished_at| run_end(row, time(finished_at)))
        .transpose()?;
    let ended = row.optional_number(19)?.map(unsigned);
    Ok(RunRecord { new, end, ended })
}

fn run_end(row: &dyn Columns, finished_at: Timestamp) -> Result<RunEnd, LedgerError> {
    let verdict = verdict(row, 7)?;
    let count = |column| u32::try_from(row.number(column)?).map_err(corrupt);
    let counts = RunCounts {
        planned: count(8)?,
        passed: count(9)?,
        flaky: count(10)?,
        failed: count(11)?,
        cached: count(12)?,
        skipped: count(13)?,
        not_run: count(14)?,
        quarantined: count(15)?,
    };
    let leases = optional_duration(row, 17)?.zip(optional_duration(row, 18)?);
    let took = optional_duration(row, 20)?;
    Ok(RunEnd {
        finished_at,
        verdict,
        counts,
        times: leases.map(|(queued, worked)| RunTimes {
            queued,
            worked,
            took,
        }),
    })
}

pub(crate) fn old_run(row: &dyn Columns) -> Result<OldRun, LedgerError> {
    Ok(OldRun {
        place: OldRunPlace {
            run: run(row)?,
            finished_at: time(row.number(1)?),
        },
        may_go: row.number(2)? != 0,
    })
}

pub(crate) fn identity(row: &dyn Columns) -> Result<CoordinatorIdentity, LedgerError> {
    Ok(CoordinatorIdentity {
        url: row.text(0)?,
        verdict_key: row.text(1)?,
        storage: row.text(2)?,
    })
}

/// In the first column.
pub(crate) fn run(row: &dyn Columns) -> Result<RunId, LedgerError> {
    row.text(0)?.parse().map_err(corrupt)
}

pub(crate) fn given_verdict(row: &dyn Columns) -> Result<GivenVerdict, LedgerError> {
    let policy = row.optional_text(5)?;
    let policy = policy.map(|policy| policy.parse()).transpose();
    Ok(GivenVerdict {
        tenant: row.text(0)?.parse().map_err(corrupt)?,
        bundle: row.text(1)?.parse().map_err(corrupt)?,
        commit: row.text(2)?,
        run: row.text(3)?.parse().map_err(corrupt)?,
        verdict: verdict(row, 4)?,
        policy: policy.map_err(corrupt)?,
        public_key: row.text(6)?,
        first_given_at: time(row.number(7)?),
        last_given_at: time(row.number(8)?),
    })
}

/// `None` if it is damaged: then it is not kept, and all others are.
pub(crate) fn kept_blob(row: &dyn Columns) -> Result<Option<KeptBlob>, LedgerError> {
    let read = || {
        Ok(KeptBlob {
            tenant: row.text(0)?.parse().map_err(corrupt)?,
            digest: row.text(1)?.parse().map_err(corrupt)?,
            is_tree: row.number(2)? != 0,
            last_given_at: time(row.number(3)?),
        })
    };
    match read() {
        Ok(kept) => Ok(Some(kept)),
        Err(LedgerError::Corrupt { detail }) => {
            tracing::warn!(
                detail,
                "a blob that a verdict names is damaged in the ledger, and not kept"
            );
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn verdict(row: &dyn Columns, column: usize) -> Result<Verdict, LedgerError> {
    let name = row.text(column)?;
    let known = [
        Verdict::Releasable,
        Verdict::NotReleasable,
        Verdict::Unknown,
    ];
    let mut named = known.into_iter();
    let named = named.find(|verdict| verdict.to_string() == name);
    named.ok_or_else(|| corrupt(format!("`{name}` is no verdict")))
}

pub(crate) fn known_test(row: &dyn Columns) -> Result<KnownTest, LedgerError> {
    Ok(KnownTest {
        test: row.text(0)?,
        timing: timing(row, 5)?,
        last_failure: optional_time(row, 1)?,
        last_key: digest(row, 2)?,
        last_input_root: digest(row, 3)?,
        last_failed_key: digest(row, 4)?,
    })
}

pub(crate) fn test_history(row: &dyn Columns) -> Result<TestHistory, LedgerError> {
    Ok(TestHistory {
        suite: row.text(0)?,
        test: row.text(1)?,
        timing: timing(row, 2)?,
        runs: unsigned(row.number(4)?),
        failures: unsigned(row.number(5)?),
        flakes: unsigned(row.number(6)?),
        last_run: time(row.number(7)?),
        last_failure: optional_time(row, 8)?,
        last_key: digest(row, 9)?,
        last_input_root: digest(row, 10)?,
        last_failed_key: digest(row, 11)?,
    })
}

/// The mean and the spread in two columns next to each other.
pub(crate) fn timing(row: &dyn Columns, first: usize) -> Result<Timing, LedgerError> {
    Ok(Timing {
        expected: duration(row, first)?,
        spread: duration(row, first + 1)?,
    })
}

pub(crate) fn duration(row: &dyn Columns, column: usize) -> Result<Duration, LedgerError> {
    Ok(Duration::from_nanos(unsigned(row.number(column)?)))
}

fn optional_duration(row: &dyn Columns, column: usize) -> Result<Option<Duration>, LedgerError> {
    let nanos = row.optional_number(column)?;
    Ok(nanos.map(|nanos| Duration::from_nanos(unsigned(nanos))))
}

fn optional_time(row: &dyn Columns, column: usize) -> Result<Option<Timestamp>, LedgerError> {
    Ok(row.optional_number(column)?.map(time))
}

/// A digest that cannot be read is one that is not known.
fn digest(row: &dyn Columns, column: usize) -> Result<Option<Digest>, LedgerError> {
    let text = row.optional_text(column)?;
    Ok(text.and_then(|text| text.parse().ok()))
}

pub(crate) fn corrupt(detail: impl ToString) -> LedgerError {
    LedgerError::Corrupt {
        detail: detail.to_string(),
    }
}

pub(crate) fn time(nanos: i64) -> Timestamp {
    Timestamp::from_nanos(unsigned(nanos))
}

pub(crate) const fn signed(number: u64) -> i64 {
    number.cast_signed()
}

pub(crate) const fn unsigned(number: i64) -> u64 {
    number.cast_unsigned()
}

/// A duration as a column holds it: 584 years at most.
pub(crate) fn nanos(duration: Duration) -> i64 {
    signed(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

/// A number of rows, or of where to begin among them.
pub(crate) fn bounded(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}
