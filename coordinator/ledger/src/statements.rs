//! The statements that every SQL database here understands alike, so that no two of them can drift apart.
//!
//! A parameter is `$1`, `$2`, ...: for PostgreSQL a number; for SQLite a name, whose number is the place
//! where it is first met. So parameters are first met in the order of their numbers.

use crate::RunQuery;

pub(crate) const START_RUN: &str =
    "INSERT INTO runs (run, tenant, description, commit_id, branch, submitted_at, committed_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (run) DO NOTHING";

/// The end of a run that has none yet. It comes after all others, whatever its time says; those of earlier
/// releases have their times as their numbers.
pub(crate) const END_RUN: &str =
    "UPDATE runs SET finished_at = $1, verdict = $2, planned = $3, passed = $4, flaky = $5,
        failed = $6, cached = $7, skipped = $8, not_run = $9, quarantined = $10,
        queued_nanos = $11, worked_nanos = $12, took_nanos = $13,
        ended = (SELECT COALESCE(MAX(ended), 0) + 1 FROM runs)
     WHERE run = $14 AND finished_at IS NULL";

/// Columns of `rows::event`.
pub(crate) const READ_EVENTS: &str =
    "SELECT sequence, bytes FROM events WHERE run = $1 AND sequence > $2
        AND NOT EXISTS (SELECT 1 FROM runs WHERE run = $1 AND forgotten_at IS NOT NULL)
     ORDER BY sequence LIMIT $3";

/// By run, tenant, whether active ones alone (1) or all (0), and commit; columns of `rows::run_record`.
macro_rules! find_runs {
    ($by_run:literal) => {
        concat!(
            "SELECT run, tenant, description, commit_id, branch, submitted_at, finished_at, verdict,
                planned, passed, flaky, failed, cached, skipped, not_run, quarantined,
                committed_at, queued_nanos, worked_nanos, ended, took_nanos
             FROM runs
             WHERE ",
            $by_run,
            " AND forgotten_at IS NULL AND ($2 IS NULL OR tenant = $2)
                AND ($3 = 0 OR finished_at IS NULL) AND ($4 IS NULL OR commit_id = $4)
             ORDER BY submitted_at DESC, rowid DESC LIMIT $5"
        )
    };
}

/// Those that a query asks for. One is looked up by its id, which a statement that may have to find all would not do.
pub(crate) const fn find_runs(query: &RunQuery) -> &'static str {
    match &query.run {
        Some(_) => FIND_RUN,
        None => FIND_RUNS,
    }
}

const FIND_RUN: &str = find_runs!("run = $1");
const FIND_RUNS: &str = find_runs!("CAST($1 AS TEXT) IS NULL");

/// Whether a run, with all others of its commit, may go: it is the last of them to have ended, none of them goes on, and
/// none is named by a verdict that was given since the time that a parameter says. The run is a row `leader` with its
/// `run`, `tenant`, `commit_id` and `finished_at`.
macro_rules! may_go {
    ($since:literal) => {
        concat!(
            "NOT EXISTS (SELECT 1 FROM runs AS active WHERE leader.commit_id <> ''
                AND active.tenant = leader.tenant AND active.commit_id = leader.commit_id
                AND active.finished_at IS NULL)
             AND NOT EXISTS (SELECT 1 FROM runs AS later WHERE leader.commit_id <> ''
                AND later.tenant = leader.tenant AND later.commit_id = leader.commit_id
                AND later.finished_at > leader.finished_at AND later.forgotten_at IS NULL)
             AND NOT EXISTS (SELECT 1 FROM runs AS equal WHERE leader.commit_id <> ''
                AND equal.tenant = leader.tenant AND equal.commit_id = leader.commit_id
                AND equal.finished_at = leader.finished_at AND equal.run > leader.run
                AND equal.forgotten_at IS NULL)
             AND NOT EXISTS (SELECT 1 FROM verdict_runs AS named
                JOIN verdicts AS given ON given.tenant = named.tenant AND given.bundle = named.bundle
                WHERE named.run = leader.run AND given.last_given_at >= ",
            $since,
            ") AND NOT EXISTS (SELECT 1 FROM runs AS sibling
                JOIN verdict_runs AS named ON named.run = sibling.run
                JOIN verdicts AS given ON given.tenant = named.tenant AND given.bundle = named.bundle
                WHERE leader.commit_id <> '' AND sibling.tenant = leader.tenant
                    AND sibling.commit_id = leader.commit_id AND sibling.forgotten_at IS NULL
                    AND given.last_given_at >= ",
            $since,
            ")"
        )
    };
}

/// By since when verdicts keep runs, before when those ended that are looked at, and the place after which; columns of
/// `rows::old_run`.
pub(crate) const FIND_OLD_RUNS: &str = concat!(
    "SELECT leader.run, leader.finished_at, CAST(CASE WHEN ",
    may_go!("$1"),
    " THEN 1 ELSE 0 END AS BIGINT)
     FROM (
        SELECT run, tenant, commit_id, finished_at FROM runs
        WHERE forgotten_at IS NULL AND finished_at < $2
            AND finished_at >= $3 AND (finished_at > $3 OR run > $4)
        ORDER BY finished_at, run LIMIT $5
     ) AS leader
     ORDER BY leader.finished_at, leader.run"
);

/// At a time, a run that ended before another and that no verdict keeps since another, and all runs of its commit.
pub(crate) const FORGET_RUN: &str = concat!(
    "UPDATE runs SET forgotten_at = $1, half_gone = 1, description = ''
     WHERE run IN (
        SELECT leader.run FROM runs AS leader
        WHERE leader.run = $2 AND leader.forgotten_at IS NULL AND leader.finished_at < $3 AND ",
    may_go!("$4"),
    "   UNION ALL
        SELECT gone.run FROM runs AS leader
        JOIN runs AS gone ON gone.tenant = leader.tenant AND gone.commit_id = leader.commit_id
        WHERE leader.run = $2 AND leader.forgotten_at IS NULL AND leader.finished_at < $3
            AND leader.commit_id <> '' AND gone.forgotten_at IS NULL AND ",
    may_go!("$4"),
    ")"
);

/// The first events of a forgotten run, so many at most.
pub(crate) const DELETE_EVENTS: &str = "DELETE FROM events WHERE run = $1
        AND EXISTS (SELECT 1 FROM runs WHERE run = $1 AND forgotten_at IS NOT NULL)
        AND sequence <= (SELECT MAX(sequence) FROM (
            SELECT sequence FROM events WHERE run = $1 ORDER BY sequence LIMIT $2) AS portion)";

/// Once it is so.
pub(crate) const NOTE_NO_EVENTS: &str =
    "UPDATE runs SET half_gone = 0 WHERE run = $1 AND half_gone = 1
        AND NOT EXISTS (SELECT 1 FROM events WHERE run = $1)";

pub(crate) const DELETE_NAMES: &str = "DELETE FROM runs WHERE run IN (
        SELECT run FROM runs WHERE forgotten_at IS NOT NULL AND forgotten_at < $1 AND half_gone = 0
        ORDER BY forgotten_at, run LIMIT $2)";

pub(crate) const FIND_HALF_GONE: &str =
    "SELECT run FROM runs WHERE half_gone = 1 ORDER BY run LIMIT $1";

pub(crate) const IS_RUN_FORGOTTEN: &str =
    "SELECT run FROM runs WHERE run = $1 AND forgotten_at IS NOT NULL";

/// Any of a tenant's commit.
pub(crate) const IS_COMMIT_FORGOTTEN: &str = "SELECT run FROM runs
     WHERE tenant = $1 AND commit_id = $2 AND forgotten_at IS NOT NULL LIMIT 1";

pub(crate) const READ_NUMBER: &str = "SELECT value FROM numbers WHERE name = $1";

pub(crate) const WRITE_NUMBER: &str = "INSERT INTO numbers (name, value) VALUES ($1, $2)
     ON CONFLICT (name) DO UPDATE SET value = excluded.value";

pub(crate) const BEGIN_TERM: &str =
    "INSERT INTO terms (term, url, verdict_key, storage) VALUES ($1, $2, $3, $4)";

/// Those up to one.
pub(crate) const FORGET_TERMS: &str = "DELETE FROM terms WHERE term <= $1";

/// Who began the last one.
pub(crate) const READ_TERM: &str =
    "SELECT url, verdict_key, storage FROM terms ORDER BY term DESC LIMIT 1";

/// Who began the last one to work in it.
pub(crate) const READ_OWNER: &str = "SELECT url, verdict_key, storage FROM terms WHERE verdict_key <> '' ORDER BY term DESC LIMIT 1";

/// Any run.
pub(crate) const FIND_ANY_RUN: &str = "SELECT run FROM runs LIMIT 1";

/// Of the last one that named any.
pub(crate) const READ_STORAGE: &str =
    "SELECT storage FROM terms WHERE storage <> '' ORDER BY term DESC LIMIT 1";

/// Of a tenant's suite.
pub(crate) const READ_OVERHEAD: &str =
    "SELECT overhead_nanos FROM suite_history WHERE tenant = $1 AND suite = $2";

pub(crate) const WRITE_OVERHEAD: &str =
    "INSERT INTO suite_history (tenant, suite, overhead_nanos) VALUES ($1, $2, $3)
     ON CONFLICT (tenant, suite) DO UPDATE SET overhead_nanos = excluded.overhead_nanos";

/// For an image and a branch, of a tenant's suite; columns of `rows::known_test`.
pub(crate) const READ_SUITE: &str =
    "SELECT anywhere.test, anywhere.last_failure, anywhere.last_key, anywhere.last_input_root,
        anywhere.last_failed_key,
        COALESCE(there.expected_nanos, image.expected_nanos, anywhere.expected_nanos),
        COALESCE(there.spread_nanos, image.spread_nanos, anywhere.spread_nanos)
     FROM test_history AS anywhere
     LEFT JOIN test_timings AS image ON image.tenant = anywhere.tenant
        AND image.suite = anywhere.suite AND image.test = anywhere.test
        AND image.image = $1 AND image.branch = ''
     LEFT JOIN test_timings AS there ON there.tenant = anywhere.tenant
        AND there.suite = anywhere.suite AND there.test = anywhere.test
        AND there.image = $1 AND there.branch = $2
     WHERE anywhere.tenant = $3 AND anywhere.suite = $4 ORDER BY anywhere.test";

/// The columns of `rows::test_history`, and the rest of a statement.
macro_rules! select_history {
    ($rest:literal) => {
        concat!(
            "SELECT suite, test, expected_nanos, spread_nanos, runs, failures, flakes, last_run,
                last_failure, last_key, last_input_root, last_failed_key
             FROM test_history ",
            $rest
        )
    };
}
pub(crate) use select_history;

/// Of a tenant's suite, or of all of them.
pub(crate) const READ_HISTORY: &str =
    select_history!("WHERE tenant = $1 AND ($2 IS NULL OR suite = $2) ORDER BY suite, test");

/// One that was given before is given again; clocks are set back.
pub(crate) const KEEP_VERDICT: &str =
    "INSERT INTO verdicts (tenant, bundle, commit_id, run, verdict, policy, public_key,
        first_given_at, last_given_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
     ON CONFLICT (tenant, bundle) DO UPDATE SET last_given_at =
        CASE WHEN excluded.last_given_at > verdicts.last_given_at
            THEN excluded.last_given_at ELSE verdicts.last_given_at END";

pub(crate) const NAME_RUN: &str =
    "INSERT INTO verdict_runs (tenant, bundle, run) VALUES ($1, $2, $3)
     ON CONFLICT (tenant, bundle, run) DO NOTHING";

/// By tenant, commit, run and bundle; columns of `rows::given_verdict`.
pub(crate) const FIND_VERDICTS: &str =
    "SELECT tenant, bundle, commit_id, run, verdict, policy, public_key, first_given_at,
        last_given_at
     FROM verdicts
     WHERE ($1 IS NULL OR tenant = $1) AND ($2 IS NULL OR commit_id = $2)
        AND ($3 IS NULL OR run = $3) AND ($4 IS NULL OR bundle = $4)
     ORDER BY last_given_at DESC, tenant, bundle LIMIT $5";

/// What verdicts keep that were given since; columns of `rows::kept_blob`.
pub(crate) const READ_KEPT_BLOBS: &str =
    "SELECT tenant, digest, MAX(is_tree), MAX(last_given_at) AS last_given
     FROM (
        SELECT tenant, bundle AS digest, 0 AS is_tree, last_given_at
        FROM verdicts WHERE last_given_at >= $1
        UNION ALL
        SELECT verdicts.tenant, named.digest, named.is_tree, verdicts.last_given_at
        FROM verdicts JOIN verdict_artefacts AS named
            ON named.tenant = verdicts.tenant AND named.bundle = verdicts.bundle
        WHERE verdicts.last_given_at >= $1
     ) AS kept
     GROUP BY tenant, digest ORDER BY last_given DESC, tenant, digest LIMIT $2";

/// Under which name the reserved fencing tokens are among the numbers.
pub(crate) const RESERVED_TOKENS: &str = "reserved_tokens";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_first_met_in_the_order_of_their_numbers() {
        for statement in [
            START_RUN,
            END_RUN,
            READ_EVENTS,
            FIND_RUN,
            FIND_RUNS,
            FIND_OLD_RUNS,
            FORGET_RUN,
            DELETE_EVENTS,
            NOTE_NO_EVENTS,
            DELETE_NAMES,
            FIND_HALF_GONE,
            IS_RUN_FORGOTTEN,
            IS_COMMIT_FORGOTTEN,
            NAME_RUN,
            READ_NUMBER,
            WRITE_NUMBER,
            BEGIN_TERM,
            FORGET_TERMS,
            READ_OVERHEAD,
            WRITE_OVERHEAD,
            READ_SUITE,
            READ_HISTORY,
            KEEP_VERDICT,
            FIND_VERDICTS,
            READ_KEPT_BLOBS,
        ] {
            let mut met = 0;
            for after in statement.split('$').skip(1) {
                let digits = after.split(|it: char| !it.is_ascii_digit()).next();
                let number: u32 = digits.and_then(|it| it.parse().ok()).expect("a number");
                assert!(number <= met + 1, "${number} in {statement}");
                met = met.max(number);
            }
        }
    }
}
