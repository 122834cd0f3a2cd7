//! What the globs of a scan choose.

use std::sync::atomic::{AtomicBool, Ordering};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use super::{ScanError, ScanOptions};

/// How many globs of the set stand for one pattern: itself, and what is below it.
const GLOBS_PER_PATTERN: usize = 2;

/// The compiled globs of a scan, and which of them were of use.
#[derive(Debug)]
pub(super) struct Selection {
    include: GlobSet,
    exclude: GlobSet,
    patterns: Vec<(String, AtomicBool)>,
}

impl Selection {
    pub(super) fn new(options: &ScanOptions) -> Result<Self, ScanError> {
        let unused = |pattern: &String| (pattern.clone(), AtomicBool::new(false));
        Ok(Self {
            include: glob_set(&options.include)?,
            exclude: glob_set(&options.exclude)?,
            patterns: options.include.iter().map(unused).collect(),
        })
    }

    /// Whether a directory need not be entered, or a file not be taken, however it is included.
    pub(super) fn excludes(&self, path: &str) -> bool {
        self.exclude.is_match(path)
    }

    /// Whether a file or symlink is taken.
    pub(super) fn takes(&self, path: &str) -> bool {
        if self.patterns.is_empty() {
            return true;
        }
        let matches = self.include.matches(path);
        for index in &matches {
            if let Some((_, used)) = self.patterns.get(index / GLOBS_PER_PATTERN) {
                used.store(true, Ordering::Relaxed);
            }
        }
        !matches.is_empty()
    }

    pub(super) fn unmatched_includes(&self) -> Vec<String> {
        let unused = self
            .patterns
            .iter()
            .filter(|(_, used)| !used.load(Ordering::Relaxed));
        unused.map(|(pattern, _)| pattern.clone()).collect()
    }
}

fn glob_set(patterns: &[String]) -> Result<GlobSet, ScanError> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let invalid = |source| ScanError::Glob {
            glob: pattern.clone(),
            source,
        };
        let relative = pattern.trim_start_matches("./").trim_end_matches('/');
        let itself = match relative {
            "" | "." => "**",
            relative => relative,
        };
        for glob in [itself.to_owned(), format!("{itself}/**")] {
            let glob = GlobBuilder::new(&glob).literal_separator(true).build();
            set.add(glob.map_err(invalid)?);
        }
    }
    set.build().map_err(|source| ScanError::Glob {
        glob: patterns.join(", "),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(include: &[&str], path: &str, taken: bool) {
        let include = include.iter().map(ToString::to_string).collect();
        let options = ScanOptions {
            include,
            ..ScanOptions::default()
        };
        assert_eq!(
            Selection::new(&options).unwrap().takes(path),
            taken,
            "{path}"
        );
    }

    #[test]
    fn globs_choose_as_shells_do() {
        check(&[], "any/thing", true);
        check(&["."], "any/thing", true);
        check(&["src"], "src/a/b.rs", true);
        check(&["./src/"], "src/a/b.rs", true);
        check(&["src"], "srcs", false);
        check(&["*.rs"], "a.rs", true);
        check(&["*.rs"], "src/a.rs", false);
        check(&["**/*.rs"], "a.rs", true);
        check(&["**/*.rs"], "src/a.rs", true);
        check(&["{a,b}/*.rs"], "b/x.rs", true);
    }

    #[test]
    fn patterns_that_took_nothing_are_told() {
        let include = vec!["src".to_owned(), "typo/**".to_owned(), "*.toml".to_owned()];
        let selection = Selection::new(&ScanOptions {
            include,
            ..Default::default()
        })
        .unwrap();
        assert!(selection.takes("src/x"));
        assert!(selection.takes("Cargo.toml"));
        assert_eq!(selection.unmatched_includes(), ["typo/**"]);
    }

    #[test]
    fn a_broken_glob_is_named() {
        let options = ScanOptions {
            exclude: vec!["a[".to_owned()],
            ..Default::default()
        };
        let error = Selection::new(&options).unwrap_err();
        assert_eq!(error.to_string(), "the glob \"a[\" is not valid");
    }
}
