//! Learning from suites. A suite may have thousands of tests, so all that is known of them is read at
//! once, and written at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use regatta_model::{Digest, Timestamp};

use super::failure::CallError;
use super::session::Session;
use super::value::Value;
use crate::history::{MAX_PLACES, moved, spare};
use crate::rows::{self, Columns, bounded, nanos, signed};
use crate::statements::{READ_OVERHEAD, WRITE_OVERHEAD, select_history};
use crate::{Place, SuiteObservation, TestHistory, TestObservation, Timing};

/// A suite, and whose it is.
struct Subject<'a> {
    tenant: &'a str,
    suite: &'a str,
}

impl Subject<'_> {
    /// The first two parameters of each statement here.
    fn values(&self) -> [Value<'static>; 2] {
        [Value::text(self.tenant), Value::text(self.suite)]
    }
}

/// How long a test takes somewhere, and when it was seen there last.
type Seen = (Timing, Timestamp);

pub(super) async fn observe_suite(
    session: &Session,
    seen: &SuiteObservation,
) -> Result<(), CallError> {
    let subject = Subject {
        tenant: seen.tenant.as_str(),
        suite: &seen.suite,
    };
    for tests in rounds(&seen.tests) {
        learn_histories(session, &subject, &tests).await?;
        let anywhere = seen.place.of_any_branch();
        let mut new = learn_timings(session, &subject, &anywhere, &tests).await?;
        if !seen.place.branch.is_empty() {
            new.extend(learn_timings(session, &subject, &seen.place, &tests).await?);
        }
        if !new.is_empty() {
            forget_places(session, &subject, new).await?;
        }
    }
    match seen.batch_overhead {
        Some(overhead) => learn_overhead(session, &subject, overhead).await,
        None => Ok(()),
    }
}

/// The same, but what is stored of a test and cannot be read costs no more than what would be learnt of that test.
/// A statement that fails voids the whole transaction, of which COMMIT would not tell: hence the savepoints.
pub(super) async fn observe_what_can_be(
    session: &Session,
    seen: &SuiteObservation,
) -> Result<(), CallError> {
    let one = |test: &TestObservation| SuiteObservation {
        tests: vec![test.clone()],
        batch_overhead: None,
        ..seen.clone()
    };
    for test in &seen.tests {
        observe_alone(session, &one(test), &test.test).await?;
    }
    let rest = SuiteObservation {
        tests: Vec::new(),
        ..seen.clone()
    };
    observe_alone(session, &rest, "").await
}

async fn observe_alone(
    session: &Session,
    seen: &SuiteObservation,
    test: &str,
) -> Result<(), CallError> {
    session.batch("SAVEPOINT lesson").await?;
    match observe_suite(session, seen).await {
        Ok(()) => session.batch("RELEASE lesson").await.map(drop),
        Err(CallError::Refused(error)) => {
            let undo = "ROLLBACK TO lesson; RELEASE lesson";
            session.batch(undo).await?;
            Ok(spare(Err(error), seen, test)?)
        }
        Err(lost @ CallError::Lost(_)) => Err(lost),
    }
}

/// The observations in their order, none of which is of a test that its round has already: one round if no
/// test was observed twice.
fn rounds(tests: &[TestObservation]) -> Vec<Vec<&TestObservation>> {
    let mut rounds: Vec<Vec<&TestObservation>> = Vec::new();
    let mut counts = BTreeMap::<&str, usize>::new();
    for test in tests {
        let count = counts.entry(&test.test).or_default();
        match rounds.get_mut(*count) {
            Some(round) => round.push(test),
            None => rounds.push(vec![test]),
        }
        *count += 1;
    }
    rounds
}

fn names(tests: &[&TestObservation]) -> Value<'static> {
    Value::texts(tests.iter().map(|test| test.test.as_str()))
}

async fn learn_histories(
    session: &Session,
    subject: &Subject<'_>,
    tests: &[&TestObservation],
) -> Result<(), CallError> {
    let select = select_history!("WHERE tenant = $1 AND suite = $2 AND test = ANY($3)");
    let [tenant, suite] = subject.values();
    let values = [tenant, suite, names(tests)];
    let known = session.read_all(select, &values, rows::test_history);
    let known = known.await?.into_iter().map(|it| (it.test.clone(), it));
    let mut known: BTreeMap<String, TestHistory> = known.collect();
    let learnt = tests.iter().map(|seen| match known.remove(&seen.test) {
        Some(mut history) => {
            history.learn(seen);
            history
        }
        None => TestHistory::begin(subject.suite, seen),
    });
    let learnt: Vec<_> = learnt.collect();
    store_histories(session, subject, &learnt).await
}

async fn store_histories(
    session: &Session,
    subject: &Subject<'_>,
    histories: &[TestHistory],
) -> Result<(), CallError> {
    let insert =
        "INSERT INTO test_history (tenant, suite, test, expected_nanos, spread_nanos, runs,
            failures, flakes, last_run, last_failure, last_key, last_input_root,
            last_failed_key)
         SELECT $1, $2, seen.* FROM UNNEST($3::TEXT[], $4::BIGINT[], $5::BIGINT[], $6::BIGINT[],
            $7::BIGINT[], $8::BIGINT[], $9::BIGINT[], $10::BIGINT[], $11::TEXT[],
            $12::TEXT[], $13::TEXT[]) AS seen
         ON CONFLICT (tenant, suite, test) DO UPDATE SET
            expected_nanos = excluded.expected_nanos, spread_nanos = excluded.spread_nanos,
            runs = excluded.runs, failures = excluded.failures, flakes = excluded.flakes,
            last_run = excluded.last_run, last_failure = excluded.last_failure,
            last_key = excluded.last_key, last_input_root = excluded.last_input_root,
            last_failed_key = excluded.last_failed_key";
    let numbers = |number: fn(&TestHistory) -> i64| Value::numbers(histories.iter().map(number));
    let digests = |digest: fn(&TestHistory) -> Option<Digest>| {
        let texts = histories
            .iter()
            .map(|it| digest(it).map(|it| it.to_string()));
        texts.collect::<Vec<_>>()
    };
    let (keys, roots) = (digests(|it| it.last_key), digests(|it| it.last_input_root));
    let failed_keys = digests(|it| it.last_failed_key);
    let failures = histories.iter().map(|it| it.last_failure);
    let failures = failures.map(|at| at.map(|at| signed(at.as_nanos())));
    let [tenant, suite] = subject.values();
    let values = [
        tenant,
        suite,
        Value::texts(histories.iter().map(|it| it.test.as_str())),
        numbers(|it| nanos(it.timing.expected)),
        numbers(|it| nanos(it.timing.spread)),
        numbers(|it| signed(it.runs)),
        numbers(|it| signed(it.failures)),
        numbers(|it| signed(it.flakes)),
        numbers(|it| signed(it.last_run.as_nanos())),
        Value::Numbers(failures.collect()),
        Value::optional_texts(keys.iter().map(Option::as_deref)),
        Value::optional_texts(roots.iter().map(Option::as_deref)),
        Value::optional_texts(failed_keys.iter().map(Option::as_deref)),
    ];
    session.execute(insert, &values).await
}

/// Learns how long tests take somewhere. Those that had not been there.
async fn learn_timings<'a>(
    session: &Session,
    subject: &Subject<'_>,
    place: &Place,
    tests: &[&'a TestObservation],
) -> Result<BTreeSet<&'a str>, CallError> {
    let select = "SELECT test, expected_nanos, spread_nanos, last_run FROM test_timings
         WHERE tenant = $1 AND suite = $2 AND image = $3 AND branch = $4 AND test = ANY($5)";
    let decode = |row: &dyn Columns| {
        let seen = (rows::timing(row, 1)?, rows::time(row.number(3)?));
        Ok((row.text(0)?, seen))
    };
    let [tenant, suite] = subject.values();
    let (image, branch) = (Value::text(&place.image), Value::text(&place.branch));
    let values = [tenant, suite, image, branch, names(tests)];
    let known = session.read_all(select, &values, decode).await?;
    let known: BTreeMap<String, Seen> = known.into_iter().collect();
    let learnt = tests.iter().map(|test| learn(known.get(&test.test), test));
    store_timings(session, subject, place, tests, &learnt.collect::<Vec<_>>()).await?;
    let new = tests.iter().map(|test| test.test.as_str());
    Ok(new.filter(|test| !known.contains_key(*test)).collect())
}

fn learn(known: Option<&Seen>, seen: &TestObservation) -> Seen {
    match known {
        Some((timing, last_run)) => {
            let mut timing = *timing;
            timing.learn(seen.duration);
            (timing, seen.finished_at.max(*last_run))
        }
        None => (Timing::begin(seen.duration), seen.finished_at),
    }
}

async fn store_timings(
    session: &Session,
    subject: &Subject<'_>,
    place: &Place,
    tests: &[&TestObservation],
    learnt: &[Seen],
) -> Result<(), CallError> {
    let insert = "INSERT INTO test_timings
            (tenant, suite, image, branch, test, expected_nanos, spread_nanos, last_run)
         SELECT $1, $2, $3, $4, seen.*
         FROM UNNEST($5::TEXT[], $6::BIGINT[], $7::BIGINT[], $8::BIGINT[]) AS seen
         ON CONFLICT (tenant, suite, test, image, branch) DO UPDATE SET
            expected_nanos = excluded.expected_nanos, spread_nanos = excluded.spread_nanos,
            last_run = excluded.last_run";
    let numbers = |number: fn(&Seen) -> i64| Value::numbers(learnt.iter().map(number));
    let [tenant, suite] = subject.values();
    let values = [
        tenant,
        suite,
        Value::text(&place.image),
        Value::text(&place.branch),
        names(tests),
        numbers(|(timing, _)| nanos(timing.expected)),
        numbers(|(timing, _)| nanos(timing.spread)),
        numbers(|(_, last_run)| signed(last_run.as_nanos())),
    ];
    session.execute(insert, &values).await
}

/// Keeps the places where tests ran last, so that branches which are gone do not stay for ever.
async fn forget_places(
    session: &Session,
    subject: &Subject<'_>,
    tests: BTreeSet<&str>,
) -> Result<(), CallError> {
    // By the places of rows in the table: whatever the planner believes of its size, nothing is joined.
    let delete = "DELETE FROM test_timings WHERE ctid = ANY (ARRAY(
            SELECT seen.row FROM (
                SELECT ctid AS row, row_number() OVER (PARTITION BY test
                    ORDER BY last_run DESC, image DESC, branch DESC) AS age
                FROM test_timings WHERE tenant = $1 AND suite = $2 AND test = ANY($3)
            ) AS seen WHERE seen.age > $4))";
    let [tenant, suite] = subject.values();
    let limit = Value::number(bounded(MAX_PLACES));
    let values = [tenant, suite, Value::texts(tests), limit];
    session.execute(delete, &values).await
}

async fn learn_overhead(
    session: &Session,
    subject: &Subject<'_>,
    overhead: Duration,
) -> Result<(), CallError> {
    let decode = |row: &dyn Columns| rows::duration(row, 0);
    let known = session
        .read_one(READ_OVERHEAD, &subject.values(), decode)
        .await?;
    let mean = known.map_or(overhead, |mean| moved(mean, overhead));
    let [tenant, suite] = subject.values();
    let values = [tenant, suite, Value::number(nanos(mean))];
    session.execute(WRITE_OVERHEAD, &values).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_has_each_test_once() {
        let test = |test: &str, second| TestObservation {
            test: test.to_owned(),
            duration: Duration::from_secs(second),
            failed: false,
            flaky: false,
            finished_at: Timestamp::EPOCH,
            key: None,
            input_root: None,
        };
        let tests = [test("a", 1), test("b", 2), test("a", 3), test("a", 4)];
        let seconds = rounds(&tests).into_iter().map(|round| {
            let seconds = round.iter().map(|test| test.duration.as_secs());
            seconds.collect::<Vec<_>>()
        });
        assert_eq!(seconds.collect::<Vec<_>>(), [vec![1, 2], vec![3], vec![4]]);
    }
}
