//! What the ledger knows of a run besides its events: from its plan, and for its clients.

use regatta_ledger::{NewRun, RunRecord};
use regatta_model::RunId;
use regatta_wire::convert::{timestamp_from_wire, timestamp_to_wire};
use regatta_wire::v1;

use super::event;
use super::log::now;
use super::plan::Plan;

/// A run that begins now.
pub(super) fn new_run(run: &RunId, plan: &Plan) -> NewRun {
    NewRun {
        run: run.clone(),
        tenant: plan.tenant.clone(),
        description: plan.spec.description.clone(),
        commit: plan.spec.commit.clone(),
        branch: plan.spec.branch.clone(),
        committed_at: plan
            .spec
            .committed_at
            .as_ref()
            .filter(|_| !plan.spec.dirty)
            .and_then(|time| timestamp_from_wire(time).ok()),
        submitted_at: now(),
    }
}

/// How clients are told of it.
pub(super) fn summary(record: &RunRecord) -> v1::RunSummary {
    let (new, end) = (&record.new, record.end.as_ref());
    v1::RunSummary {
        run_id: new.run.to_string(),
        description: new.description.clone(),
        commit: new.commit.clone(),
        branch: new.branch.clone(),
        submitted_at: Some(timestamp_to_wire(new.submitted_at)),
        finished_at: end.map(|end| timestamp_to_wire(end.finished_at)),
        verdict: end
            .map_or(v1::Verdict::Unspecified, |end| event::verdict(end.verdict))
            .into(),
        counts: end.map(|end| event::counts(&end.counts)),
        committed_at: new.committed_at.map(timestamp_to_wire),
        times: end.and_then(|end| end.times).map(event::times),
    }
}
