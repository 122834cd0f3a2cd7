//! How runs go.

use regatta_model::{RunId, TenantId, Timestamp};

use super::State;
use crate::{Forgetting, NewRun, OldRun, OldRunPlace, OldRunsQuery, RunRecord};

/// What is left of a run.
#[derive(Debug)]
pub(super) struct Forgotten {
    pub(super) tenant: TenantId,
    pub(super) commit: String,
    pub(super) forgotten_at: Timestamp,
    pub(super) is_half_gone: bool,
    ended: Option<u64>,
}

fn place(record: &RunRecord) -> Option<OldRunPlace> {
    let end = record.end?;
    Some(OldRunPlace {
        finished_at: end.finished_at,
        run: record.new.run.clone(),
    })
}

/// Whether two runs go together.
fn are_together(one: &NewRun, other: &NewRun) -> bool {
    let of_one_commit = one.tenant == other.tenant && one.commit == other.commit;
    one.run == other.run || (of_one_commit && !one.commit.is_empty())
}

impl State {
    /// The number of the run that ended last, if it is known yet that it was there.
    pub(super) fn last_ended(&self) -> Option<u64> {
        let gone = self.forgotten.values().filter_map(|it| it.ended);
        let known = self.runs.iter().filter_map(|record| record.ended);
        gone.chain(known).max()
    }

    pub(super) fn find_old_runs(&self, query: &OldRunsQuery) -> Vec<OldRun> {
        let ended = self.runs.iter().filter_map(|it| Some((place(it)?, it)));
        let mut old: Vec<_> = ended
            .filter(|(place, _)| place.finished_at < query.ended_before)
            .filter(|(place, _)| query.after.as_ref().is_none_or(|after| place > after))
            .collect();
        old.sort_by(|(one, _), (other, _)| one.cmp(other));
        let old = old.into_iter().take(query.limit);
        old.map(|(place, record)| OldRun {
            may_go: self.may_go(&record.new, &place, query.verdicts_since),
            place,
        })
        .collect()
    }

    fn may_go(&self, run: &NewRun, last: &OldRunPlace, verdicts_since: Timestamp) -> bool {
        let mut together = self.runs.iter().filter(|it| are_together(run, &it.new));
        together.all(|record| {
            let has_ended = place(record).is_some_and(|place| place <= *last);
            has_ended && !self.is_named(&record.new.run, verdicts_since)
        })
    }

    fn is_named(&self, run: &RunId, since: Timestamp) -> bool {
        let mut verdicts = self.verdicts.iter();
        verdicts.any(|(key, (given, _))| {
            let named = self.named.get(key);
            given.last_given_at >= since && named.is_some_and(|named| named.contains(run))
        })
    }

    pub(super) fn forget(&mut self, step: Forgetting) {
        match step {
            Forgetting::Run {
                run,
                ended_before,
                verdicts_since,
                now,
            } => {
                let known = self.runs.iter().find(|record| record.new.run == run);
                let Some((last, leader)) = known.and_then(|it| Some((place(it)?, it.new.clone())))
                else {
                    return;
                };
                if last.finished_at < ended_before && self.may_go(&leader, &last, verdicts_since) {
                    self.forget_with_others(&leader, now);
                }
            }
            Forgetting::Events { run, limit } => {
                let Some(forgotten) = self.forgotten.get_mut(&run) else {
                    return;
                };
                let events = self.events.entry(run.clone()).or_default();
                for _ in 0..limit {
                    events.pop_first();
                }
                if events.is_empty() {
                    self.events.remove(&run);
                    forgotten.is_half_gone = false;
                }
            }
            Forgetting::Names {
                forgotten_before,
                limit,
            } => {
                let gone = self.forgotten.iter();
                let gone =
                    gone.filter(|(_, it)| !it.is_half_gone && it.forgotten_at < forgotten_before);
                let mut gone: Vec<_> = gone
                    .map(|(run, it)| (it.forgotten_at, run.clone()))
                    .collect();
                gone.sort();
                for (_, run) in gone.into_iter().take(limit) {
                    self.forgotten.remove(&run);
                }
            }
        }
    }

    fn forget_with_others(&mut self, leader: &NewRun, now: Timestamp) {
        let together = |record: &mut RunRecord| are_together(leader, &record.new);
        for record in self.runs.extract_if(.., together) {
            let NewRun {
                run,
                tenant,
                commit,
                ..
            } = record.new;
            let forgotten = Forgotten {
                tenant,
                commit,
                forgotten_at: now,
                is_half_gone: true,
                ended: record.ended,
            };
            self.forgotten.insert(run, forgotten);
        }
    }
}
