//! A suite that goes on after a restart of the coordinator.

use bytes::Bytes;
use prost::Message as _;
use regatta_cas::{put_bytes, read_all};
use regatta_wire::v1;
use regatta_wire::v1::run_event::Event;

use super::Test;
use super::audit::Claim;
use super::discovery::{Listing, MAX_LISTING_BYTES};
use super::execution::Execution;
use crate::runs::context::{JobContext, unknown};
use crate::runs::recorded::RecordedSuite;
use crate::runs::state::JobEnd;
use crate::runs::tally::Tally;

/// Tells how many tests are planned, and keeps which.
pub(super) async fn tell_plan(job: &JobContext, listing: &Listing, tally: &Tally) {
    let plan = v1::SuitePlan {
        test_ids: listing.ids.clone(),
        ignored_ids: listing.ignored.iter().cloned().collect(),
    };
    // Of what is all known nothing is to be resumed, and a store without room is not to be waited for.
    let stored = match tally.open_count() {
        0 => None,
        _ => {
            let blobs = job.run.blobs.as_ref();
            let stored = put_bytes(blobs, Bytes::from(plan.encode_to_vec())).await;
            stored
                .inspect_err(|error| {
                    tracing::warn!(run = %job.run.run, %error, "the tests of a suite could not be stored");
                })
                .ok()
        }
    };
    let counts = tally.counts();
    job.run.log.append(Event::SuitePlanned(v1::SuitePlanned {
        job: job.name(),
        planned: counts.planned,
        cached: counts.cached,
        skipped: counts.skipped,
        plan: stored.map(Into::into),
    }));
}

/// The tests that were planned in an earlier process, if they were, and can be read. They are not listed again:
/// that takes time, and could come to something else.
pub(super) async fn listed_before(
    job: &JobContext,
    recorded: Option<&RecordedSuite>,
) -> Option<Listing> {
    let plan = recorded?.plan()?;
    // Ids are kept twice at most, and each has a few bytes of framing.
    let bytes = read_all(job.run.blobs.as_ref(), &plan, 4 * MAX_LISTING_BYTES).await;
    let bytes = bytes
        .inspect_err(|error| {
            tracing::warn!(run = %job.run.run, %error, "the tests of a suite are listed anew");
        })
        .ok()?;
    let plan = v1::SuitePlan::decode(bytes).ok()?;
    Some(Listing {
        ids: plan.test_ids,
        ignored: plan.ignored_ids.into_iter().collect(),
        // It is worth time alone.
        byproducts: None,
    })
}

/// Records the tests that ended in an earlier process.
pub(super) fn replay(
    job: &JobContext,
    recorded: &RecordedSuite,
    tests: &[Test],
    tally: &mut Tally,
) -> Result<(), JobEnd> {
    let names: Vec<String> = tests.iter().map(Test::name).collect();
    recorded
        .replay(&names, tally)
        .map_err(|error| unknown(error.to_string()))?;
    let all = || tests.iter().zip(&names);
    let (hits, job_name) = (&job.run.recorded.hits, job.name());
    let passes = all().filter(|(_, name)| hits.has_pass(&job_name, name));
    let skips = all().filter(|(_, name)| hits.has_skip(&job_name, name));
    let audit = &job.run.audit;
    audit.consider(job, passes.map(|(test, _)| test), Claim::Pass);
    audit.consider(job, skips.map(|(test, _)| test), Claim::Skip);
    Ok(())
}

impl Execution<'_> {
    /// Takes in what was answered and said before without anything having ended by it.
    pub(super) fn go_on_from(&mut self, recorded: &RecordedSuite) {
        for (index, test) in self.tests.iter().enumerate() {
            let tried = recorded.tried(&test.name());
            self.attempts[index] = tried.attempts;
            let failed_at = tried.failed_at;
            self.failed_before.extend(failed_at.map(|it| (index, it)));
        }
        self.complaints = recorded.complaints().to_vec();
        for batch in recorded.unexplained().iter() {
            let tests = self.tests.iter().enumerate();
            let suspects = tests.filter(|(_, test)| batch.tests.contains(&test.name()));
            let suspects: Vec<usize> = suspects.map(|(index, _)| index).collect();
            self.suspects.inquire(&suspects, &batch.message);
        }
    }
}
