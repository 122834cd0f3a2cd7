//! Log lines, on standard error.

use std::fmt::{self, Debug};
use std::io::{self, Write};

use tracing::Dispatch;
use tracing::field::Field;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::options::{GlobalOptions, LogFormat};
use crate::terminal::{visible_json, visible_value};

/// Chooses in detail what is logged, as `tracing_subscriber` reads it.
const VARIABLE: &str = "REGATTA_LOG";

/// What a command logs unless it is told otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verbosity {
    /// Warnings: for commands that end.
    Command,
    /// What happens: for commands that stay.
    Daemon,
}

/// Sets up logging for this process; the first call wins.
pub fn set_up(options: &GlobalOptions, verbosity: Verbosity) {
    let level = match (verbosity, options.verbose) {
        (Verbosity::Command, 0) => LevelFilter::WARN,
        (Verbosity::Command, 1) | (Verbosity::Daemon, 0) => LevelFilter::INFO,
        (Verbosity::Command, 2) | (Verbosity::Daemon, 1) => LevelFilter::DEBUG,
        (Verbosity::Command | Verbosity::Daemon, _) => LevelFilter::TRACE,
    };
    let filter = EnvFilter::builder()
        .with_default_directive(level.into())
        .with_env_var(VARIABLE)
        .from_env_lossy();
    let is_coloured = options.paint_errors() == crate::watch::Paint::Coloured;
    let set = subscriber(options.log_format, is_coloured, filter, std::io::stderr).try_init();
    // Somebody who embeds this has set up logging already.
    drop(set);
}

/// Records name tests, runs, agents and paths as others have chosen them: each is a line in which nothing is hidden, and
/// its colours are the log's own.
fn subscriber<W: Write + 'static>(
    format: LogFormat,
    is_coloured: bool,
    filter: EnvFilter,
    open: impl Fn() -> W + Send + Sync + 'static,
) -> Dispatch {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(is_coloured);
    match format {
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true);
            builder
                .with_writer(move || VisibleJson(open()))
                .finish()
                .into()
        }
        LogFormat::Text => {
            let builder = builder.with_target(false).with_writer(open);
            let fields = debug_fn(write_field).delimited(" ");
            builder.fmt_fields(fields).finish().into()
        }
    }
}

/// As `tracing_subscriber` would, which lets escape sequences pass in what is shown with `Display`.
fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> fmt::Result {
    let value = format!("{value:?}");
    let value = visible_value(&value);
    match (field.name(), writer.has_ansi_escapes()) {
        ("message", _) => writer.write_str(&value),
        (name, true) => write!(writer, "\u{1b}[3m{name}\u{1b}[0m\u{1b}[2m=\u{1b}[0m{value}"),
        (name, false) => write!(writer, "{name}={value}"),
    }
}

/// Where records in JSON go.
struct VisibleJson<W>(W);

impl<W: Write> Write for VisibleJson<W> {
    /// Takes a record: `tracing_subscriber` writes each at once.
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(record);
        self.0.write_all(visible_json(&text).as_bytes())?;
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    const HOSTILE: &str = "a\u{202e}b\u{200b}c\u{1b}[31m\r\n2026-01-01 INFO all is well";

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("lock").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, is_coloured: bool) -> String {
        let captured = Captured::default();
        let to = captured.clone();
        let filter = EnvFilter::new("warn");
        let subscriber = subscriber(format, is_coloured, filter, move || to.clone());
        tracing::dispatcher::with_default(&subscriber, || {
            let _span = tracing::warn_span!("run", run = HOSTILE).entered();
            tracing::warn!(test = HOSTILE, agent = %HOSTILE, "no result of {HOSTILE}");
        });
        let bytes = captured.0.lock().expect("lock").clone();
        String::from_utf8(bytes).expect("UTF-8")
    }

    #[test]
    fn a_name_can_neither_hide_nor_add_a_line() {
        for is_coloured in [false, true] {
            let text = logged(LogFormat::Text, is_coloured);
            let line = text.strip_suffix('\n').expect("a line");
            assert!(line.contains(r"no result of a\u{202e}b\u{200b}c"), "{line}");
            assert!(line.contains(r"\u{d}\u{a}2026-01-01"), "{line}");
            assert!(!line.contains("\u{1b}[31m"), "{line:?}");
            assert_eq!(line.contains("\u{1b}["), is_coloured, "{line:?}");
            assert!(
                !line.contains(['\u{202e}', '\u{200b}', '\r', '\n']),
                "{line:?}"
            );
        }
    }

    #[test]
    fn json_says_the_same_and_hides_nothing() {
        let text = logged(LogFormat::Json, false);
        let line = text.strip_suffix('\n').expect("a line");
        assert!(
            !line.contains(['\u{202e}', '\u{200b}', '\u{1b}', '\n']),
            "{line:?}"
        );
        let record: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(record["test"], HOSTILE);
        assert_eq!(record["span"]["run"], HOSTILE);
    }
}
