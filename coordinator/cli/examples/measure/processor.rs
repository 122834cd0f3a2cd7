//! The processor time that the fleet's processes have used, read from `/proc`.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

/// Ticks a second of the counters in `/proc/PID/stat` (`USER_HZ`): 100 on every Linux that Rust runs on.
const TICKS_PER_SECOND: f64 = 100.0;

/// Processes by the names that the command line gives them, as in `coordinator=1234`.
#[derive(Debug, Default)]
pub(super) struct Processes(BTreeMap<String, u32>);

impl Processes {
    pub(super) fn parse<'a>(arguments: impl Iterator<Item = &'a String>) -> Result<Self> {
        let parse = |argument: &String| {
            let (name, pid) = argument.split_once('=').context("expected NAME=PID")?;
            Ok((name.to_owned(), pid.parse()?))
        };
        arguments.map(parse).collect::<Result<_>>().map(Self)
    }

    /// Seconds of processor time used so far, by name.
    pub(super) fn used(&self) -> Result<BTreeMap<String, f64>> {
        let used = |(name, pid): (&String, &u32)| Ok((name.clone(), seconds_of(*pid)?));
        self.0.iter().map(used).collect()
    }

    /// Milliseconds for each of `count` things since `before` was read, by name.
    pub(super) fn each_ms(
        &self,
        before: &BTreeMap<String, f64>,
        count: usize,
    ) -> Result<BTreeMap<String, f64>> {
        let mut used = self.used()?;
        for (name, seconds) in &mut used {
            let earlier = before.get(name).copied().unwrap_or_default();
            *seconds = (*seconds - earlier) * 1e3 / count as f64;
        }
        Ok(used)
    }
}

fn seconds_of(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the name in parentheses, which may hold anything; user and system time are
    // fields 14 and 15 (proc_pid_stat(5)).
    let (_, after_name) = stat.rsplit_once(')').context("no name in stat")?;
    let fields: Vec<_> = after_name.split_whitespace().collect();
    let ticks =
        |index: usize| -> Result<f64> { Ok(fields.get(index).context("a short stat")?.parse()?) };
    Ok((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
}
