//! Tests whose failures do not count for now.

use regatta_wire::v1;

use crate::runs::action::may_be_retried;
use crate::runs::event;
use crate::runs::plan::PlannedSuite;
use crate::runs::tally::Ending;

/// How a test ended if it is in quarantine, where its own failure does not count; unchanged if it is not.
pub(super) fn in_quarantine(
    suite: &PlannedSuite,
    test: &str,
    ending: Ending,
    mut result: v1::TestResult,
) -> (Ending, v1::TestResult) {
    let (Some(entry), Ending::Failed(class)) = (suite.quarantine.get(test), ending) else {
        return (ending, result);
    };
    if !may_be_retried(class) {
        return (ending, result);
    }
    let ending = Ending::Quarantined(class);
    result.status = event::test_status(ending).0.into();
    let said = match result.message.as_str() {
        "" => String::new(),
        text => format!(": {text}"),
    };
    result.message = format!("in quarantine, owner {}{said}", entry.owner);
    (ending, result)
}
