//! What changes the database: as a value, so that it can be carried out again if the database had gone.

use std::collections::BTreeSet;

use regatta_model::RunId;

use super::failure::CallError;
use super::learning;
use super::schema::read_reserved;
use super::session::Session;
use super::value::Value;
use crate::rows::{self, Columns, bounded, nanos, signed, unsigned};
use crate::statements::{
    DELETE_EVENTS, DELETE_NAMES, END_RUN, FORGET_RUN, IS_RUN_FORGOTTEN, KEEP_VERDICT,
    NOTE_NO_EVENTS, RESERVED_TOKENS, START_RUN, WRITE_NUMBER,
};
use crate::{
    Forgetting, GivenVerdict, NamedArtefact, NewRun, RunEnd, StoredEvent, SuiteObservation,
};

#[derive(Debug)]
pub(super) enum Write {
    StartRun(NewRun),
    AppendEvents {
        run: RunId,
        events: Vec<StoredEvent>,
        end: Option<RunEnd>,
    },
    ObserveSuite(SuiteObservation),
    KeepVerdict {
        given: GivenVerdict,
        artefacts: Vec<NamedArtefact>,
        runs: Vec<RunId>,
    },
    Forget(Forgetting),
    ReserveTokens(u64),
}

/// Which of what events teach has to be learnt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lessons {
    /// All of it, or the write fails.
    All,
    /// Only that of tests of which what is stored can be read. This takes more round trips.
    Readable,
}

impl Write {
    /// Whether it has events that teach, which are to be stored even if nothing can be learnt from them.
    pub(super) fn teaches(&self) -> bool {
        match self {
            Self::AppendEvents { events, .. } => events.iter().any(|event| event.teaches.is_some()),
            Self::StartRun(_)
            | Self::ObserveSuite(_)
            | Self::KeepVerdict { .. }
            | Self::Forget(_)
            | Self::ReserveTokens(_) => false,
        }
    }

    /// Carries it out in the session's transaction.
    pub(super) async fn apply(&self, session: &Session, lessons: Lessons) -> Result<(), CallError> {
        match self {
            Self::StartRun(run) => start_run(session, run).await,
            Self::AppendEvents { run, events, end } => {
                append_events(session, run, events, lessons).await?;
                match end {
                    Some(end) => end_run(session, run, end).await,
                    None => Ok(()),
                }
            }
            Self::ObserveSuite(seen) => learning::observe_suite(session, seen).await,
            Self::KeepVerdict {
                given,
                artefacts,
                runs,
            } => {
                let speaker = [Value::text(given.run.as_str())];
                let forgotten = session.read_one(IS_RUN_FORGOTTEN, &speaker, rows::run);
                if forgotten.await?.is_some() {
                    return Ok(());
                }
                keep_verdict(session, given, artefacts).await?;
                name_runs(session, given, runs).await
            }
            Self::Forget(step) => forget(session, step).await,
            Self::ReserveTokens(last) => reserve_tokens(session, *last).await,
        }
    }
}

async fn start_run(session: &Session, run: &NewRun) -> Result<(), CallError> {
    let values = [
        Value::text(run.run.as_str()),
        Value::text(run.tenant.as_str()),
        Value::text(&run.description),
        Value::text(&run.commit),
        Value::text(&run.branch),
        Value::number(signed(run.submitted_at.as_nanos())),
        Value::Number(run.committed_at.map(|time| signed(time.as_nanos()))),
    ];
    session.execute(START_RUN, &values).await
}

async fn append_events(
    session: &Session,
    run: &RunId,
    events: &[StoredEvent],
    lessons: Lessons,
) -> Result<(), CallError> {
    let insert = "INSERT INTO events (run, sequence, bytes)
         SELECT $1, event.sequence, event.bytes
         FROM UNNEST($2::BIGINT[], $3::BYTEA[]) AS event (sequence, bytes)
         WHERE NOT EXISTS (SELECT 1 FROM runs WHERE run = $1 AND forgotten_at IS NOT NULL)
         ON CONFLICT (run, sequence) DO NOTHING RETURNING sequence";
    if events.is_empty() {
        return Ok(());
    }
    let values = [
        Value::text(run.as_str()),
        Value::numbers(events.iter().map(|event| signed(event.sequence))),
        Value::Blobs(events.iter().map(|event| &event.bytes[..]).collect()),
    ];
    let sequence = |row: &dyn Columns| Ok(unsigned(row.number(0)?));
    let added = session.read_all(insert, &values, sequence).await?;
    let mut added: BTreeSet<u64> = added.into_iter().collect();
    // Only what the run did not have yet, the first of those that are the same.
    let new = events.iter().filter(|event| added.remove(&event.sequence));
    for seen in new.filter_map(|event| event.teaches.as_ref()) {
        match lessons {
            Lessons::All => learning::observe_suite(session, seen).await?,
            Lessons::Readable => learning::observe_what_can_be(session, seen).await?,
        }
    }
    Ok(())
}

async fn end_run(session: &Session, run: &RunId, end: &RunEnd) -> Result<(), CallError> {
    let counts = &end.counts;
    let count = |count: u32| Value::number(count.into());
    let values = [
        Value::number(signed(end.finished_at.as_nanos())),
        Value::text(&end.verdict.to_string()),
        count(counts.planned),
        count(counts.passed),
        count(counts.flaky),
        count(counts.failed),
        count(counts.cached),
        count(counts.skipped),
        count(counts.not_run),
        count(counts.quarantined),
        Value::Number(end.times.map(|times| nanos(times.queued))),
        Value::Number(end.times.map(|times| nanos(times.worked))),
        Value::Number(end.times.and_then(|times| times.took).map(nanos)),
        Value::text(run.as_str()),
    ];
    session.execute(END_RUN, &values).await
}

async fn reserve_tokens(session: &Session, last: u64) -> Result<(), CallError> {
    let last = last.max(read_reserved(session).await?);
    let values = [Value::text(RESERVED_TOKENS), Value::number(signed(last))];
    session.execute(WRITE_NUMBER, &values).await
}

async fn keep_verdict(
    session: &Session,
    given: &GivenVerdict,
    artefacts: &[NamedArtefact],
) -> Result<(), CallError> {
    let (tenant, bundle) = (given.tenant.as_str(), given.bundle.to_string());
    let policy = given.policy.map(|policy| policy.to_string());
    let values = [
        Value::text(tenant),
        Value::text(&bundle),
        Value::text(&given.commit),
        Value::text(given.run.as_str()),
        Value::text(&given.verdict.to_string()),
        Value::optional_text(policy.as_deref()),
        Value::text(&given.public_key),
        Value::number(signed(given.first_given_at.as_nanos())),
        Value::number(signed(given.last_given_at.as_nanos())),
    ];
    session.execute(KEEP_VERDICT, &values).await?;
    let insert = "INSERT INTO verdict_artefacts (tenant, bundle, place, name, digest, is_tree)
         SELECT $1, $2, named.place, named.name, named.digest, named.is_tree
         FROM UNNEST($3::BIGINT[], $4::TEXT[], $5::TEXT[], $6::BIGINT[])
            AS named (place, name, digest, is_tree)
         ON CONFLICT (tenant, bundle, place) DO NOTHING";
    if artefacts.is_empty() {
        return Ok(());
    }
    let digests: Vec<String> = artefacts.iter().map(|it| it.digest.to_string()).collect();
    let values = [
        Value::text(tenant),
        Value::text(&bundle),
        Value::numbers((0..artefacts.len()).map(bounded)),
        Value::texts(artefacts.iter().map(|it| it.name.as_str())),
        Value::texts(digests.iter().map(String::as_str)),
        Value::numbers(artefacts.iter().map(|it| it.is_tree.into())),
    ];
    session.execute(insert, &values).await
}

async fn name_runs(
    session: &Session,
    given: &GivenVerdict,
    runs: &[RunId],
) -> Result<(), CallError> {
    let insert = "INSERT INTO verdict_runs (tenant, bundle, run)
         SELECT $1, $2, UNNEST($3::TEXT[]) ON CONFLICT (tenant, bundle, run) DO NOTHING";
    let runs = runs.iter().chain([&given.run]).map(RunId::as_str);
    let values = [
        Value::text(given.tenant.as_str()),
        Value::text(&given.bundle.to_string()),
        Value::texts(runs),
    ];
    session.execute(insert, &values).await
}

async fn forget(session: &Session, step: &Forgetting) -> Result<(), CallError> {
    match step {
        Forgetting::Run {
            run,
            ended_before,
            verdicts_since,
            now,
        } => {
            let values = [
                Value::number(signed(now.as_nanos())),
                Value::text(run.as_str()),
                Value::number(signed(ended_before.as_nanos())),
                Value::number(signed(verdicts_since.as_nanos())),
            ];
            session.execute(FORGET_RUN, &values).await
        }
        Forgetting::Events { run, limit } => {
            let values = [Value::text(run.as_str()), Value::number(bounded(*limit))];
            session.execute(DELETE_EVENTS, &values).await?;
            session.execute(NOTE_NO_EVENTS, &values[..1]).await
        }
        Forgetting::Names {
            forgotten_before,
            limit,
        } => {
            let before = Value::number(signed(forgotten_before.as_nanos()));
            let values = [before, Value::number(bounded(*limit))];
            session.execute(DELETE_NAMES, &values).await
        }
    }
}
