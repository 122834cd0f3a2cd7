//! What counts as progress of a run.

use regatta_wire::v1::run_event::Event;

/// Whether an event says that something is done with, which a restart does not have done again.
pub(super) const fn is_progress(event: &Event) -> bool {
    match event {
        Event::SuitePlanned(_)
        | Event::TestsFinished(_)
        | Event::TestRetried(_)
        | Event::BuildRetried(_)
        | Event::JobFinished(_)
        | Event::HitsAudited(_)
        | Event::HitsExecuted(_)
        | Event::RunFinished(_) => true,
        Event::RunStarted(_)
        | Event::RunResumed(_)
        | Event::CancelRequested(_)
        | Event::JobStarted(_)
        | Event::JobLeased(_)
        | Event::JobOutput(_)
        | Event::SuiteComplained(_)
        | Event::BatchUnexplained(_)
        | Event::InfrastructureRetry(_)
        | Event::Warning(_)
        | Event::TestSlow(_) => false,
    }
}
