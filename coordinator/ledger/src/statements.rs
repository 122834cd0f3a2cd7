//! The statements that every SQL database here understands alike, so that no two of them can drift apart.
//!
//! A parameter is `$1`, `$2`, ...: for PostgreSQL a number; for SQLite a name, whose number is the place
//! where it is first met. So parameters are first met in the order of their numbers.

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
     ORDER BY sequence LIMIT $3";

/// By run, tenant, whether active ones alone (1) or all (0), and commit; columns of `rows::run_record`.
pub(crate) const FIND_RUNS: &str =
    "SELECT run, tenant, description, commit_id, branch, submitted_at, finished_at, verdict,
        planned, passed, flaky, failed, cached, skipped, not_run, quarantined,
        committed_at, queued_nanos, worked_nanos, ended, took_nanos
     FROM runs
     WHERE ($1 IS NULL OR run = $1) AND ($2 IS NULL OR tenant = $2)
        AND ($3 = 0 OR finished_at IS NULL) AND ($4 IS NULL OR commit_id = $4)
     ORDER BY submitted_at DESC, rowid DESC LIMIT $5";

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

/// Of a tenant's suite.
pub(crate) const READ_OVERHEAD: &str =
    "SELECT overhead_nanos FROM suite_history WHERE tenant = $1 AND suite = $2";

pub(crate) const WRITE_OVERHEAD: &str =
    "INSERT INTO suite_history (tenant, suite, overhead_nanos) VALUES ($1, $2, $3)
     ON CONFLICT (tenant, suite) DO UPDATE SET overhead_nanos = excluded.overhead_nanos";

/// For an image and a branch, of a tenant's suite; columns of `rows::known_test`.
pub(crate) const READ_SUITE: &str =
    "SELECT anywhere.test, anywhere.last_failure, anywhere.last_key,
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
                last_failure, last_key
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
            FIND_RUNS,
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
