//! How long tests took, and whether they may. Pure.
//!
//! A runner that ends in the middle of a test, or is ended, cannot say how long that took. It is what the other tests have
//! left of the time of their batch, with what the runner itself took; unless there is more than one of which nothing is
//! said.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use regatta_model::FailureClass;

use super::BatchReport;
use crate::junit::{Case, CaseStatus};
use crate::runs::suite::judged::Ended;

/// The one test that did not pass, or is not reported, and the time that is left for it; `None` if there may be several.
pub(super) fn untimed(
    asked: &BTreeSet<&str>,
    cases: &BTreeMap<String, Case>,
    batch_took: Duration,
) -> Option<(String, Duration)> {
    let is_timed =
        |case: &Case| case.time.is_some() || matches!(case.status, CaseStatus::Skipped(_));
    let untimed = asked.iter().map(|id| (*id, cases.get(*id)));
    let untimed = untimed.filter(|(_, case)| !case.is_some_and(is_timed));
    // What comes after a test that ended its runner has not begun.
    let has_begun: Vec<_> = untimed.clone().filter(|(_, case)| case.is_some()).collect();
    let (id, case) = match has_begun[..] {
        [(id, Some(case))] if case.ends_runner => (id, Some(case)),
        _ => {
            let mut untimed = untimed;
            let only = untimed.next()?;
            untimed.next().is_none().then_some(only)?
        }
    };
    if case.is_some_and(|case| !matches!(case.status, CaseStatus::Failed(_))) {
        return None;
    }
    let times = cases.values().filter_map(|case| case.time);
    let others = times.fold(Duration::ZERO, Duration::saturating_add);
    Some((id.to_owned(), batch_took.saturating_sub(others)))
}

impl BatchReport {
    /// How long a test took that is not timed, as far as that is known.
    pub(super) fn left_for(&self, id: &str) -> Duration {
        let untimed = self.untimed.iter();
        let mut of_it = untimed.filter(|(untimed, _)| untimed == id);
        of_it.next().map(|(_, left)| *left).unwrap_or_default()
    }

    /// Why a test failed, with whether time was over if it ran when its runner ended, which cannot tell what ended it.
    pub(super) fn why_failed(
        &self,
        case: &Case,
        message: &str,
        took: Duration,
    ) -> (FailureClass, String) {
        let limit = self.time_limit;
        let is_over = took >= limit && !limit.is_zero();
        match self.out_of_time {
            _ if !case.ends_runner => (FailureClass::Test, message.to_owned()),
            Some(tests) if tests > 1 && !is_over => {
                let text = format!(
                    "it still ran when the time of its batch was over: {tests} tests with the job's timeout of {limit:?} each"
                );
                (FailureClass::Timeout, text)
            }
            Some(_) => {
                let text = format!("it still ran when {limit:?} were over, the job's timeout");
                (FailureClass::Timeout, text)
            }
            // A clock of the runner's own may have ended it, or the test did, and its runner was slow to start.
            None if is_over => {
                let text = format!(
                    "{message}; with the start of its runner it took {took:.1?}, and the job's timeout is {limit:?}"
                );
                (FailureClass::Test, text)
            }
            None => (FailureClass::Test, message.to_owned()),
        }
    }

    /// A pass, if the test had time enough for it: beside others it has that of its whole batch, and is no better for it
    /// than alone. The times are those of the runner, which may count in something else than seconds: no test takes longer
    /// than its batch.
    pub(super) fn in_time(
        &self,
        case: &Case,
        ended: Ended,
    ) -> Result<Ended, (FailureClass, String)> {
        let took = case.time.unwrap_or_default();
        let limit = self.time_limit;
        match took > limit && took <= self.batch_took {
            true => {
                let text = format!("ran out of time: it took {took:?}, and may take {limit:?}");
                Err((FailureClass::Timeout, text))
            }
            false => Ok(ended),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::junit::parse;

    #[track_caller]
    fn check(xml: &str, expected: Option<(&str, u64)>) {
        let asked = BTreeSet::from(["a", "b", "c"]);
        let report = parse(&format!("<testsuite>{xml}</testsuite>")).expect("is a report");
        let cases = report.cases.into_iter();
        let cases = cases.map(|case| (case.name.clone(), case)).collect();
        let found = untimed(&asked, &cases, Duration::from_secs(10));
        let expected = expected.map(|(id, seconds)| (id.to_owned(), Duration::from_secs(seconds)));
        assert_eq!(found, expected, "{xml}");
    }

    #[test]
    fn what_others_have_left_is_the_time_of_the_only_one_without() {
        let timed = |name: &str| format!("<testcase name='{name}' time='2'/>");
        let (a, b, c) = (timed("a"), timed("b"), timed("c"));
        check(&format!("{a}{b}{c}"), None);
        check(&format!("{a}{b}"), Some(("c", 6)));
        check(
            &format!("{a}{b}<testcase name='c'><failure/></testcase>"),
            Some(("c", 6)),
        );
        check(&format!("{a}{b}<testcase name='c'/>"), None);
        check(&a, None);
        check("", None);
        let skipped = "<testcase name='b'><skipped/></testcase>";
        check(&format!("{a}{skipped}"), Some(("c", 8)));
        let ended = "<testcase name='b'><error type='regatta.runner-ended'/></testcase>";
        check(&format!("{a}{ended}"), Some(("b", 8)));
        check(&format!("<testcase name='a'/>{ended}"), None);
        let long = "<testcase name='a' time='50'/>";
        check(&format!("{long}{b}"), Some(("c", 0)));
    }
}
