//! Jobs that wait for each other.

use super::{PlanError, PlannedJob};

/// Depth first along `needs`; a job met again on the way down closes a circle.
pub(super) fn check_acyclic(jobs: &[PlannedJob]) -> Result<(), PlanError> {
    let mut done = vec![false; jobs.len()];
    for start in 0..jobs.len() {
        // Each entry: a job on the way down, and which of its needs to look at next.
        let mut path: Vec<(usize, usize)> = vec![(start, 0)];
        while let Some((job, next)) = path.last_mut() {
            let (job, need) = (*job, jobs[*job].needs.get(*next).copied());
            *next += 1;
            match need {
                None => {
                    done[job] = true;
                    path.pop();
                }
                Some(need) if path.iter().any(|(on_path, _)| *on_path == need) => {
                    return Err(circle(jobs, &path, need));
                }
                Some(need) if done[need] => {}
                Some(need) => path.push((need, 0)),
            }
        }
    }
    Ok(())
}

fn circle(jobs: &[PlannedJob], path: &[(usize, usize)], closing: usize) -> PlanError {
    let circle = path
        .iter()
        .map(|(job, _)| *job)
        .skip_while(|job| *job != closing);
    let path = circle
        .chain([closing])
        .map(|job| jobs[job].name.to_string())
        .collect();
    PlanError::Cycle { path }
}
