//! A verdict for people.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use regatta_verdict::{
    CachedFrom, Counts, JobStatement, PolicyStatement, PublicKey, RunStatement, Subject,
    VerdictPredicate, Verified,
};

use crate::commands::ps::short;
use crate::terminal::visible;
use crate::watch::{Paint, Tone};

/// How wide the names of lines are, in characters.
const WIDTH: usize = 10;
/// How much of a digest or an id tells it from others, in characters.
const SHORT: usize = 12;
/// How many of many things are named.
const NAMED: usize = 5;

/// What a verdict says, and who has signed it.
pub(super) fn of(verified: &Verified, key: &PublicKey, paint: Paint) -> String {
    let said = &verified.verdict;
    let tone = match said.verdict.as_str() {
        "RELEASABLE" => Tone::Good,
        "NOT_RELEASABLE" => Tone::Bad,
        _ => Tone::Doubtful,
    };
    let mut text = format!("{}\n", paint.paint(tone, &visible(&said.verdict)));
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            let _infallible = writeln!(text, "{name:>WIDTH$}  {}", visible(&value));
        }
    };
    said.reasons
        .iter()
        .for_each(|reason| line("because", reason.clone()));
    line("commit", commit(&said.commit, &said.branch, said.dirty));
    line("run", said.run.clone());
    line("and runs", some_of(&said.other_runs));
    line("did", said.requested_jobs().collect::<Vec<_>>().join(", "));
    let files = said.runs.iter().map(|run| run.pipeline.clone());
    let files: BTreeSet<_> = files.filter(|file| !file.is_empty()).collect();
    line("pipelines", some_of(&files.into_iter().collect::<Vec<_>>()));
    line("required", said.policy().map(required).unwrap_or_default());
    line("tests", counts(said.counts));
    line("cached", cached_from(&said.cached_from, said.audited_hits));
    line("flaky", some_of(&flaky(said)));
    line("quarantine", some_of(&said.quarantined_tests));
    line("artefacts", artefacts(&verified.statements[0].subject));
    line("agents", some_of(&said.agents));
    line("images", some_of(&said.images));
    let retries = said.infrastructure_retries;
    if retries > 0 {
        line(
            "lost",
            format!("{retries} times by machines, then run elsewhere"),
        );
    }
    line("leases", said.leases.to_string());
    line(
        "time",
        format!("{} to {}", said.started_at, said.finished_at),
    );
    line("stages", some_of(&stages(&said.runs)));
    line("jobs", some_of(&jobs(&said.jobs)));
    line(
        "lead time",
        said.lead_time_seconds.map(lead_time).unwrap_or_default(),
    );
    line("signed by", key.id());
    text
}

/// Those that failed in another run first, with both runs: nothing else of this says why they count.
fn flaky(said: &VerdictPredicate) -> Vec<String> {
    let across = said.flaky_across_runs.iter().map(|it| {
        let [failed, passed] = [&it.failed_in, &it.passed_in];
        let [failed, passed] = [failed, passed].map(|run| run.get(..SHORT).unwrap_or(run));
        format!(
            "{} (failed in run {failed}, passed in {passed}, with nothing changed)",
            it.test
        )
    });
    let mut others = said.flaky_tests.clone();
    others.retain(|test| said.flaky_across_runs.iter().all(|it| it.test != *test));
    across.chain(others).collect()
}

fn commit(id: &str, branch: &str, is_dirty: bool) -> String {
    let mut text = match id {
        "" => return "none".to_owned(),
        id => id.to_owned(),
    };
    if !branch.is_empty() {
        let _infallible = write!(text, " on {branch}");
    }
    if is_dirty {
        text.push_str(", with changed files: it says nothing of the commit");
    }
    text
}

/// What a release requires, by which file's policy.
fn required(policy: &PolicyStatement) -> String {
    let mut text = match policy.required_jobs.len() {
        0 => "no job".to_owned(),
        _ => policy
            .required_jobs
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", "),
    };
    let limits = [
        (policy.max_flaky, "flaky"),
        (policy.max_quarantined, "quarantined"),
    ];
    for (most, kind) in limits {
        if let Some(most) = most {
            let _infallible = write!(text, "; at most {most} {kind}");
        }
    }
    if let Some(hash) = policy.digest.values().next() {
        let hash = hash.get(..SHORT).unwrap_or(hash);
        let _infallible = write!(text, " (policy {hash})");
    }
    text
}

fn counts(counts: Counts) -> String {
    if counts.planned == 0 {
        return String::new();
    }
    let kinds = [
        (counts.passed, "passed"),
        (counts.flaky, "flaky"),
        (counts.failed, "failed"),
        (counts.cached, "cached"),
        (counts.skipped, "skipped"),
        (counts.not_run, "not run"),
        (counts.quarantined, "quarantined"),
    ];
    let some = kinds.into_iter().filter(|(count, _)| *count > 0);
    let some: Vec<_> = some
        .map(|(count, kind)| format!("{count} {kind}"))
        .collect();
    format!("{} planned: {}", counts.planned, some.join(", "))
}

/// How long each run waited for its first slot, and how long it took from there.
fn stages(runs: &[RunStatement]) -> Vec<String> {
    let run = |it: &RunStatement| {
        let run = it.run.get(..SHORT).unwrap_or(&it.run);
        let [submitted, started, finished] = [&it.submitted_at, &it.started_at, &it.finished_at];
        waited_and_took(run, [submitted, started, finished])
    };
    runs.iter().filter_map(run).collect()
}

/// The same of each job: it waits once what it needs has passed.
fn jobs(jobs: &[JobStatement]) -> Vec<String> {
    let job = |it: &JobStatement| {
        waited_and_took(&it.name, [&it.queued_at, &it.started_at, &it.finished_at])
    };
    jobs.iter().filter_map(job).collect()
}

/// Nothing if that is not known.
fn waited_and_took(
    name: &str,
    [queued, started, finished]: [&Option<String>; 3],
) -> Option<String> {
    let waited = between(queued, started);
    let took = between(started, finished);
    match (waited, took) {
        (Some(waited), Some(took)) => Some(format!("{name} waited {waited} and took {took}")),
        // Nothing of it ran, or nobody told.
        _ => Some(format!("{name} took {}", between(queued, finished)?)),
    }
}

fn between(earlier: &Option<String>, later: &Option<String>) -> Option<String> {
    let time = |text: &Option<String>| text.as_ref()?.parse::<jiff::Timestamp>().ok();
    let elapsed = time(later)?.duration_since(time(earlier)?);
    let elapsed = Duration::try_from(elapsed).ok()?;
    Some(match elapsed < Duration::from_secs(60) {
        true => format!("{:.1}s", elapsed.as_secs_f64()),
        false => short(elapsed),
    })
}

/// From the commit to the verdict.
fn lead_time(seconds: f64) -> String {
    let whole = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    format!("{} from the commit to the verdict", short(whole))
}

/// Where what was known comes from.
fn cached_from(runs: &[CachedFrom], audited: u64) -> String {
    let named = runs.iter().map(|it| match it.run.as_str() {
        "" => format!("{} from a run that is not known", it.results),
        run => format!(
            "{} from run {}",
            it.results,
            run.get(..SHORT).unwrap_or(run)
        ),
    });
    let mut text = some_of(&named.collect::<Vec<_>>());
    if audited > 0 {
        let _infallible = write!(text, "; {audited} executed again, the same");
    }
    text
}

fn some_of(all: &[String]) -> String {
    let named = all.iter().take(NAMED).map(String::as_str);
    let mut text = named.collect::<Vec<_>>().join(", ");
    if all.len() > NAMED {
        let _infallible = write!(text, " and {} more", all.len() - NAMED);
    }
    text
}

/// What was made: all that a verdict is about and that is neither the commit nor its files.
fn artefacts(subjects: &[Subject]) -> String {
    let made = subjects
        .iter()
        .filter(|it| !["commit", "tree"].contains(&it.name.as_str()));
    let named = made.map(|it| {
        let digest = it.digest.get("sha256").map_or("", String::as_str);
        format!("{} {}", it.name, digest.get(..SHORT).unwrap_or(digest))
    });
    some_of(&named.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_short_and_say_it_all() {
        let all = Counts {
            planned: 6,
            passed: 1,
            cached: 5,
            ..Counts::default()
        };
        assert_eq!(counts(all), "6 planned: 1 passed, 5 cached");
        assert_eq!(counts(Counts::default()), "", "it has no suite");
        let names: Vec<_> = (0..7).map(|number| number.to_string()).collect();
        assert_eq!(some_of(&names), "0, 1, 2, 3, 4 and 2 more");
        let at = |time: &str| Some(format!("1970-01-01T{time}Z"));
        let run = RunStatement {
            pipeline: String::new(),
            run: "0123456789abcdef".to_owned(),
            submitted_at: at("00:00:00.5"),
            started_at: at("00:00:02.75"),
            finished_at: at("00:05:00"),
        };
        let known = RunStatement {
            started_at: None,
            ..run.clone()
        };
        let words = [
            "0123456789ab waited 2.2s and took 4m",
            "0123456789ab took 4m",
        ];
        assert_eq!(stages(&[run, known]), words);
        let hostile = "\x1b[2J\rRELEASABLE\n signed by\u{202e}";
        assert_eq!(
            visible(hostile),
            "\\u{1b}[2J\\u{d}RELEASABLE\\u{a} signed by\\u{202e}"
        );
        assert_eq!(commit("", "", false), "none");
        assert_eq!(commit("a", "main", false), "a on main");
    }
}
