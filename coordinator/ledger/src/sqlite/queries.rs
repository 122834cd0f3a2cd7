//! The statements about runs, events and tokens.

use bytes::Bytes;
use regatta_model::{RunId, TenantId};
use rusqlite::types::FromSql;
use rusqlite::{Connection, Params, Row, params};

use super::forgetting::is_run_forgotten;
use super::history::observe_what_can_be;
use super::thread::unavailable;
use crate::rows::{self, Columns, bounded, nanos, signed, unsigned};
use crate::statements::{self, RESERVED_TOKENS};
use crate::{LedgerError, NewRun, RunEnd, RunQuery, RunRecord, StoredEvent};

pub(super) fn start_run(connection: &Connection, run: &NewRun) -> Result<(), LedgerError> {
    let values = params![
        run.run.as_str(),
        run.tenant.as_str(),
        run.description,
        run.commit,
        run.branch,
        signed(run.submitted_at.as_nanos()),
        run.committed_at.map(|time| signed(time.as_nanos())),
    ];
    execute(connection, statements::START_RUN, values)
}

pub(super) fn append_events(
    connection: &Connection,
    run: &RunId,
    events: &[StoredEvent],
    end: Option<RunEnd>,
) -> Result<(), LedgerError> {
    if is_run_forgotten(connection, run)? {
        return Ok(());
    }
    let insert = "INSERT INTO events (run, sequence, bytes) VALUES (?1, ?2, ?3)
         ON CONFLICT (run, sequence) DO NOTHING";
    for event in events {
        let values = params![run.as_str(), signed(event.sequence), &event.bytes[..]];
        execute(connection, insert, values)?;
        // None if the run had it.
        let is_new = connection.changes() > 0;
        if let Some(seen) = event.teaches.as_ref().filter(|_| is_new) {
            observe_what_can_be(connection, seen)?;
        }
    }
    end.map_or(Ok(()), |end| end_run(connection, run, &end))
}

fn end_run(connection: &Connection, run: &RunId, end: &RunEnd) -> Result<(), LedgerError> {
    let counts = &end.counts;
    let values = params![
        signed(end.finished_at.as_nanos()),
        end.verdict.to_string(),
        counts.planned,
        counts.passed,
        counts.flaky,
        counts.failed,
        counts.cached,
        counts.skipped,
        counts.not_run,
        counts.quarantined,
        end.times.map(|times| nanos(times.queued)),
        end.times.map(|times| nanos(times.worked)),
        end.times.and_then(|times| times.took).map(nanos),
        run.as_str(),
    ];
    execute(connection, statements::END_RUN, values)
}

pub(super) fn read_events(
    connection: &Connection,
    run: &RunId,
    after: u64,
    limit: usize,
) -> Result<Vec<StoredEvent>, LedgerError> {
    let values = params![run.as_str(), bounded(after), bounded(limit)];
    read_all(connection, statements::READ_EVENTS, values, rows::event)
}

pub(super) fn find_runs(
    connection: &Connection,
    query: &RunQuery,
) -> Result<Vec<RunRecord>, LedgerError> {
    let values = params![
        query.run.as_ref().map(RunId::as_str),
        query.tenant.as_ref().map(TenantId::as_str),
        i64::from(query.active_only),
        query.commit.as_deref(),
        bounded(query.limit),
    ];
    let statement = statements::find_runs(query);
    read_all(connection, statement, values, rows::run_record)
}

pub(super) fn reserve_tokens(connection: &Connection, last: u64) -> Result<(), LedgerError> {
    let last = last.max(reserved_tokens(connection)?);
    let values = params![RESERVED_TOKENS, signed(last)];
    execute(connection, statements::WRITE_NUMBER, values)
}

pub(super) fn reserved_tokens(connection: &Connection) -> Result<u64, LedgerError> {
    let values = [RESERVED_TOKENS];
    let number = |row: &dyn Columns| row.number(0);
    let stored = read_one(connection, statements::READ_NUMBER, values, number)?;
    Ok(stored.map_or(0, unsigned))
}

pub(super) fn execute(
    connection: &Connection,
    statement: &str,
    values: impl Params,
) -> Result<(), LedgerError> {
    connection
        .prepare_cached(statement)
        .and_then(|mut statement| statement.execute(values))
        .map(drop)
        .map_err(unavailable)
}

pub(super) fn read_all<Answer>(
    connection: &Connection,
    statement: &str,
    values: impl Params,
    decode: impl Fn(&dyn Columns) -> Result<Answer, LedgerError>,
) -> Result<Vec<Answer>, LedgerError> {
    let mut statement = connection.prepare_cached(statement).map_err(unavailable)?;
    let mut rows = statement.query(values).map_err(unavailable)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(unavailable)? {
        found.push(decode(row)?);
    }
    Ok(found)
}

/// The first row, if there is one.
pub(super) fn read_one<Answer>(
    connection: &Connection,
    statement: &str,
    values: impl Params,
    decode: impl Fn(&dyn Columns) -> Result<Answer, LedgerError>,
) -> Result<Option<Answer>, LedgerError> {
    Ok(read_all(connection, statement, values, decode)?
        .into_iter()
        .next())
}

fn column<Value: FromSql>(row: &Row<'_>, column: usize) -> Result<Value, LedgerError> {
    row.get(column).map_err(unavailable)
}

impl Columns for Row<'_> {
    fn text(&self, index: usize) -> Result<String, LedgerError> {
        column(self, index)
    }

    fn optional_text(&self, index: usize) -> Result<Option<String>, LedgerError> {
        column(self, index)
    }

    fn number(&self, index: usize) -> Result<i64, LedgerError> {
        column(self, index)
    }

    fn optional_number(&self, index: usize) -> Result<Option<i64>, LedgerError> {
        column(self, index)
    }

    fn bytes(&self, index: usize) -> Result<Bytes, LedgerError> {
        column::<Vec<u8>>(self, index).map(Bytes::from)
    }
}
