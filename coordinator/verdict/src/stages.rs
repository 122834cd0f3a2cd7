//! When what happened.

use jiff::Timestamp;

/// When a run or a job reached each of its stages. None is later than one that follows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stages {
    /// It began to wait for slots: a run was submitted, what a job needs had passed.
    pub queued_at: Option<Timestamp>,
    /// A slot took the first of its work; `None` if none did, or nobody told.
    pub started_at: Option<Timestamp>,
    /// It ended.
    pub finished_at: Option<Timestamp>,
}

impl Stages {
    /// Without what the times of later stages contradict: clocks are set.
    #[must_use]
    pub(crate) fn in_order(self) -> Self {
        let is_before =
            |time: &Timestamp, later: Option<Timestamp>| later.is_none_or(|later| *time <= later);
        let started_at = self.started_at.filter(|it| is_before(it, self.finished_at));
        let next = started_at.or(self.finished_at);
        Self {
            queued_at: self.queued_at.filter(|it| is_before(it, next)),
            started_at,
            finished_at: self.finished_at,
        }
    }
}

/// A time as statements have it.
pub(crate) fn written(time: Timestamp) -> String {
    format!("{time:.3}")
}

/// Whether these, as they are written, are times of which none is later than the next.
pub(crate) fn are_in_order<'a>(times: impl IntoIterator<Item = &'a Option<String>>) -> bool {
    let times = times.into_iter().flatten();
    let times: Result<Vec<Timestamp>, _> = times.map(|time| time.parse()).collect();
    times.is_ok_and(|times| times.is_sorted())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_clock_that_was_set_back_says_is_left_out() {
        let at = |second: Option<i64>| second.map(|it| Timestamp::new(it, 0).expect("is one"));
        let check = |[queued, started, finished]: [Option<i64>; 3], expected: [Option<i64>; 3]| {
            let stages = |[queued_at, started_at, finished_at]: [Option<i64>; 3]| Stages {
                queued_at: at(queued_at),
                started_at: at(started_at),
                finished_at: at(finished_at),
            };
            let found = stages([queued, started, finished]).in_order();
            assert_eq!(found, stages(expected));
        };
        let (one, two, three) = (Some(1), Some(2), Some(3));
        check([one, two, three], [one, two, three]);
        check([one, one, one], [one, one, one]);
        check([one, None, three], [one, None, three]);
        check([two, one, three], [None, one, three]);
        check([one, three, two], [one, None, two]);
        check([three, None, one], [None, None, one]);
        check([two, three, one], [None, None, one]);
        check([two, one, None], [None, one, None]);
    }

    #[test]
    fn times_are_compared_as_such() {
        let some = |text: &str| Some(text.to_owned());
        let earlier = some("1970-01-01T00:00:10.000Z");
        let later = some("1970-01-01T00:00:10.5Z");
        assert!(are_in_order([&earlier, &None, &later]));
        assert!(are_in_order([&earlier, &earlier]));
        assert!(!are_in_order([&later, &earlier]));
        assert!(!are_in_order([&some("yesterday")]));
    }
}
