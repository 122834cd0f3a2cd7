//! The digests of what git has stored.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use regatta_model::{Digest, DigestHasher};

use super::command::git;
use crate::files::write_atomically;

/// What the file begins with; another version is another text.
const MAGIC: &str = "regatta git blobs 1";
/// How many blobs are remembered at most. Beyond it, those not asked for this time are forgotten.
const MOST_REMEMBERED: usize = 1_000_000;
/// What a pointer of Git LFS begins with (its specification, `docs/spec.md`).
const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1\n";
/// A pointer is shorter than this.
const POINTER_BYTES: usize = 1024;
/// How much is read at a time.
const BUFFER_BYTES: usize = 64 * 1024;

/// What is in a blob of git's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Blob {
    pub(super) digest: Digest,
    /// What a checkout has in its place if it is a pointer of Git LFS.
    pub(super) pointed_at: Option<Digest>,
}

impl Blob {
    /// Whether a file that holds `digest` is what a checkout has of it.
    pub(super) fn is(&self, digest: Digest) -> bool {
        self.digest == digest || self.pointed_at == Some(digest)
    }
}

/// Remembers what is in blobs, by their ids: an id never stands for anything else. A damaged file is the same as
/// none.
#[derive(Debug)]
pub(super) struct BlobDigests {
    path: PathBuf,
    by_id: HashMap<String, Blob>,
}

impl BlobDigests {
    pub(super) fn open(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        Self {
            path: path.to_owned(),
            by_id: parse(&text).unwrap_or_default(),
        }
    }

    pub(super) fn get(&self, id: &str) -> Option<&Blob> {
        self.by_id.get(id)
    }

    /// Reads those of the blobs that are not known yet from the repository that `directory` is in.
    pub(super) fn learn(&mut self, directory: &Path, ids: &HashSet<&str>) -> Result<(), String> {
        let unknown = ids.iter().filter(|id| !self.by_id.contains_key(**id));
        let unknown: Vec<&str> = unknown.copied().collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let found = read(directory, &unknown).map_err(|error| format!("git cat-file: {error}"))?;
        if self.by_id.len() + found.len() > MOST_REMEMBERED {
            self.by_id.retain(|id, _| ids.contains(id.as_str()));
        }
        self.by_id.extend(found);
        let saved = write_atomically(&self.path, self.text().as_bytes());
        if let Err(error) = saved {
            tracing::debug!(path = %self.path.display(), %error, "git's blobs are not remembered");
        }
        Ok(())
    }

    /// A line for each, and one that ends the file.
    fn text(&self) -> String {
        let sorted: BTreeMap<_, _> = self.by_id.iter().collect();
        let lines = sorted.iter().map(|(id, blob)| {
            let pointed_at = blob.pointed_at.map(|digest| format!(" {digest}"));
            format!("{id} {}{}\n", blob.digest, pointed_at.unwrap_or_default())
        });
        let lines: String = lines.collect();
        let checksum = Digest::of(lines.as_bytes());
        format!("{MAGIC} {checksum}\n{lines}")
    }
}

fn parse(text: &str) -> Option<HashMap<String, Blob>> {
    let (first, lines) = text.split_once('\n')?;
    if first != format!("{MAGIC} {}", Digest::of(lines.as_bytes())) {
        return None;
    }
    lines.lines().map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<(String, Blob)> {
    let mut words = line.split(' ');
    let id = words.next()?.to_owned();
    let blob = Blob {
        digest: words.next()?.parse().ok()?,
        pointed_at: words.next().map(str::parse).transpose().ok()?,
    };
    Some((id, blob))
}

/// What is in these blobs. Git is asked for all of them at once.
fn read(directory: &Path, ids: &[&str]) -> io::Result<Vec<(String, Blob)>> {
    let mut git = git(directory);
    let mut git = git
        .args(["cat-file", "--batch", "--buffer"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let (Some(mut stdin), Some(stdout)) = (git.stdin.take(), git.stdout.take()) else {
        return Err(io::ErrorKind::BrokenPipe.into());
    };
    let asked = ids.join("\n") + "\n";
    let found = std::thread::scope(|scope| {
        // It answers while it is asked: neither waits for the other.
        scope.spawn(move || stdin.write_all(asked.as_bytes()));
        let mut stdout = BufReader::with_capacity(BUFFER_BYTES, stdout);
        let found = ids
            .iter()
            .map(|id| Ok(((*id).to_owned(), read_blob(id, &mut stdout)?)));
        found.collect::<io::Result<Vec<_>>>()
    });
    git.wait()?;
    found
}

/// A blob comes as `ID blob SIZE`, its bytes, and the end of a line (git-cat-file(1)).
fn read_blob(id: &str, stdout: &mut impl io::BufRead) -> io::Result<Blob> {
    let mut head = String::new();
    stdout.read_line(&mut head)?;
    let size = head.trim_end().strip_prefix(id);
    let size = size.and_then(|rest| rest.strip_prefix(" blob "));
    let size: u64 = size
        .and_then(|size| size.parse().ok())
        .ok_or_else(|| io::Error::other(format!("{id} is no blob: {}", head.trim_end())))?;
    let (mut hasher, mut start) = (DigestHasher::new(), Vec::new());
    let mut bytes = stdout.take(size);
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = bytes.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
        if start.len() < POINTER_BYTES {
            start.extend_from_slice(&buffer[..read]);
        }
    }
    let digest = hasher.finish();
    if digest.size_bytes() != size {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    stdout.read_line(&mut head)?;
    Ok(Blob {
        digest,
        pointed_at: pointed_at(&start),
    })
}

/// What a pointer of Git LFS points at.
fn pointed_at(blob: &[u8]) -> Option<Digest> {
    if blob.len() >= POINTER_BYTES || !blob.starts_with(POINTER) {
        return None;
    }
    let text = std::str::from_utf8(blob).ok()?;
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key));
    let size = value("size ")?.parse().ok()?;
    Digest::parse_hash(value("oid sha256:")?, size).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_known_again_and_damage_is_the_same_as_nothing() {
        let blob = |text: &str, pointed_at| Blob {
            digest: Digest::of(text.as_bytes()),
            pointed_at,
        };
        let known = BlobDigests {
            path: PathBuf::new(),
            by_id: HashMap::from([
                ("a".repeat(40), blob("a", None)),
                ("b".repeat(64), blob("b", Some(Digest::of(b"large")))),
            ]),
        };
        let text = known.text();
        assert_eq!(parse(&text), Some(known.by_id));
        for at in 0..text.len() {
            let mut damaged = text.clone().into_bytes();
            damaged[at] ^= 1;
            assert_eq!(parse(&String::from_utf8_lossy(&damaged)), None);
            assert_eq!(parse(&text[..at]), None);
        }
    }

    #[test]
    fn a_pointer_says_what_it_points_at() {
        let digest = Digest::of(b"large");
        let pointer = format!(
            "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize 5\n",
            digest.hash_hex()
        );
        assert_eq!(pointed_at(pointer.as_bytes()), Some(digest));
        assert_eq!(pointed_at(&pointer.as_bytes()[1..]), None);
        assert_eq!(
            pointed_at(b"version https://git-lfs.github.com/spec/v1\n"),
            None
        );
    }
}
