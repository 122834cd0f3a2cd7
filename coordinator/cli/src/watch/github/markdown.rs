//! The step summary.

use std::fmt::Write as _;

use super::super::lines::{Paint, verdict_word};
use super::super::notes::{Note, shortened};
use crate::terminal::visible;
use crate::watch::Tally;

/// How many failures the table has, and of how many the output is shown.
const MOST_ROWS: usize = 50;
const MOST_OUTPUTS: usize = 20;
/// How much of an output is shown, in bytes: with all others well below the mebibyte that a summary may have.
const MOST_OUTPUT_BYTES: usize = 8 << 10;

/// The summary of a run in GitHub's Markdown.
pub(super) fn summary(tally: &Tally, notes: &[Note]) -> String {
    let finished = tally.finished.clone().unwrap_or_default();
    let (_, verdict) = verdict_word(finished.verdict());
    let line = Paint::Plain.summary_line(tally);
    let mut text = format!("\n## Regatta: {verdict}\n\n{}\n", line.trim_start());
    if !finished.reasons.is_empty() {
        text.push('\n');
    }
    for reason in &finished.reasons {
        let _infallible = writeln!(text, "- {}", in_line(&visible(reason)));
    }
    if notes.is_empty() {
        return text;
    }
    text += "\n| what | where | why |\n| --- | --- | --- |\n";
    for note in notes.iter().take(MOST_ROWS) {
        let why = note.message.lines().next().unwrap_or_default();
        let (title, why) = (in_cell(&note.title), in_cell(why));
        let _infallible = writeln!(text, "| {} | {title} | {why} |", note.what);
    }
    if notes.len() > MOST_ROWS {
        let _infallible = writeln!(text, "\nand {} more", notes.len() - MOST_ROWS);
    }
    let long = notes.iter().filter(|note| note.message.contains('\n'));
    for note in long.take(MOST_OUTPUTS) {
        let output = shortened(&note.message, MOST_OUTPUT_BYTES);
        let fence = fence_for(output);
        let _infallible = write!(
            text,
            "\n<details><summary>{}</summary>\n\n{fence}text\n{output}\n{fence}\n\n</details>\n",
            in_line(&note.title)
        );
    }
    text
}

/// A text in which Markdown and HTML find nothing of theirs.
fn in_line(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        match character {
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '&' => escaped += "&amp;",
            '\n' | '\r' => escaped.push(' '),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '~' => {
                escaped.push('\\');
                escaped.push(character);
            }
            _ => escaped.push(character),
        }
    }
    escaped
}

fn in_cell(text: &str) -> String {
    /// The longest text of a cell, in bytes.
    const MOST_CELL_BYTES: usize = 200;
    in_line(shortened(text, MOST_CELL_BYTES))
}

/// More backticks than a text has in a row.
fn fence_for(text: &str) -> String {
    let longest = text
        .split(|character| character != '`')
        .map(str::len)
        .max()
        .unwrap_or_default();
    "`".repeat(longest.max(2) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_stays_text() {
        assert_eq!(
            in_line("<b>*a*</b> | x\n`"),
            "&lt;b&gt;\\*a\\*&lt;/b&gt; \\| x \\`"
        );
        assert_eq!(fence_for("a ``` b"), "````");
        assert_eq!(fence_for("a"), "```");
    }
}
