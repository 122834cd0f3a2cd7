//! What stands in an output in place of what was too much to keep.

use std::fmt;

/// The beginning and the end of an output are kept, and what was between them is not: this is written in its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Truncation {
    /// How many bytes of the beginning are kept.
    pub first: u64,
    /// How many of the end.
    pub last: u64,
    /// How many there were.
    pub total: u64,
}

const BEFORE: &str = "\n[regatta: output truncated: the first ";
const BETWEEN: &str = " and the last ";
const OF: &str = " of ";
const AFTER: &str = " bytes are kept]\n";

impl Truncation {
    /// What is left out of an output as it was kept; `None` if it is whole. A command can only write that more is left
    /// out than is.
    #[must_use]
    pub fn find(output: &[u8]) -> Option<Self> {
        let bytes = output.iter().enumerate();
        let mut lines = bytes.filter(|(_, byte)| **byte == b'\n');
        lines.find_map(|(place, _)| Self::at(output, place))
    }

    fn at(output: &[u8], place: usize) -> Option<Self> {
        let (before, notice) = output.split_at(place);
        if !notice.starts_with(BEFORE.as_bytes()) {
            return None;
        }
        let end = notice.iter().skip(1).position(|byte| *byte == b'\n')?;
        let (notice, after) = notice.split_at(end + 2);
        let numbers = std::str::from_utf8(notice).ok()?.strip_prefix(BEFORE)?;
        let (first, numbers) = numbers.strip_suffix(AFTER)?.split_once(BETWEEN)?;
        let (last, total) = numbers.split_once(OF)?;
        let found = Self {
            first: first.parse().ok()?,
            last: last.parse().ok()?,
            total: total.parse().ok()?,
        };
        let is_here = before.len() as u64 == found.first && after.len() as u64 == found.last;
        is_here.then_some(found)
    }
}

impl fmt::Display for Truncation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, last, total } = self;
        write!(
            formatter,
            "{BEFORE}{first}{BETWEEN}{last}{OF}{total}{AFTER}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_known_by_where_it_is_said() {
        let kept = |first: &str, last: &str, total| {
            let truncation = Truncation {
                first: first.len() as u64,
                last: last.len() as u64,
                total,
            };
            (truncation, format!("{first}{truncation}{last}"))
        };
        for (first, last) in [("", ""), ("a\n", "b\n"), ("ab", ""), ("é\n\n", "\n")] {
            let (truncation, text) = kept(first, last, 1000);
            assert_eq!(
                Truncation::find(text.as_bytes()),
                Some(truncation),
                "{text:?}"
            );
            // Whoever prints another's output is whole.
            for whole in [format!("x{text}"), format!("{text}x"), first.repeat(3)] {
                assert_eq!(Truncation::find(whole.as_bytes()), None, "{whole:?}");
            }
        }
        // An output that has another's in its own beginning.
        let (_, inner) = kept("a", "b", 9);
        let (outer, text) = kept(&inner, "c", 99);
        assert_eq!(Truncation::find(text.as_bytes()), Some(outer));
        let cut = [BEFORE.as_bytes(), b"1 and the last"].concat();
        assert_eq!(Truncation::find(&cut), None);
    }
}
