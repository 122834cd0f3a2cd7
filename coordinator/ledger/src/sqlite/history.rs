//! The statements about suites and their tests.

use std::time::Duration;

use regatta_model::TenantId;
use rusqlite::{Connection, params};

use super::queries::{execute, read_all, read_one};
use crate::history::{MAX_PLACES, moved, spare};
use crate::rows::{self, Columns, bounded, nanos, signed, time};
use crate::statements::{self, select_history};
use crate::{
    LedgerError, Place, SuiteKnowledge, SuiteObservation, TestHistory, TestObservation, Timing,
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
    for test in &seen.tests {
        observe_test(connection, seen, test)?;
    }
    match seen.batch_overhead {
        Some(overhead) => learn_overhead(connection, seen, overhead),
        None => Ok(()),
    }
}

/// The same, but what is stored of a test and cannot be read costs no more than what would be learnt of that test.
pub(super) fn observe_what_can_be(
    connection: &Connection,
    seen: &SuiteObservation,
) -> Result<(), LedgerError> {
    for test in &seen.tests {
        let learnt = alone(connection, || observe_test(connection, seen, test));
        spare(learnt, seen, &test.test)?;
    }
    match seen.batch_overhead {
        Some(overhead) => {
            let learnt = alone(connection, || learn_overhead(connection, seen, overhead));
            spare(learnt, seen, "")
        }
        None => Ok(()),
    }
}

/// Undoes what a part of a request has done if that fails.
fn alone(
    connection: &Connection,
    part: impl FnOnce() -> Result<(), LedgerError>,
) -> Result<(), LedgerError> {
    execute(connection, "SAVEPOINT lesson", [])?;
    let done = part();
    if done.is_err() {
        execute(connection, "ROLLBACK TO lesson", [])?;
    }
    execute(connection, "RELEASE lesson", [])?;
    done
}

fn observe_test(
    connection: &Connection,
    suite: &SuiteObservation,
    seen: &TestObservation,
) -> Result<(), LedgerError> {
    let place = &suite.place;
    let subject = Subject {
        tenant: suite.tenant.as_str(),
        suite: &suite.suite,
        test: &seen.test,
    };
    learn_history(connection, &subject, seen)?;
    let mut is_new = learn_timing(connection, &subject, &place.of_any_branch(), seen)?;
    if !place.branch.is_empty() {
        is_new |= learn_timing(connection, &subject, place, seen)?;
    }
    match is_new {
        true => forget_places(connection, &subject),
        false => Ok(()),
    }
}

fn learn_history(
    connection: &Connection,
    subject: &Subject<'_>,
    seen: &TestObservation,
) -> Result<(), LedgerError> {
    let select = select_history!("WHERE tenant = ?1 AND suite = ?2 AND test = ?3");
    let key = params![subject.tenant, subject.suite, subject.test];
    let history = match read_one(connection, select, key, rows::test_history)? {
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
    let insert = "INSERT OR REPLACE INTO test_history (tenant, suite, test, expected_nanos,
            spread_nanos, runs, failures, flakes, last_run, last_failure, last_key, last_input_root,
            last_failed_key)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";
    let values = params![
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
        history.last_input_root.map(|root| root.to_string()),
        history.last_failed_key.map(|key| key.to_string()),
    ];
    execute(connection, insert, values)
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
    let select = "SELECT expected_nanos, spread_nanos, last_run FROM test_timings
         WHERE tenant = ?1 AND suite = ?2 AND test = ?3 AND image = ?4 AND branch = ?5";
    let key = params![tenant, suite, test, image, branch];
    let decode = |row: &dyn Columns| Ok((rows::timing(row, 0)?, time(row.number(2)?)));
    let known = read_one(connection, select, key, decode)?;
    let (mut timing, last_run) = known.unwrap_or_else(|| {
        let timing = Timing::begin(seen.duration);
        (timing, seen.finished_at)
    });
    if known.is_some() {
        timing.learn(seen.duration);
    }
    let insert = "INSERT OR REPLACE INTO test_timings
            (tenant, suite, test, image, branch, expected_nanos, spread_nanos, last_run)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    let values = params![
        tenant,
        suite,
        test,
        image,
        branch,
        nanos(timing.expected),
        nanos(timing.spread),
        signed(last_run.max(seen.finished_at).as_nanos()),
    ];
    execute(connection, insert, values)?;
    Ok(known.is_none())
}

/// Keeps the places where a test ran last, so that branches which are gone do not stay for ever.
fn forget_places(connection: &Connection, subject: &Subject<'_>) -> Result<(), LedgerError> {
    let delete = "DELETE FROM test_timings
         WHERE tenant = ?1 AND suite = ?2 AND test = ?3 AND (image, branch) NOT IN (
            SELECT image, branch FROM test_timings
            WHERE tenant = ?1 AND suite = ?2 AND test = ?3
            ORDER BY last_run DESC, image DESC, branch DESC LIMIT ?4)";
    let values = params![
        subject.tenant,
        subject.suite,
        subject.test,
        bounded(MAX_PLACES)
    ];
    execute(connection, delete, values)
}

fn learn_overhead(
    connection: &Connection,
    seen: &SuiteObservation,
    overhead: Duration,
) -> Result<(), LedgerError> {
    let known = batch_overhead(connection, &seen.tenant, &seen.suite)?;
    let mean = known.map_or(overhead, |mean| moved(mean, overhead));
    let values = params![seen.tenant.as_str(), seen.suite, nanos(mean)];
    execute(connection, statements::WRITE_OVERHEAD, values)
}

fn batch_overhead(
    connection: &Connection,
    tenant: &TenantId,
    suite: &str,
) -> Result<Option<Duration>, LedgerError> {
    let values = params![tenant.as_str(), suite];
    let overhead = |row: &dyn Columns| rows::duration(row, 0);
    read_one(connection, statements::READ_OVERHEAD, values, overhead)
}

pub(super) fn read_suite(
    connection: &Connection,
    tenant: &TenantId,
    suite: &str,
    place: &Place,
) -> Result<SuiteKnowledge, LedgerError> {
    let values = params![place.image, place.branch, tenant.as_str(), suite];
    Ok(SuiteKnowledge {
        tests: read_all(connection, statements::READ_SUITE, values, rows::known_test)?,
        batch_overhead: batch_overhead(connection, tenant, suite)?,
    })
}

pub(super) fn read_history(
    connection: &Connection,
    tenant: &TenantId,
    suite: Option<&str>,
) -> Result<Vec<TestHistory>, LedgerError> {
    let values = params![tenant.as_str(), suite];
    let statement = statements::READ_HISTORY;
    read_all(connection, statement, values, rows::test_history)
}
