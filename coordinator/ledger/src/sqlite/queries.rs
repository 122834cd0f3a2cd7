//! The statements. Numbers that do not fit SQLite's signed 64 bits are stored by their bits.

use std::time::Duration;

use regatta_model::{RunId, TenantId, Timestamp, Verdict};
use rusqlite::{Connection, OptionalExtension as _, Row, named_params, params};

use super::thread::unavailable;
use crate::{LedgerError, NewRun, RunCounts, RunEnd, RunQuery, RunRecord, RunTimes, StoredEvent};

const RESERVED_TOKENS: &str = "reserved_tokens";

pub(super) fn start_run(connection: &Connection, run: &NewRun) -> Result<(), LedgerError> {
    connection
        .prepare_cached(
            "INSERT INTO runs (run, tenant, description, commit_id, branch, submitted_at, committed_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (run) DO NOTHING",
        )
        .and_then(|mut statement| {
            statement.execute(params![
                run.run.as_str(),
                run.tenant.as_str(),
                run.description,
                run.commit,
                run.branch,
                signed(run.submitted_at.as_nanos()),
                run.committed_at.map(|time| signed(time.as_nanos())),
            ])
        })
        .map(drop)
        .map_err(unavailable)
}

pub(super) fn append_events(
    connection: &Connection,
    run: &RunId,
    events: &[StoredEvent],
    end: Option<RunEnd>,
) -> Result<(), LedgerError> {
    let mut statement = connection
        .prepare_cached(
            "INSERT INTO events (run, sequence, bytes) VALUES (?1, ?2, ?3)
             ON CONFLICT (run, sequence) DO NOTHING",
        )
        .map_err(unavailable)?;
    for event in events {
        statement
            .execute(params![
                run.as_str(),
                signed(event.sequence),
                &event.bytes[..]
            ])
            .map_err(unavailable)?;
    }
    end.map_or(Ok(()), |end| end_run(connection, run, &end))
}

fn end_run(connection: &Connection, run: &RunId, end: &RunEnd) -> Result<(), LedgerError> {
    let counts = &end.counts;
    connection
        .prepare_cached(
            "UPDATE runs SET finished_at = :finished_at, verdict = :verdict, planned = :planned,
                passed = :passed, flaky = :flaky, failed = :failed, cached = :cached,
                skipped = :skipped, not_run = :not_run, quarantined = :quarantined,
                queued_nanos = :queued, worked_nanos = :worked
             WHERE run = :run AND finished_at IS NULL",
        )
        .and_then(|mut statement| {
            statement.execute(named_params! {
                ":run": run.as_str(),
                ":finished_at": signed(end.finished_at.as_nanos()),
                ":verdict": end.verdict.to_string(),
                ":planned": counts.planned,
                ":passed": counts.passed,
                ":flaky": counts.flaky,
                ":failed": counts.failed,
                ":cached": counts.cached,
                ":skipped": counts.skipped,
                ":not_run": counts.not_run,
                ":quarantined": counts.quarantined,
                ":queued": end.times.map(|times| nanos(times.queued)),
                ":worked": end.times.map(|times| nanos(times.worked)),
            })
        })
        .map(drop)
        .map_err(unavailable)
}

pub(super) fn read_events(
    connection: &Connection,
    run: &RunId,
    after: u64,
    limit: usize,
) -> Result<Vec<StoredEvent>, LedgerError> {
    let mut statement = connection
        .prepare_cached(
            "SELECT sequence, bytes FROM events WHERE run = ?1 AND sequence > ?2
             ORDER BY sequence LIMIT ?3",
        )
        .map_err(unavailable)?;
    let event = |row: &Row<'_>| {
        let bytes: Vec<u8> = row.get(1)?;
        Ok(StoredEvent {
            sequence: unsigned(row.get(0)?),
            bytes: bytes.into(),
        })
    };
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let rows = statement
        .query_map(params![run.as_str(), after, bounded(limit)], event)
        .map_err(unavailable)?;
    rows.collect::<Result<_, _>>().map_err(unavailable)
}

pub(super) fn find_runs(
    connection: &Connection,
    query: &RunQuery,
) -> Result<Vec<RunRecord>, LedgerError> {
    let mut statement = connection
        .prepare_cached(
            "SELECT run, tenant, description, commit_id, branch, submitted_at, finished_at, verdict,
                planned, passed, flaky, failed, cached, skipped, not_run, quarantined,
                committed_at, queued_nanos, worked_nanos
             FROM runs
             WHERE (?1 IS NULL OR run = ?1) AND (?2 IS NULL OR tenant = ?2)
                AND (?3 = 0 OR finished_at IS NULL) AND (?5 IS NULL OR commit_id = ?5)
             ORDER BY submitted_at DESC, rowid DESC LIMIT ?4",
        )
        .map_err(unavailable)?;
    let mut rows = statement
        .query(params![
            query.run.as_ref().map(RunId::as_str),
            query.tenant.as_ref().map(TenantId::as_str),
            query.active_only,
            bounded(query.limit),
            query.commit.as_deref(),
        ])
        .map_err(unavailable)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(unavailable)? {
        found.push(run_record(row)?);
    }
    Ok(found)
}

fn run_record(row: &Row<'_>) -> Result<RunRecord, LedgerError> {
    let text = |index| row.get::<_, String>(index).map_err(unavailable);
    let new = NewRun {
        run: text(0)?.parse().map_err(corrupt)?,
        tenant: text(1)?.parse().map_err(corrupt)?,
        description: text(2)?,
        commit: text(3)?,
        branch: text(4)?,
        submitted_at: time(row.get(5).map_err(unavailable)?),
        committed_at: row
            .get::<_, Option<i64>>(16)
            .map_err(unavailable)?
            .map(time),
    };
    let finished_at: Option<i64> = row.get(6).map_err(unavailable)?;
    let end = finished_at
        .map(|finished_at| run_end(row, time(finished_at)))
        .transpose()?;
    Ok(RunRecord { new, end })
}

fn run_end(row: &Row<'_>, finished_at: Timestamp) -> Result<RunEnd, LedgerError> {
    let name: String = row.get(7).map_err(unavailable)?;
    let known = [
        Verdict::Releasable,
        Verdict::NotReleasable,
        Verdict::Unknown,
    ];
    let verdict = known
        .into_iter()
        .find(|verdict| verdict.to_string() == name)
        .ok_or_else(|| corrupt(format!("`{name}` is no verdict")))?;
    let count = |index| row.get::<_, u32>(index).map_err(unavailable);
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
    let duration = |index| {
        let nanos = row.get::<_, Option<i64>>(index).map_err(unavailable)?;
        Ok(nanos.map(|nanos| Duration::from_nanos(unsigned(nanos))))
    };
    let times = duration(17)?.zip(duration(18)?);
    Ok(RunEnd {
        finished_at,
        verdict,
        counts,
        times: times.map(|(queued, worked)| RunTimes { queued, worked }),
    })
}

fn nanos(duration: Duration) -> i64 {
    signed(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

pub(super) fn reserve_tokens(connection: &Connection, last: u64) -> Result<(), LedgerError> {
    let last = last.max(reserved_tokens(connection)?);
    connection
        .execute(
            "INSERT OR REPLACE INTO numbers (name, value) VALUES (?1, ?2)",
            params![RESERVED_TOKENS, signed(last)],
        )
        .map(drop)
        .map_err(unavailable)
}

pub(super) fn reserved_tokens(connection: &Connection) -> Result<u64, LedgerError> {
    let stored: Option<i64> = connection
        .query_row(
            "SELECT value FROM numbers WHERE name = ?1",
            [RESERVED_TOKENS],
            |row| row.get(0),
        )
        .optional()
        .map_err(unavailable)?;
    Ok(stored.map_or(0, unsigned))
}

fn corrupt(detail: impl ToString) -> LedgerError {
    LedgerError::Corrupt {
        detail: detail.to_string(),
    }
}

pub(super) fn time(nanos: i64) -> Timestamp {
    Timestamp::from_nanos(unsigned(nanos))
}

pub(super) const fn signed(number: u64) -> i64 {
    number.cast_signed()
}

pub(super) const fn unsigned(number: i64) -> u64 {
    number.cast_unsigned()
}

fn bounded(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
