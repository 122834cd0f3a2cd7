//! Inputs that fuzzing found, once more.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

/// Feeds a target with the files that the command line names.
///
/// # Errors
/// A file cannot be read.
pub fn replay_arguments(target: fn(&[u8])) -> io::Result<()> {
    let files = std::env::args_os().skip(1).map(PathBuf::from);
    files.into_iter().try_for_each(|file| replay(&file, target))
}

/// Fewer inputs than this are no corpus that fuzzing left.
const FEWEST_INPUTS: usize = 10;

/// Feeds a target with the corpus of its name, in a crate's folder.
///
/// # Panics
/// There is no such corpus, or the target panics.
#[track_caller]
pub fn check_corpus(folder: &str, name: &str, target: fn(&[u8])) {
    let corpus = Path::new(folder).join("corpus").join(name);
    let replayed = replay_corpus(&corpus, target);
    assert!(
        matches!(replayed, Ok(FEWEST_INPUTS..)),
        "{name} has a corpus of {replayed:?} inputs"
    );
}

/// Feeds a target with every file of a directory; returns how many there are.
///
/// # Errors
/// The directory or a file cannot be read.
///
/// # Panics
/// The target panics; the file that made it is named before.
pub fn replay_corpus(directory: &Path, target: fn(&[u8])) -> io::Result<usize> {
    let entries = std::fs::read_dir(directory)?;
    let mut files = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<Vec<_>>>()?;
    files.sort();
    files.iter().try_for_each(|file| replay(file, target))?;
    Ok(files.len())
}

#[expect(
    clippy::print_stderr,
    reason = "whoever replays wants to know which file it was"
)]
fn replay(file: &Path, target: fn(&[u8])) -> io::Result<()> {
    let input = std::fs::read(file)?;
    catch_unwind(AssertUnwindSafe(|| target(&input))).unwrap_or_else(|panic| {
        eprintln!("the input is {}", file.display());
        resume_unwind(panic)
    });
    Ok(())
}
