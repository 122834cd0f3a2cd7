//! What the members of a fleet complained of in their logs.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Result;
use serde_json::Value;

/// How many kinds of complaints are told.
const TOLD: usize = 40;
/// Longer runs of these digits are ids.
const LONGEST_WORD: usize = 8;

/// Complaints and how often there were, without what differs between two of a kind.
#[derive(Debug, Default)]
pub(super) struct Complaints(BTreeMap<String, Complaint>);

#[derive(Debug)]
struct Complaint {
    count: u64,
    /// The first of them, as it stands in the log.
    example: String,
}

/// Reads all logs in a directory.
pub(super) fn read(directory: &Path) -> Result<Complaints> {
    let mut complaints = Complaints::default();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|it| it == "log") {
            let text = String::from_utf8_lossy(&fs::read(&path)?).into_owned();
            text.lines().for_each(|line| complaints.take(line));
        }
    }
    Ok(complaints)
}

/// What is an error, wherever it stands in a line.
const ERRORS: [&str; 2] = ["ERROR ", "panicked at "];
const WARNING: &str = "WARN ";

impl Complaints {
    fn take(&mut self, line: &str) {
        let marks = ERRORS.into_iter().chain([WARNING]);
        let Some(at) = marks.filter_map(|mark| line.find(mark)).min() else {
            return;
        };
        let complaint = self.0.entry(kind_of(&line[at..])).or_insert(Complaint {
            count: 0,
            example: line.to_owned(),
        });
        complaint.count += 1;
    }

    /// How many of them are errors.
    pub(super) fn errors(&self) -> u64 {
        let is_error = |kind: &str| ERRORS.iter().any(|mark| kind.starts_with(mark));
        let errors = self.0.iter().filter(|(kind, _)| is_error(kind));
        errors.map(|(_, complaint)| complaint.count).sum()
    }

    /// Those that there were most often.
    pub(super) fn summary(&self) -> Value {
        let mut kinds: Vec<_> = self.0.values().collect();
        kinds.sort_by_key(|complaint| std::cmp::Reverse(complaint.count));
        let told = kinds.into_iter().take(TOLD).map(|complaint| {
            serde_json::json!({ "count": complaint.count, "example": complaint.example })
        });
        Value::Array(told.collect())
    }
}

/// A line without its numbers and ids.
fn kind_of(line: &str) -> String {
    let word = |word: &str| {
        let is_hex = word.chars().all(|it| it.is_ascii_hexdigit());
        match word.contains(|it: char| it.is_ascii_digit()) || is_hex && word.len() > LONGEST_WORD {
            true => "#".to_owned(),
            false => word.to_owned(),
        }
    };
    let words = line.split_inclusive(|it: char| !it.is_ascii_alphanumeric());
    let words = words.map(|it| match it.char_indices().next_back() {
        Some((at, end)) if !end.is_ascii_alphanumeric() => word(&it[..at]) + &it[at..],
        Some(_) | None => word(it),
    });
    words.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_of_a_kind_are_counted_together() {
        let mut complaints = Complaints::default();
        for line in [
            "2026-11-27T18:00:00.5Z  WARN an agent is lost agent=box-17f3 after=15s",
            "2026-11-27T18:00:09.1Z  WARN an agent is lost agent=box-9c00 after=16s",
            "2026-11-27T18:00:09.1Z  INFO nothing",
            "2026-11-27T18:00:09.1Z ERROR run{run=0a}: the store is full error=WARN é",
            "thread 'main' panicked at src/main.rs:7:1:",
        ] {
            complaints.take(line);
        }
        assert_eq!(complaints.errors(), 2);
        let summary = complaints.summary();
        assert_eq!(summary.as_array().unwrap().len(), 3);
        assert_eq!(summary[0]["count"], 2);
        let kept = complaints.0.keys().next_back().unwrap();
        assert_eq!(kept, "panicked at src/main.rs:#:#:");
    }
}
