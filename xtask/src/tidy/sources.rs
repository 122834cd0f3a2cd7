//! What source files may look like (style guide, "Shape" and "Tests").

use std::path::Path;

use anyhow::{Context, Result};

use super::Complaint;
use crate::workspace;

/// Lines of a file before its tests.
const MOST_LINES: usize = 400;
/// Lines of tests in the file that they test.
const MOST_TEST_LINES: usize = 300;

/// Words that no Rust file of ours holds, and why.
const FORBIDDEN: &[(&str, &str)] = &[
    (
        concat!("#[ign", "ore"),
        "a test that does not run is no test",
    ),
    (concat!("tod", "o!("), "finish it"),
    (concat!("unimplem", "ented!("), "finish it"),
];

/// Modules named after nothing.
const NO_NAMES: &[&str] = &["util", "utils", "common", "helpers", "manager", "inner"];

/// Checks every Rust file of the checkout.
pub(super) fn check() -> Result<Vec<Complaint>> {
    let mut complaints = Vec::new();
    for file in workspace::files()?
        .iter()
        .filter(|file| file.extension().is_some_and(|it| it == "rs"))
    {
        let text = std::fs::read_to_string(workspace::root().join(file))
            .with_context(|| format!("reading {}", file.display()))?;
        complaints.extend(check_file(file, &text));
    }
    Ok(complaints)
}

fn check_file(file: &Path, text: &str) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    let (code, tests) = sizes(text);
    let is_test = file.components().any(|part| part.as_os_str() == "tests")
        || file.file_stem().is_some_and(|stem| stem == "tests");
    if code > MOST_LINES && !is_test {
        complaints.push(format!(
            "{}: {code} lines of code, aim below {MOST_LINES}",
            file.display()
        ));
    }
    if tests > MOST_TEST_LINES {
        complaints.push(format!(
            "{}: {tests} lines of tests belong in a file of their own",
            file.display()
        ));
    }
    let stem = file
        .file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or_default();
    if NO_NAMES.contains(&stem) {
        complaints.push(format!("{}: name it after what it holds", file.display()));
    }
    for (word, reason) in FORBIDDEN {
        if let Some(line) = text
            .lines()
            .position(|line| is_code(line) && line.contains(word))
        {
            complaints.push(format!(
                "{}:{}: `{word}`: {reason}",
                file.display(),
                line + 1
            ));
        }
    }
    complaints
}

/// Whether a line is more than a comment.
fn is_code(line: &str) -> bool {
    !line.trim_start().starts_with("//")
}

/// Lines before the inline tests, and of them.
fn sizes(text: &str) -> (usize, usize) {
    let lines: Vec<_> = text.lines().collect();
    let inline = lines.windows(2).position(|pair| {
        pair[0].starts_with("#[cfg(test)]") && pair[1].starts_with("mod ") && pair[1].ends_with('{')
    });
    inline.map_or((lines.len(), 0), |start| (start, lines.len() - start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_do_not_count_as_code() {
        assert_eq!(sizes("a\nb\n#[cfg(test)]\nmod tests {\n}\n"), (2, 3));
        assert_eq!(sizes("a\n#[cfg(test)]\nmod tests;\n"), (3, 0));
    }

    #[test]
    fn what_is_too_long_or_unfinished_is_named() {
        let long = "x\n".repeat(MOST_LINES + 1);
        assert_eq!(check_file(Path::new("a.rs"), &long).len(), 1);
        assert_eq!(
            check_file(Path::new("tests/a.rs"), &long),
            Vec::<String>::new()
        );
        let unfinished = format!("fn f() {{ {}) }}", FORBIDDEN[1].0);
        assert_eq!(check_file(Path::new("util.rs"), &unfinished).len(), 2);
    }
}
