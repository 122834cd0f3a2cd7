//! Options that every command has.

use std::io::IsTerminal;

use clap::{Args, ValueEnum};

use crate::watch::Paint;

/// Options that every command has.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalOptions {
    /// The coordinator's address; of several, which commas separate, the first that answers
    #[arg(
        long,
        global = true,
        env = "REGATTA_COORDINATOR",
        default_value = "grpc://127.0.0.1:8980",
        value_name = "URL"
    )]
    pub coordinator: String,
    /// The instance name: the tenant on whose behalf to act
    #[arg(
        long,
        global = true,
        env = "REGATTA_INSTANCE",
        default_value = "",
        hide_default_value = true,
        value_name = "NAME"
    )]
    pub instance: String,
    /// How log lines are written
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        env = "REGATTA_LOG_FORMAT"
    )]
    pub log_format: LogFormat,
    /// Log more; repeat for even more (REGATTA_LOG sets it in detail)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Whether to use colours; NO_COLOR turns `auto` off
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    pub color: ColorChoice,
    /// How to show progress
    #[arg(long, global = true, value_enum, default_value_t, value_name = "HOW")]
    pub progress: ProgressChoice,
    /// What run, test and exec write to standard output: text for people, or versioned NDJSON for programs
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT"
    )]
    pub message_format: MessageFormat,
    /// End as soon as standard input is closed: for whoever starts this, and may be killed
    #[arg(long, global = true, hide = true)]
    pub exit_with_stdin: bool,
}

/// How log lines are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// Whether to use colours.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum ColorChoice {
    /// On terminals, unless NO_COLOR is set.
    #[default]
    Auto,
    /// In any case.
    Always,
    /// In no case.
    Never,
}

/// How to show progress.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum ProgressChoice {
    /// A bar on terminals, lines elsewhere.
    #[default]
    Auto,
    /// Lines.
    Plain,
    /// A bar.
    Tty,
}

/// What to write to standard output.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum MessageFormat {
    /// Text for people.
    #[default]
    Human,
    /// Newline-delimited JSON.
    Json,
}

impl GlobalOptions {
    /// Whether what goes to standard output is coloured.
    #[must_use]
    pub fn paint(&self) -> Paint {
        paint(self.color, no_color(), std::io::stdout().is_terminal())
    }

    /// Whether what goes to standard error is coloured.
    #[must_use]
    pub fn paint_errors(&self) -> Paint {
        paint(self.color, no_color(), std::io::stderr().is_terminal())
    }

    /// Whether progress is a bar.
    #[must_use]
    pub fn bar(&self) -> bool {
        match self.progress {
            ProgressChoice::Auto => std::io::stderr().is_terminal(),
            ProgressChoice::Plain => false,
            ProgressChoice::Tty => true,
        }
    }
}

fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

fn paint(choice: ColorChoice, no_color: bool, terminal: bool) -> Paint {
    match choice {
        ColorChoice::Always => Paint::Coloured,
        ColorChoice::Auto if terminal && !no_color => Paint::Coloured,
        ColorChoice::Auto | ColorChoice::Never => Paint::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_follow_the_terminal_and_no_color() {
        assert_eq!(paint(ColorChoice::Auto, false, true), Paint::Coloured);
        assert_eq!(paint(ColorChoice::Auto, true, true), Paint::Plain);
        assert_eq!(paint(ColorChoice::Auto, false, false), Paint::Plain);
        assert_eq!(paint(ColorChoice::Always, true, false), Paint::Coloured);
        assert_eq!(paint(ColorChoice::Never, false, true), Paint::Plain);
    }
}
