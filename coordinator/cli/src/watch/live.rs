//! Output as it appears, and in the end what did not.

use std::collections::BTreeMap;
use std::io;

use regatta_wire::{reapi, v1};

use super::Screen;
use crate::terminal::visible;

/// Shows output with the name of whoever wrote it before each line.
#[derive(Debug, Default)]
pub(super) struct LiveOutput {
    shown: Shown,
}

/// Standard output and error output: the digests of all of it, and what it ends with.
type Recorded<'a> = [(Option<&'a reapi::Digest>, &'a [u8]); 2];

const STREAMS: [v1::OutputStream; 2] = [v1::OutputStream::Stdout, v1::OutputStream::Stderr];

impl LiveOutput {
    pub(super) fn piece(
        &mut self,
        screen: &mut impl Screen,
        output: &v1::JobOutput,
    ) -> io::Result<()> {
        self.shown.piece(output);
        show_lines(screen, (&output.job, &output.test_id), &output.data)
    }

    /// A task has been lost: what it writes when it is run again begins anew.
    pub(super) fn lost(&mut self, retry: &v1::InfrastructureRetry) {
        self.shown.forget((&retry.job, &retry.test_id));
    }

    /// What a test wrote that no piece had.
    pub(super) fn rest_of_test(
        &mut self,
        screen: &mut impl Screen,
        result: &v1::TestResult,
    ) -> io::Result<()> {
        let recorded = [
            (result.stdout_digest.as_ref(), result.stdout_tail.as_ref()),
            (result.stderr_digest.as_ref(), result.stderr_tail.as_ref()),
        ];
        self.rest(screen, (&result.job, &result.test_id), recorded)
    }

    /// What a build wrote that no piece had; nothing if it was not run now.
    pub(super) fn rest_of_job(
        &mut self,
        screen: &mut impl Screen,
        finished: &v1::JobFinished,
    ) -> io::Result<()> {
        let Some(result) = finished.result.as_ref().filter(|_| !finished.cached) else {
            return Ok(());
        };
        let recorded = [
            (result.stdout_digest.as_ref(), result.stdout_raw.as_ref()),
            (result.stderr_digest.as_ref(), result.stderr_raw.as_ref()),
        ];
        self.rest(screen, (&finished.job, ""), recorded)
    }

    fn rest(
        &mut self,
        screen: &mut impl Screen,
        name: (&str, &str),
        recorded: Recorded<'_>,
    ) -> io::Result<()> {
        for (stream, (digest, tail)) in STREAMS.into_iter().zip(recorded) {
            let rest = self.shown.rest(name, stream, digest, tail);
            if rest.omitted > 0 {
                let omitted = rest.omitted;
                let text = format!("({omitted} bytes are left out; `regatta logs` has all of it)");
                show_lines(screen, name, text.as_bytes())?;
            }
            show_lines(screen, name, rest.text)?;
        }
        Ok(())
    }
}

fn show_lines(screen: &mut impl Screen, (job, test): (&str, &str), bytes: &[u8]) -> io::Result<()> {
    let place = format!("{job} {test}");
    let text = String::from_utf8_lossy(bytes);
    text.lines()
        .try_for_each(|line| screen.note(&format!("{} | {line}", visible(place.trim_end()))))
}

/// How many bytes of each output have been shown, by job, test and stream.
#[derive(Debug, Default)]
struct Shown(BTreeMap<(String, String, i32), u64>);

/// The part of an output that has not been shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Rest<'a> {
    /// How much of it is not at hand.
    omitted: u64,
    text: &'a [u8],
}

impl Shown {
    /// A piece has been shown.
    fn piece(&mut self, output: &v1::JobOutput) {
        let key = (output.job.clone(), output.test_id.clone(), output.stream);
        let end = output.offset + output.data.len() as u64;
        let shown = self.0.entry(key).or_default();
        *shown = end.max(*shown);
    }

    fn forget(&mut self, (job, test): (&str, &str)) {
        for stream in STREAMS {
            let key = (job.to_owned(), test.to_owned(), stream.into());
            self.0.remove(&key);
        }
    }

    /// What is left to show of an output that has ended, which `tail` is the end of; the next output of its
    /// name begins anew.
    fn rest<'a>(
        &mut self,
        (job, test): (&str, &str),
        stream: v1::OutputStream,
        digest: Option<&reapi::Digest>,
        tail: &'a [u8],
    ) -> Rest<'a> {
        let key = (job.to_owned(), test.to_owned(), stream.into());
        let shown = self.0.remove(&key).unwrap_or_default();
        let at_hand = tail.len() as u64;
        let whole = digest.and_then(|digest| u64::try_from(digest.size_bytes).ok());
        let left = whole.unwrap_or(at_hand).max(at_hand).saturating_sub(shown);
        let from = usize::try_from(at_hand.saturating_sub(left)).unwrap_or_default();
        Rest {
            omitted: left.saturating_sub(at_hand),
            text: tail.get(from..).unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: v1::OutputStream = v1::OutputStream::Stdout;

    fn shown(offset: u64, bytes: &'static [u8]) -> Shown {
        let mut shown = Shown::default();
        shown.piece(&v1::JobOutput {
            job: "a".to_owned(),
            stream: STREAM.into(),
            offset,
            data: bytes.into(),
            ..v1::JobOutput::default()
        });
        shown
    }

    fn rest_of(mut shown: Shown, whole: Option<i64>, tail: &[u8]) -> Rest<'_> {
        let digest = whole.map(|size_bytes| reapi::Digest {
            size_bytes,
            ..reapi::Digest::default()
        });
        shown.rest(("a", ""), STREAM, digest.as_ref(), tail)
    }

    fn text(text: &[u8]) -> Rest<'_> {
        Rest { omitted: 0, text }
    }

    #[test]
    fn what_was_not_shown_is_left() {
        assert_eq!(rest_of(Shown::default(), None, b"all"), text(b"all"));
        assert_eq!(rest_of(shown(0, b"al"), Some(3), b"all"), text(b"l"));
        assert_eq!(rest_of(shown(2, b"l"), Some(3), b"all"), text(b""));
        assert_eq!(rest_of(shown(0, b"0123"), Some(6), b"345"), text(b"45"));
        let gap = Rest {
            omitted: 2,
            text: b"345",
        };
        assert_eq!(rest_of(shown(0, b"0"), Some(6), b"345"), gap);
    }

    #[test]
    fn what_a_lost_attempt_wrote_counts_for_nothing() {
        let mut shown = shown(0, b"all of the lost one");
        shown.forget(("a", "other"));
        assert_eq!(shown.0.len(), 1);
        shown.forget(("a", ""));
        assert_eq!(rest_of(shown, Some(3), b"new"), text(b"new"));
    }

    #[test]
    fn another_attempt_begins_anew() {
        let mut shown = shown(0, b"al");
        shown.rest(("a", ""), STREAM, None, b"all");
        assert_eq!(shown.rest(("a", ""), STREAM, None, b"all"), text(b"all"));
    }
}
