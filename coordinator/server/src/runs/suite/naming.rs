//! Which tests have ids that name a file. Pure.
//!
//! Runners that name tests at all name them by where they are: `tests/test_x.py::test_y`, `src/x.test.js`,
//! `pkg/sub.TestX`. A name that only begins like a file's is another's.

use std::collections::BTreeSet;

/// What a path in an id may end before, white space aside.
const SEPARATORS: [char; 10] = ['/', ':', '#', '[', '(', '{', '?', '|', ',', ';'];
/// What the sources of Go end in, whose tests are named by their directory.
const GO: &str = ".go";
/// What the name of a function begins with that Go's test programs run.
const GO_FUNCTIONS: [&str; 4] = ["Test", "Example", "Fuzz", "Benchmark"];
/// At how many places in an id a path is looked for, the first ones: in any id of a runner's own it is earlier.
const MAX_BEGINNINGS: usize = 16;
/// How many separators of an id may be in such a path or be taken for its end.
const MAX_ENDS: usize = 32;

/// Files that ids may name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct NamedPaths {
    files: BTreeSet<String>,
    /// The directories of those that are sources of Go.
    packages: BTreeSet<String>,
    /// Every directory that one of them is below.
    above: BTreeSet<String>,
}

impl NamedPaths {
    /// Files by their paths from the root of the inputs, of tests that run in `working_directory`: ids name them from
    /// there or from here.
    pub(super) fn new<'a>(
        paths: impl IntoIterator<Item = &'a str>,
        working_directory: &str,
    ) -> Self {
        let mut named = Self::default();
        let here = match working_directory.trim_matches('/') {
            "" => None,
            directory => Some(format!("{directory}/")),
        };
        for path in paths {
            named.add(path);
            if let Some(path) = here.as_ref().and_then(|here| path.strip_prefix(here)) {
                named.add(path);
            }
        }
        named
    }

    fn add(&mut self, path: &str) {
        if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return;
        }
        for (end, _) in path.match_indices('/') {
            self.above.insert(path[..end].to_owned());
        }
        if let (Some((directory, _)), true) = (path.rsplit_once('/'), path.ends_with(GO)) {
            self.packages.insert(directory.to_owned());
        }
        self.files.insert(path.to_owned());
    }

    /// Whether this id names one of them.
    pub(super) fn are_named_by(&self, id: &str) -> bool {
        let beginnings = id.char_indices().filter(|(_, it)| begins_after(*it));
        let beginnings = beginnings.map(|(place, it)| place + it.len_utf8());
        let mut beginnings = std::iter::once(0).chain(beginnings).take(MAX_BEGINNINGS);
        beginnings.any(|begin| {
            let (before, text) = id.split_at(begin);
            self.are_named_first_in(text, matches!(before, "" | "./"))
        })
    }

    /// Whether what is left of an id begins with one of them. The name of a file that is in no directory is too short
    /// to mean that file elsewhere than at the beginning of the id.
    fn are_named_first_in(&self, text: &str, is_beginning: bool) -> bool {
        let ends = text
            .char_indices()
            .filter(|(_, it)| *it == '.' || is_end(*it));
        let ends = ends.map(|(end, _)| end).take(MAX_ENDS).chain([text.len()]);
        for end in ends {
            let (path, rest) = text.split_at(end);
            let is_specific = is_beginning || path.contains('/');
            let is_whole = rest.chars().next().is_none_or(is_end);
            if is_whole && is_specific && self.files.contains(path) {
                return true;
            }
            if is_of_package(rest) && self.packages.contains(path) {
                return true;
            }
            if rest.starts_with('/') && !self.above.contains(path) {
                return false;
            }
        }
        false
    }
}

fn begins_after(character: char) -> bool {
    character == '/' || character.is_whitespace()
}

fn is_end(character: char) -> bool {
    SEPARATORS.contains(&character) || character.is_whitespace()
}

/// Whether what follows a directory in an id says that the directory is a package of Go: nothing, or a function, but
/// no directory or file in it.
fn is_of_package(rest: &str) -> bool {
    let Some(function) = rest.strip_prefix(['/', '.']) else {
        return rest.chars().next().is_none_or(is_end);
    };
    let mut names = GO_FUNCTIONS
        .iter()
        .filter_map(|it| function.strip_prefix(it));
    names.any(|name| !name.starts_with(char::is_lowercase))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(changed: &[&str], named_by: &[&str], not_by: &[&str]) {
        let paths = NamedPaths::new(changed.iter().copied(), "sub/dir/");
        for id in named_by {
            assert!(paths.are_named_by(id), "{id} names none of {changed:?}");
        }
        for id in not_by {
            assert!(!paths.are_named_by(id), "{id} names one of {changed:?}");
        }
    }

    #[test]
    fn ids_name_files_by_their_whole_paths() {
        check(
            &["tests/test_a.py"],
            &[
                "tests/test_a.py::test_one[x/y]",
                "tests/test_a.py",
                "./tests/test_a.py:12",
                "src/tests/test_a.py::of another root",
                "[chromium] tests/test_a.py some test",
                "tests/test_a.py/case",
                "tests/test_a.py#case",
                "tests/test_a.py(case)",
            ],
            &[
                "tests/test_ab.py::x",
                "tests/test_a.pyc::x",
                "tests/test_a.py.snap::x",
                "tests/test_a.py-x",
                "mytests/test_a.py::x",
                "test_a.py::x",
                "tests/test_a::x",
                "tests//test_a.py::x",
                "tests/../tests/b.py",
                "tests",
                "",
                "/",
            ],
        );
        check(
            &["tests/test_a"],
            &["tests/test_a"],
            &["tests/test_a.py::x"],
        );
        check(
            &["a/(b)/[c].js"],
            &["a/(b)/[c].js > d"],
            &["a/(b)/[c]", "a/"],
        );
        check(
            &["á/ß.py"],
            &["á/ß.py::ö", "x/á/ß.py", "ä á/ß.py"],
            &["á/ßß.py", "aá/ß.py"],
        );
        check(&[], &[], &["", "a", "a/b.py::c"]);
    }

    #[test]
    fn a_name_in_no_directory_counts_at_the_beginning_alone() {
        let named = ["a.js", "a.js some test", "./a.js"];
        check(&["a.js"], &named, &["b/a.js", "b a.js", "/a.js", "../a.js"]);
    }

    #[test]
    fn files_are_named_from_where_tests_run_too() {
        let named = ["sub/dir/a.py::x", "a.py::x"];
        check(&["sub/dir/a.py"], &named, &["dir/a.py::x"]);
        check(&["sub/dirt/a.py"], &["sub/dirt/a.py"], &["t/a.py", "a.py"]);
    }

    #[test]
    fn what_is_no_path_below_the_root_is_named_by_nothing() {
        check(
            &[
                "",
                "/",
                "..",
                "../a",
                "a//b",
                "./c",
                "d/",
                "/e",
                "f/../g.go",
            ],
            &[],
            &[
                "",
                "/",
                "..",
                "../a",
                "a//b",
                "./c",
                "d/",
                "/e",
                "f/../g.go",
                "f/..",
                "c",
            ],
        );
    }

    #[test]
    fn tests_of_go_are_named_by_their_package() {
        check(
            &["pkg/sub/x_test.go", "main.go"],
            &[
                "pkg/sub",
                "./pkg/sub",
                "example.com/m/pkg/sub",
                "example.com/m/pkg/sub.TestX",
                "pkg/sub/TestX/case",
                "pkg/sub Test_x",
                "pkg/sub:ExampleX",
                "pkg/sub/x_test.go:7",
            ],
            &[
                "pkg",
                "pkg/subs",
                "pkg/sub/deeper",
                "pkg/sub/deeper.TestX",
                "pkg/sub.v2/TestX",
                "pkg/sub/Testimony",
                "example.com/m",
            ],
        );
        check(&["pkg/x.py"], &[], &["pkg", "pkg.TestX"]);
    }

    /// The same, said slowly.
    fn names(id: &str, path: &str) -> bool {
        id.char_indices().any(|(begin, _)| {
            let before = &id[..begin];
            let is_part = before.is_empty() || before.ends_with(begins_after);
            let is_beginning = matches!(before, "" | "./");
            let rest = id[begin..].strip_prefix(path);
            let is_whole = rest.is_some_and(|rest| rest.chars().next().is_none_or(is_end));
            is_part && is_whole && (is_beginning || path.contains('/'))
        })
    }

    proptest! {
        #[test]
        fn an_id_names_a_file_if_the_path_is_there_whole(
            paths in proptest::collection::vec("[aé/.: ]{1,6}", 0..4),
            id in "[aé/.: ]{0,14}",
        ) {
            let valid = |path: &&String| !path.split('/').any(|part| matches!(part, "" | "." | ".."));
            let expected = paths.iter().filter(valid).any(|path| names(&id, path));
            let paths = NamedPaths::new(paths.iter().map(String::as_str), "");
            prop_assert_eq!(paths.are_named_by(&id), expected);
        }

        #[test]
        fn any_id_of_a_file_names_it_and_one_that_goes_on_does_not(
            parts in proptest::collection::vec("[\\w.ß語-]{1,5}x", 2..5),
            begin in proptest::sample::select(&["", "./", "/", "root/", "x y/"][..]),
            end in "([:#\\[( ]\\PC{0,20})?",
            more in "[\\w-]",
        ) {
            let path = parts.join("/");
            let paths = NamedPaths::new([path.as_str()], "");
            let id = format!("{begin}{path}{end}");
            prop_assert!(paths.are_named_by(&id), "{}", id);
            let other = format!("{begin}{path}{more}");
            prop_assert!(!paths.are_named_by(&other), "{}", other);
        }

        #[test]
        fn no_id_and_no_path_does_harm(
            paths in proptest::collection::vec("\\PC{0,9}", 0..4),
            directory in "\\PC{0,4}",
            // White space of several bytes, too.
            id in "([/.: \u{2003}\u{3000}é]|\\PC){0,100}",
        ) {
            NamedPaths::new(paths.iter().map(String::as_str), &directory).are_named_by(&id);
        }
    }
}
