//! From the patterns of a configuration to the files they mean.

use std::path::{Component, Path};

use globset::{GlobBuilder, GlobMatcher};

use super::{Entries, Source, WalkError, walk_everything};

/// Why patterns mean no files.
#[derive(Debug, thiserror::Error)]
pub enum ExpandError {
    /// No file matches. Fix the pattern.
    #[error("nothing matches `{pattern}`")]
    NoMatch {
        /// The pattern.
        pattern: String,
    },
    /// It is no pattern. Fix it.
    #[error("`{pattern}` is no pattern: {source}")]
    Invalid {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        source: globset::Error,
    },
    /// The files cannot be listed.
    #[error(transparent)]
    Walk(#[from] WalkError),
}

/// The files below `root` that the patterns mean, by path relative to it; `files` are those that git does
/// not ignore.
///
/// A pattern without wildcards is a file or a directory with all in it, ignored or not; but `.` is the
/// project as git sees it. `*` stays in a directory, `**` does not. A `!` at its beginning takes files out
/// of what earlier patterns put in.
///
/// # Errors
/// A pattern matches nothing.
pub fn expand<'a>(
    root: &Path,
    files: &Entries,
    patterns: impl IntoIterator<Item = &'a str>,
) -> Result<Entries, ExpandError> {
    let mut chosen = Entries::default();
    for pattern in patterns {
        if let Some(excluded) = pattern.strip_prefix('!') {
            let matcher = matcher(excluded)?;
            chosen
                .by_path
                .retain(|path, _| !means(&matcher, excluded, path));
            continue;
        }
        let found = match is_wild(pattern) {
            true => matching(files, &matcher(pattern)?),
            false => match plain(pattern) {
                "" | "." => files.clone(),
                path => named(root, path)?,
            },
        };
        if found.by_path.is_empty() {
            let pattern = pattern.to_owned();
            return Err(ExpandError::NoMatch { pattern });
        }
        chosen.extend(&found);
    }
    Ok(chosen)
}

/// Patterns, for the paths of files that need not be here.
#[derive(Debug)]
pub struct Patterns {
    steps: Vec<Step>,
}

#[derive(Debug)]
enum Step {
    Out(GlobMatcher, String),
    In(GlobMatcher),
    Below(String),
    All,
}

impl Patterns {
    /// They mean what [`expand`] has them mean.
    ///
    /// # Errors
    /// One of them is none.
    pub fn new<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Self, ExpandError> {
        let steps = patterns.into_iter().map(Step::of);
        Ok(Self {
            steps: steps.collect::<Result<_, _>>()?,
        })
    }

    /// Whether a file with this path would be among those that they mean, unless git ignores it.
    #[must_use]
    pub fn mean(&self, path: &str) -> bool {
        let mut is_chosen = false;
        for step in &self.steps {
            is_chosen = match step {
                Step::Out(matcher, pattern) => is_chosen && !means(matcher, pattern, path),
                Step::In(matcher) => is_chosen || matcher.is_match(path),
                Step::Below(named) => is_chosen || is_at(path, named),
                Step::All => true,
            };
        }
        is_chosen
    }
}

impl Step {
    fn of(pattern: &str) -> Result<Self, ExpandError> {
        if let Some(excluded) = pattern.strip_prefix('!') {
            return Ok(Self::Out(matcher(excluded)?, excluded.to_owned()));
        }
        Ok(match is_wild(pattern) {
            true => Self::In(matcher(pattern)?),
            false => match plain(pattern) {
                "" | "." => Self::All,
                path => Self::Below(path.to_owned()),
            },
        })
    }
}

/// Whether a path is that of a file or directory, or below it.
fn is_at(path: &str, named: &str) -> bool {
    let below = path.strip_prefix(named);
    below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn is_wild(pattern: &str) -> bool {
    pattern.contains(['*', '?', '[', '{'])
}

/// What a pattern without wildcards names.
fn plain(pattern: &str) -> &str {
    pattern.trim_start_matches("./").trim_end_matches('/')
}

fn matcher(pattern: &str) -> Result<GlobMatcher, ExpandError> {
    GlobBuilder::new(pattern.trim_start_matches("./"))
        .literal_separator(true)
        .build()
        .map(|glob| glob.compile_matcher())
        .map_err(|source| ExpandError::Invalid {
            pattern: pattern.to_owned(),
            source,
        })
}

/// Whether a path matches, or lies in a directory that is named.
fn means(matcher: &GlobMatcher, pattern: &str, path: &str) -> bool {
    let below = path.strip_prefix(pattern.trim_end_matches('/'));
    matcher.is_match(path) || below.is_some_and(|rest| rest.starts_with('/'))
}

fn matching(files: &Entries, matcher: &GlobMatcher) -> Entries {
    let matching = files
        .by_path
        .iter()
        .filter(|(path, _)| matcher.is_match(path));
    Entries {
        by_path: matching
            .map(|(path, source)| (path.clone(), source.clone()))
            .collect(),
    }
}

/// A file, or a directory and all in it, as the path says; nothing if it leads out of the root.
fn named(root: &Path, path: &str) -> Result<Entries, ExpandError> {
    let inside = |part| matches!(part, Component::Normal(_));
    if !Path::new(path).components().all(inside) {
        return Ok(Entries::default());
    }
    let absolute = root.join(path);
    let Ok(metadata) = std::fs::symlink_metadata(&absolute) else {
        return Ok(Entries::default());
    };
    let mut entries = walk_everything(&absolute, root)?;
    if metadata.is_dir() && entries.by_path.is_empty() {
        entries.by_path.insert(path.to_owned(), Source::Directory);
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::walk;

    fn expanded(patterns: &[&str]) -> Result<Vec<String>, ExpandError> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let root = directory.path();
        for file in [
            "src/a.c",
            "src/deep/b.c",
            "src/deep/b.h",
            "ignored.o",
            "src/deep/ignored.o",
            "Makefile",
        ] {
            let file = root.join(file);
            std::fs::create_dir_all(file.parent().expect("below")).expect("created");
            std::fs::write(file, "").expect("written");
        }
        std::fs::create_dir(root.join("empty")).expect("created");
        std::fs::write(root.join(".gitignore"), "*.o\n").expect("written");
        let files = walk(root, root, &[]).expect("it can be read");
        let entries = expand(root, &files, patterns.iter().copied())?;
        let meant = Patterns::new(patterns.iter().copied())?;
        let all = walk_everything(root, root).expect("it can be read");
        for path in all.by_path.keys() {
            let is_here = files.by_path.contains_key(path) || !path.ends_with(".o");
            let is_chosen = entries.by_path.contains_key(path);
            assert!(!is_chosen || meant.mean(path), "{patterns:?} {path}");
            assert!(
                !is_here || is_chosen == meant.mean(path),
                "{patterns:?} {path}"
            );
        }
        Ok(entries.by_path.into_keys().collect())
    }

    #[track_caller]
    fn check(patterns: &[&str], paths: &[&str]) {
        assert_eq!(expanded(patterns).expect("they match"), paths);
    }

    #[test]
    fn patterns_mean_what_they_mean_in_a_shell() {
        check(&["src/*.c"], &["src/a.c"]);
        check(&["src/**/*.c"], &["src/a.c", "src/deep/b.c"]);
        let all = [
            "src/a.c",
            "src/deep/b.c",
            "src/deep/b.h",
            "src/deep/ignored.o",
        ];
        check(&["src"], &all);
        check(&["src/**"], &all[..3]);
        check(&[".", "!src"], &[".gitignore", "Makefile"]);
        check(&["src/", "!src/deep"], &["src/a.c"]);
        check(
            &["**", "!**/*.c"],
            &[".gitignore", "Makefile", "src/deep/b.h"],
        );
        check(&["./Makefile"], &["Makefile"]);
        check(&["empty"], &["empty"]);
        check(&["ignored.o"], &["ignored.o"]);
    }

    #[test]
    fn a_pattern_that_matches_nothing_is_an_error() {
        for pattern in ["*.rs", "nothing", "*.o", "../x", "/etc/passwd"] {
            let error = expanded(&[pattern]).expect_err("nothing matches");
            assert_eq!(error.to_string(), format!("nothing matches `{pattern}`"));
        }
    }
}
