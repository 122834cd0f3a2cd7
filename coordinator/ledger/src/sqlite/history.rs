//! The statements about suites and their tests.

use std::time::Duration;

use regatta_model::{Digest, TenantId, Timestamp};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::queries::{signed, time, unsigned};
use super::thread::unavailable;
use crate::history::{MAX_PLACES, moved};
use crate::{
    KnownTest, LedgerError, Place, SuiteKnowledge, SuiteObservation, TestHistory, TestObservation,
    Timing,
};

/// A test, and whose it is.
struct Subject<'a> {
    tenant: &'a str,
    suite: &'a str,
    test: &'a str,
}

pub(super) fn observe_suite(
    connection: &Connection,
    seen: &SuiteObservation,
) -> Result<(), LedgerError> {
    let place = &seen.place;
    for test in &seen.tests {
        let subject = Subject {
            tenant: seen.tenant.as_str(),
            suite: &seen.suite,
            test: &test.test,
        };
        learn_history(connection, &subject, test)?;
        let mut is_new = learn_timing(connection, &subject, &place.of_any_branch(), test)?;
        if !place.branch.is_empty() {
            is_new |= learn_timing(connection, &subject, place, test)?;
        }
        if is_new {
            forget_places(connection, &subject)?;
        }
    }
    match seen.batch_overhead {
        Some(overhead) => learn_overhead(connection, seen, overhead),
        None => Ok(()),
    }
}

const HISTORY_COLUMNS: &str = "suite, test, expected_nanos, spread_nanos, runs, failures, flakes, \
     last_run, last_failure, last_key";

fn learn_history(
    connection: &Connection,
    subject: &Subject<'_>,
    seen: &TestObservation,
) -> Result<(), LedgerError> {
    let sql = format!(
        "SELECT {HISTORY_COLUMNS} FROM test_history
         WHERE tenant = ?1 AND suite = ?2 AND test = ?3"
    );
    let known = connection
        .prepare_cached(&sql)
        .and_then(|mut statement| {
            let key = params![subject.tenant, subject.suite, subject.test];
            statement.query_row(key, test_history).optional()
        })
        .map_err(unavailable)?;
    let history = match known {
        Some(mut known) => {
            known.learn(seen);
            known
        }
        None => TestHistory::begin(subject.suite, seen),
    };
    store_history(connection, subject.tenant, &history)
}

fn store_history(
    connection: &Connection,
    tenant: &str,
    history: &TestHistory,
) -> Result<(), LedgerError> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO test_history (tenant, suite, test, expected_nanos, spread_nanos,
                runs, failures, flakes, last_run, last_failure, last_key)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )
        .and_then(|mut statement| {
            statement.execute(params![
                tenant,
                history.suite,
                history.test,
                nanos(history.timing.expected),
                nanos(history.timing.spread),
                signed(history.runs),
                signed(history.failures),
                signed(history.flakes),
                signed(history.last_run.as_nanos()),
                history.last_failure.map(|at| signed(at.as_nanos())),
                history.last_key.map(|key| key.to_string()),
            ])
        })
        .map(drop)
        .map_err(unavailable)
}

/// Learns how long a test takes somewhere. True if it had not been there.
fn learn_timing(
    connection: &Connection,
    subject: &Subject<'_>,
    place: &Place,
    seen: &TestObservation,
) -> Result<bool, LedgerError> {
    let Subject {
        tenant,
        suite,
        test,
    } = subject;
    let Place { image, branch } = place;
    let known = connection
        .prepare_cached(
            "SELECT expected_nanos, spread_nanos FROM test_timings
             WHERE tenant = ?1 AND suite = ?2 AND test = ?3 AND image = ?4 AND branch = ?5",
        )
        .and_then(|mut statement| {
            let key = params![tenant, suite, test, image, branch];
            statement.query_row(key, |row| timing(row, 0)).optional()
        })
        .map_err(unavailable)?;
    let mut timing = known.unwrap_or_else(|| Timing::begin(seen.duration));
    if known.is_some() {
        timing.learn(seen.duration);
    }
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO test_timings
                (tenant, suite, test, image, branch, expected_nanos, spread_nanos, last_run)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )
        .and_then(|mut statement| {
            statement.execute(params![
                tenant,
                suite,
                test,
                image,
                branch,
                nanos(timing.expected),
                nanos(timing.spread),
                signed(seen.finished_at.as_nanos()),
            ])
        })
        .map_err(unavailable)?;
    Ok(known.is_none())
}

/// Keeps the places where a test ran last, so that branches which are gone do not stay for ever.
fn forget_places(connection: &Connection, subject: &Subject<'_>) -> Result<(), LedgerError> {
    let limit = i64::try_from(MAX_PLACES).unwrap_or(i64::MAX);
    connection
        .prepare_cached(
            "DELETE FROM test_timings
             WHERE tenant = ?1 AND suite = ?2 AND test = ?3 AND (image, branch) NOT IN (
                SELECT image, branch FROM test_timings
                WHERE tenant = ?1 AND suite = ?2 AND test = ?3
                ORDER BY last_run DESC LIMIT ?4)",
        )
        .and_then(|mut statement| {
            statement.execute(params![subject.tenant, subject.suite, subject.test, limit])
        })
        .map(drop)
        .map_err(unavailable)
}

fn learn_overhead(
    connection: &Connection,
    seen: &SuiteObservation,
    overhead: Duration,
) -> Result<(), LedgerError> {
    let known = batch_overhead(connection, &seen.tenant, &seen.suite)?;
    let mean = known.map_or(overhead, |mean| moved(mean, overhead));
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO suite_history (tenant, suite, overhead_nanos)
             VALUES (?1, ?2, ?3)",
        )
        .and_then(|mut statement| {
            statement.execute(params![seen.tenant.as_str(), seen.suite, nanos(mean)])
        })
        .map(drop)
        .map_err(unavailable)
}

fn batch_overhead(
    connection: &Connection,
    tenant: &TenantId,
    suite: &str,
) -> Result<Option<Duration>, LedgerError> {
    connection
        .prepare_cached("SELECT overhead_nanos FROM suite_history WHERE tenant = ?1 AND suite = ?2")
        .and_then(|mut statement| {
            statement
                .query_row(params![tenant.as_str(), suite], |row| duration(row, 0))
                .optional()
        })
        .map_err(unavailable)
}

pub(super) fn read_suite(
    connection: &Connection,
    tenant: &TenantId,
    suite: &str,
    place: &Place,
) -> Result<SuiteKnowledge, LedgerError> {
    let mut statement = connection
        .prepare_cached(
            "SELECT anywhere.test, anywhere.last_failure, anywhere.last_key,
                COALESCE(there.expected_nanos, image.expected_nanos, anywhere.expected_nanos),
                COALESCE(there.spread_nanos, image.spread_nanos, anywhere.spread_nanos)
             FROM test_history AS anywhere
             LEFT JOIN test_timings AS image ON image.tenant = anywhere.tenant
                AND image.suite = anywhere.suite AND image.test = anywhere.test
                AND image.image = ?3 AND image.branch = ''
             LEFT JOIN test_timings AS there ON there.tenant = anywhere.tenant
                AND there.suite = anywhere.suite AND there.test = anywhere.test
                AND there.image = ?3 AND there.branch = ?4
             WHERE anywhere.tenant = ?1 AND anywhere.suite = ?2 ORDER BY anywhere.test",
        )
        .map_err(unavailable)?;
    let rows = statement
        .query_map(
            params![tenant.as_str(), suite, place.image, place.branch],
            known_test,
        )
        .map_err(unavailable)?;
    Ok(SuiteKnowledge {
        tests: rows.collect::<Result<_, _>>().map_err(unavailable)?,
        batch_overhead: batch_overhead(connection, tenant, suite)?,
    })
}

fn known_test(row: &Row<'_>) -> rusqlite::Result<KnownTest> {
    Ok(KnownTest {
        test: row.get(0)?,
        timing: timing(row, 3)?,
        last_failure: optional_time(row, 1)?,
        last_key: key(row, 2)?,
    })
}

pub(super) fn read_history(
    connection: &Connection,
    tenant: &TenantId,
    suite: Option<&str>,
) -> Result<Vec<TestHistory>, LedgerError> {
    let sql = format!(
        "SELECT {HISTORY_COLUMNS} FROM test_history
         WHERE tenant = ?1 AND (?2 IS NULL OR suite = ?2) ORDER BY suite, test"
    );
    let mut statement = connection.prepare_cached(&sql).map_err(unavailable)?;
    let rows = statement
        .query_map(params![tenant.as_str(), suite], test_history)
        .map_err(unavailable)?;
    rows.collect::<Result<_, _>>().map_err(unavailable)
}

fn test_history(row: &Row<'_>) -> rusqlite::Result<TestHistory> {
    Ok(TestHistory {
        suite: row.get(0)?,
        test: row.get(1)?,
        timing: timing(row, 2)?,
        runs: unsigned(row.get(4)?),
        failures: unsigned(row.get(5)?),
        flakes: unsigned(row.get(6)?),
        last_run: time(row.get(7)?),
        last_failure: optional_time(row, 8)?,
        last_key: key(row, 9)?,
    })
}

/// The mean and the spread in two columns next to each other.
fn timing(row: &Row<'_>, first: usize) -> rusqlite::Result<Timing> {
    Ok(Timing {
        expected: duration(row, first)?,
        spread: duration(row, first + 1)?,
    })
}

fn duration(row: &Row<'_>, column: usize) -> rusqlite::Result<Duration> {
    Ok(Duration::from_nanos(unsigned(row.get(column)?)))
}

fn optional_time(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Timestamp>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(time))
}

/// A key that cannot be read is one that is not known.
fn key(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Digest>> {
    let text: Option<String> = row.get(column)?;
    Ok(text.and_then(|key| key.parse().ok()))
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}
