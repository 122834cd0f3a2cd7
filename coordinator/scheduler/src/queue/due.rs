//! What waits, in the order in which it is due.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::{FairQueue, Lane, Place, Queued, Turn};
use crate::avoidance::Group;
use crate::fleet::ClassKey;
use crate::task::TaskKey;

impl FairQueue {
    /// The tasks of a class that wait, in the order in which they are due.
    pub(crate) fn due(&self, class: ClassKey) -> impl Iterator<Item = (Turn, Queued)> {
        self.due_but(class, |_, _| false)
    }

    /// Those without the groups of which `skips` holds for the first: a group that is left out costs no more than
    /// one task.
    pub(crate) fn due_but(
        &self,
        class: ClassKey,
        skips: impl Fn(Group, TaskKey) -> bool + Copy,
    ) -> impl Iterator<Item = (Turn, Queued)> {
        let tenants = self.queued.get(&class).into_iter().flatten();
        let lanes = tenants.flat_map(move |tenant| {
            let lanes = self.tenants[tenant.2].queued.range(Lane::all_of(class));
            lanes.map(move |(lane, runs)| (*tenant, *lane, runs))
        });
        let runs =
            lanes.flat_map(|(tenant, lane, runs)| runs.iter().map(move |run| (tenant, lane, *run)));
        runs.flat_map(move |(tenant, lane, run)| {
            let tasks = self.runs[run.2].queued.get(&lane);
            let turn = move |place: &Place| Turn {
                tenant,
                urgency: lane.urgency,
                run,
                place: *place,
            };
            let tasks = tasks.into_iter();
            let tasks = tasks.flat_map(move |tasks| without_groups(tasks, skips));
            tasks.map(move |(place, task)| (turn(&place), task))
        })
    }
}

fn without_groups(
    tasks: &BTreeMap<Place, Queued>,
    skips: impl Fn(Group, TaskKey) -> bool,
) -> impl Iterator<Item = (Place, Queued)> {
    let mut left = tasks.range(..);
    std::iter::from_fn(move || {
        loop {
            let (place, queued) = left.next()?;
            let group = place.group();
            if group.is_none_or(|group| !skips(group, queued.task)) {
                return Some((*place, *queued));
            }
            left = tasks.range((Bound::Excluded(place.end_of_group()), Bound::Unbounded));
        }
    })
}
