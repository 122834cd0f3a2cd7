//! Where lines go: results to standard output, notes and progress to standard error.

use std::io::{self, IsTerminal as _, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Tally;
use super::lines::plural;
use crate::standard_output::standard_output;
use crate::terminal::HarmlessText;

/// Shows lines, and how far a run has come.
pub trait Screen {
    /// Shows something that was asked for.
    ///
    /// # Errors
    /// It cannot be written.
    fn result(&mut self, text: &str) -> io::Result<()>;

    /// Shows something about how it is going.
    ///
    /// # Errors
    /// It cannot be written.
    fn note(&mut self, text: &str) -> io::Result<()>;

    /// Shows how far the run has come.
    fn progress(&mut self, tally: &Tally);

    /// Takes the progress away.
    fn clear(&mut self);
}

/// Lines and nothing else, for files and pipes.
#[derive(Debug, Default)]
pub struct PlainScreen {
    results_on_standard_error: bool,
}

impl PlainScreen {
    /// Results go to standard output.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            results_on_standard_error: false,
        }
    }

    /// Everything goes to standard error, because standard output is for a program.
    #[must_use]
    pub const fn on_standard_error() -> Self {
        Self {
            results_on_standard_error: true,
        }
    }
}

impl Screen for PlainScreen {
    fn result(&mut self, text: &str) -> io::Result<()> {
        if self.results_on_standard_error {
            return self.note(text);
        }
        let stream = standard_output();
        let is_terminal = stream.is_terminal();
        write_line((stream, is_terminal), text)
    }

    fn note(&mut self, text: &str) -> io::Result<()> {
        let stream = io::stderr().lock();
        let is_terminal = stream.is_terminal();
        write_line((stream, is_terminal), text)
    }

    fn progress(&mut self, _tally: &Tally) {}

    fn clear(&mut self) {}
}

impl<S: Screen + ?Sized> Screen for Box<S> {
    fn result(&mut self, text: &str) -> io::Result<()> {
        (**self).result(text)
    }

    fn note(&mut self, text: &str) -> io::Result<()> {
        (**self).note(text)
    }

    fn progress(&mut self, tally: &Tally) {
        (**self).progress(tally);
    }

    fn clear(&mut self) {
        (**self).clear();
    }
}

/// Lines hold what tests print and are called: a terminal shows it, and does not act on it.
fn write_line((mut stream, is_terminal): (impl Write, bool), text: &str) -> io::Result<()> {
    match is_terminal {
        true => stream.write_all(&HarmlessText::whole(text.as_bytes()))?,
        false => stream.write_all(text.as_bytes())?,
    }
    if !text.ends_with('\n') {
        stream.write_all(b"\n")?;
    }
    stream.flush()
}

/// Lines above a bar that shows the progress, for terminals.
#[derive(Debug)]
pub struct TtyScreen {
    bar: ProgressBar,
    lines: PlainScreen,
}

impl TtyScreen {
    /// How often the clock in the bar moves on.
    const TICK: Duration = Duration::from_millis(200);
    /// How often the bar is drawn at most, per second.
    const FRAMES_PER_SECOND: u8 = 20;

    /// A bar on the terminal that standard error is; results go to standard output.
    #[must_use]
    pub fn new() -> Self {
        Self::above(PlainScreen::new())
    }

    /// The same with everything on standard error, because standard output is for a program.
    #[must_use]
    pub fn on_standard_error() -> Self {
        Self::above(PlainScreen::on_standard_error())
    }

    fn above(lines: PlainScreen) -> Self {
        let target = ProgressDrawTarget::stderr_with_hz(Self::FRAMES_PER_SECOND);
        let bar = ProgressBar::with_draw_target(Some(0), target);
        bar.set_style(
            ProgressStyle::with_template(
                "{prefix:>12} [{elapsed_precise}] {wide_bar} {pos}/{len}: {msg}",
            )
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        bar.set_prefix("Running");
        bar.enable_steady_tick(Self::TICK);
        Self { bar, lines }
    }
}

impl Default for TtyScreen {
    fn default() -> Self {
        Self::new()
    }
}

impl Screen for TtyScreen {
    fn result(&mut self, text: &str) -> io::Result<()> {
        self.bar.suspend(|| self.lines.result(text))
    }

    fn note(&mut self, text: &str) -> io::Result<()> {
        self.bar.suspend(|| self.lines.note(text))
    }

    fn progress(&mut self, tally: &Tally) {
        let tests = tally.planned > 0;
        let (done, all) = match tests {
            true => (tally.done, tally.planned),
            false => (tally.jobs_done, tally.jobs),
        };
        self.bar.set_length(all);
        self.bar.set_position(done);
        self.bar.set_message(bar_message(tally));
    }

    fn clear(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// `3 running, 400 cached, 1 failed`
fn bar_message(tally: &Tally) -> String {
    let running = plural(tally.running.len() as u64, "job");
    let mut parts = vec![format!("{running} running")];
    for (count, word) in [(tally.cached, "cached"), (tally.failed, "failed")] {
        if count > 0 {
            parts.push(format!("{count} {word}"));
        }
    }
    parts.join(", ")
}

#[cfg(test)]
pub(super) mod memory {
    use super::*;

    /// Keeps what is shown, results marked with `|` and notes with `#`.
    #[derive(Debug, Default, Clone)]
    pub(in crate::watch) struct MemoryScreen {
        pub(in crate::watch) text: std::rc::Rc<std::cell::RefCell<String>>,
    }

    impl MemoryScreen {
        fn keep(&self, mark: char, text: &str) {
            for line in text.lines() {
                self.text.borrow_mut().push_str(&format!("{mark}{line}\n"));
            }
        }
    }

    impl Screen for MemoryScreen {
        fn result(&mut self, text: &str) -> io::Result<()> {
            self.keep('|', text);
            Ok(())
        }

        fn note(&mut self, text: &str) -> io::Result<()> {
            self.keep('#', text);
            Ok(())
        }

        fn progress(&mut self, _tally: &Tally) {}

        fn clear(&mut self) {}
    }

    #[test]
    fn the_bar_says_what_is_going_on() {
        let mut tally = Tally::default();
        (tally.cached, tally.failed) = (4, 1);
        assert_eq!(bar_message(&tally), "0 jobs running, 4 cached, 1 failed");
        tally.running.insert("alpha".to_owned());
        assert_eq!(bar_message(&tally), "1 job running, 4 cached, 1 failed");
    }
}
