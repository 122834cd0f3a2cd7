//! Where in the source something failed, as far as what was said of it tells.

use std::iter::once;
use std::path::{Component, Path, PathBuf};

/// Files of these languages, whose tests are named by them.
const FILES_OF_TESTS: [&str; 8] = [".py", ".js", ".jsx", ".mjs", ".cjs", ".ts", ".tsx", ".mts"];
/// How much of the beginning of a message is searched for a place, and how much of the end of an output, in bytes.
const SEARCHED_BYTES: usize = 16 << 10;
/// How many places that a test names are looked up.
const MOST_NAMED: usize = 64;
/// How many files are looked up of a whole run.
const MOST_LOOKUPS: usize = 50_000;
/// How long a path may be, in bytes.
const MOST_PATH_BYTES: usize = 1024;
/// What ends a path to the left.
const BEFORE_PATHS: [char; 13] = [
    ':', '"', '\'', '`', '(', ')', '[', ']', '<', '>', ',', ';', '=',
];

/// Where in the source something failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Place {
    /// From the root of the project.
    pub(super) file: String,
    /// From 1.
    pub(super) line: u32,
}

/// The files of a project on this machine, whose tests may say anything: no file outside of it is ever told of.
#[derive(Debug)]
pub(super) struct Project {
    /// As it was named, and without symbolic links.
    roots: [PathBuf; 2],
    lookups_left: usize,
}

impl Project {
    /// The project in this directory; `None` if there is none.
    pub(super) fn at(root: &Path) -> Option<Self> {
        let given = std::path::absolute(root).ok()?;
        let real = std::fs::canonicalize(root).ok()?;
        Some(Self {
            roots: [given, real],
            lookups_left: MOST_LOOKUPS,
        })
    }

    /// The first place that is named in a message, or else in the end of one of the outputs that follow it, of a file
    /// that is there: from where the test ran, or from the root.
    pub(super) fn place(&mut self, directory: &str, said: &[&str]) -> Option<Place> {
        let (message, outputs) = said.split_first()?;
        let beginning = &message[..message.floor_char_boundary(SEARCHED_BYTES)];
        let end_of = |output: &&'_ str| output.len().saturating_sub(SEARCHED_BYTES);
        let ends = outputs
            .iter()
            .map(|output| &output[output.ceil_char_boundary(end_of(output))..]);
        let named = once(beginning).chain(ends).flat_map(places_in);
        named.take(MOST_NAMED).find_map(|(named, line)| {
            let file = self.file(directory, named)?;
            Some(Place { file, line })
        })
    }

    /// A file of the project by its path from the root, however it was named.
    fn file(&mut self, directory: &str, named: &str) -> Option<String> {
        let path = Path::new(named);
        if path.is_absolute() {
            let inside = self
                .roots
                .iter()
                .find_map(|root| path.strip_prefix(root).ok());
            let inside = normalised(inside?)?;
            return self.known(&inside);
        }
        let from_there = normalised(&Path::new(directory).join(path));
        let from_root = normalised(path).filter(|it| from_there.as_ref() != Some(it));
        let mut candidates = [from_there, from_root].into_iter().flatten();
        candidates.find_map(|path| self.known(&path))
    }

    fn known(&mut self, inside: &Path) -> Option<String> {
        self.lookups_left = self.lookups_left.checked_sub(1)?;
        let [_, root] = &self.roots;
        let real = std::fs::canonicalize(root.join(inside)).ok()?;
        let is_known = real.starts_with(root) && real.is_file();
        is_known.then(|| inside.to_str().map(str::to_owned))?
    }
}

/// A path without `.` and `..`; `None` if it leads out of where it begins.
fn normalised(path: &Path) -> Option<PathBuf> {
    let mut inside = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => inside.push(name),
            Component::CurDir => {}
            Component::ParentDir => inside.pop().then_some(())?,
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(inside)
}

/// What may be places in a text, in order: `path/file.ext:7`, and Python's `File "path/file.py", line 7`.
fn places_in(text: &str) -> impl Iterator<Item = (&str, u32)> {
    text.lines().flat_map(|line| {
        let colons = line.match_indices(':').filter_map(|(at, _)| {
            let path = path_before(&line[..at])?;
            Some((path, line_number(&line[at + 1..])?))
        });
        python_place(line).into_iter().chain(colons)
    })
}

fn python_place(line: &str) -> Option<(&str, u32)> {
    let (path, rest) = line
        .trim_start()
        .strip_prefix("File \"")?
        .split_once("\", line ")?;
    (path.len() <= MOST_PATH_BYTES).then_some(())?;
    Some((path, line_number(rest)?))
}

/// The path that a text ends in: one of a file with an extension.
fn path_before(text: &str) -> Option<&str> {
    let ends = |it: char| it.is_whitespace() || it.is_control() || BEFORE_PATHS.contains(&it);
    let start = text.rfind(ends).map_or(0, |at| {
        at + text[at..].chars().next().map_or(1, char::len_utf8)
    });
    let path = &text[start..];
    let name = path.rsplit('/').next().unwrap_or(path);
    let (stem, extension) = name.rsplit_once('.')?;
    let is_file = !stem.is_empty() && extension.starts_with(char::is_alphabetic);
    (is_file && path.len() <= MOST_PATH_BYTES).then_some(path)
}

/// The number of a line that a text begins with.
fn line_number(text: &str) -> Option<u32> {
    let digits = text.find(|it: char| !it.is_ascii_digit());
    let (number, rest) = text.split_at(digits.unwrap_or(text.len()));
    let is_whole = !rest.starts_with(char::is_alphanumeric);
    let number = number.parse().ok().filter(|line| *line > 0);
    number.filter(|_| is_whole)
}

/// Where a Rust test says that it panicked: `panicked at src/lib.rs:7:5:`.
pub(super) fn panic_place(output: &str) -> Option<Place> {
    let (_, rest) = output.split_once("panicked at ")?;
    let place = rest.lines().next()?.trim_end_matches(':');
    let (file_and_line, _column) = place.rsplit_once(':')?;
    let (file, line) = file_and_line.rsplit_once(':')?;
    let is_source = is_inside(file) && !file.contains(char::is_whitespace);
    is_source.then_some(())?;
    Some(Place {
        file: file.to_owned(),
        line: line.parse().ok()?,
    })
}

/// The file that a test is named by, as pytest and Jest do it, and the last line of it that is spoken of: that is where a
/// trace ends. The first line of the file, if none is.
pub(super) fn place_of_test(test: &str, said: &[&str]) -> Option<Place> {
    let file = test.split("::").next()?;
    let is_file = FILES_OF_TESTS.iter().any(|ending| file.ends_with(ending));
    (is_file && is_inside(file)).then(|| Place {
        file: file.to_owned(),
        line: said
            .iter()
            .find_map(|text| last_line_of(file, text))
            .unwrap_or(1),
    })
}

fn is_inside(file: &str) -> bool {
    !file.starts_with('/') && !file.split('/').any(|part| part == "..")
}

fn last_line_of(file: &str, text: &str) -> Option<u32> {
    let mut after = text.rmatch_indices(file);
    after.find_map(|(at, _)| line_number(text[at + file.len()..].strip_prefix(':')?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_one_in_the_repository() {
        let line = |output: &str| panic_place(output).map(|place| place.line);
        assert_eq!(line("thread 'x' panicked at src/lib.rs:7:5:\nno"), Some(7));
        assert_eq!(line("panicked at /rustc/x/library/core.rs:7:5:"), None);
        assert_eq!(line("panicked at ../b/src/lib.rs:7:5:"), None);
        assert_eq!(line("panicked at midnight"), None);
        assert_eq!(line(""), None);
    }

    #[track_caller]
    fn check(test: &str, said: &[&str], expected: Option<(&str, u32)>) {
        let place = place_of_test(test, said);
        let place = place.as_ref().map(|it| (it.file.as_str(), it.line));
        assert_eq!(place, expected);
    }

    #[test]
    fn tests_that_are_named_by_files_are_in_them() {
        let trace = "x\nt/a.py:3: in test_b\n    c()\nt/a.py:17: AssertionError\n";
        check("t/a.py::test_b[x]", &["", trace], Some(("t/a.py", 17)));
        check("t/a.py::test_b", &["no trace"], Some(("t/a.py", 1)));
        check(
            "t/a.py::test_b",
            &["t/a.py:0", "t/a.py:x"],
            Some(("t/a.py", 1)),
        );
        let jest = "at src/sum.test.ts:9:5";
        check("src/sum.test.ts", &[jest], Some(("src/sum.test.ts", 9)));
        for test in ["module::test", "Sum.Holds", "/a/b.py::c", "../b.py::c", ""] {
            check(test, &[trace], None);
        }
    }

    fn project() -> (tempfile::TempDir, Project) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = directory.path().join("project");
        std::fs::create_dir_all(root.join("tests")).expect("it is made");
        std::fs::write(directory.path().join("secret.py"), "").expect("it is written");
        for file in ["tests/sum_test.cc", "tests/s.py", "s.py", "plain"] {
            std::fs::write(root.join(file), "").expect("it is written");
        }
        std::os::unix::fs::symlink("../secret.py", root.join("link.py")).expect("it is made");
        let project = Project::at(&root).expect("it is there");
        (directory, project)
    }

    #[track_caller]
    fn check_named(directory: &str, said: &[&str], expected: Option<(&str, u32)>) {
        let (_directory, mut project) = project();
        let place = project.place(directory, said);
        let place = place.as_ref().map(|it| (it.file.as_str(), it.line));
        assert_eq!(place, expected, "{said:?}");
    }

    #[test]
    fn runners_name_places_in_several_ways() {
        let cc = Some(("tests/sum_test.cc", 12));
        check_named("", &["tests/sum_test.cc:12: Failure\nExpected"], cc);
        check_named("", &["tests/sum_test.cc:12"], cc);
        check_named("", &["it failed (./tests/sum_test.cc:12:5)"], cc);
        check_named("build", &["../tests/sum_test.cc:12: error: no"], cc);
        check_named("tests", &["    sum_test.cc:12: is 4"], cc);
        check_named("", &["s.py:7: AssertionError"], Some(("s.py", 7)));
        check_named("tests", &["s.py:7: no"], Some(("tests/s.py", 7)));
        let trace = "Traceback:\n  File \"/usr/lib/unittest.py\", line 3, in run\n  File \"s.py\", line 7, in t";
        check_named("", &[trace], Some(("s.py", 7)));
        let unknown = "lib/gone.cc:3: no\ns.py:8: no";
        check_named("", &[unknown, "tests/s.py:9"], Some(("s.py", 8)));
        check_named("", &["exit code 1", "", "s.py:9"], Some(("s.py", 9)));
    }

    #[test]
    fn a_place_below_the_project_may_be_absolute() {
        let (directory, mut project) = project();
        let text = |file: &str| format!("{}/{file}:7: no", directory.path().display());
        let mut file = |text: &str| project.place("", &[text]).map(|it| it.file);
        assert_eq!(file(&text("project/s.py")).as_deref(), Some("s.py"));
        for outside in ["secret.py", "project/../secret.py", "project/link.py"] {
            assert_eq!(file(&text(outside)), None, "{outside}");
        }
    }

    #[test]
    fn nothing_outside_of_the_project_is_a_place_in_it() {
        for text in [
            "../secret.py:7",
            "tests/../../secret.py:7",
            "tests/../../project/s.py:7",
            "link.py:7",
            "/etc/hosts.conf:1",
            "File \"../secret.py\", line 7",
            "plain:7",
            "tests:7",
            "s.py:0",
            "s.py:7x",
            "s.py:99999999999",
            "s.py",
            ":7",
            "\0s.py\0:7",
            "",
        ] {
            check_named("", &[text], None);
            check_named("tests", &["", text], None);
        }
    }

    #[test]
    fn the_search_has_bounds() {
        let many = "gone.py:1 ".repeat(MOST_NAMED);
        check_named("", &[&format!("{many}s.py:7")], None);
        let long = format!("{}\ns.py:7: no", "\u{e4}".repeat(SEARCHED_BYTES));
        check_named("", &[&long], None);
        check_named("", &["", &long], Some(("s.py", 7)));
        let colons = ":".repeat(SEARCHED_BYTES);
        check_named("", &[&colons, "s.py:7"], Some(("s.py", 7)));

        let (_directory, mut project) = project();
        project.lookups_left = 1;
        assert!(project.place("", &["s.py:7"]).is_some());
        assert!(project.place("", &["s.py:7"]).is_none());
    }
}
