//! The file that remembers who used what, and when.
//!
//! It is a sequence of batches, each with its length and a checksum, and is only ever appended to, or replaced
//! as a whole. What follows the first batch that is not whole is cut off. Nothing depends on what is lost with
//! it: what is not known is found in the store, and counts as used then.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use regatta_model::Digest;

use super::entry::{Claim, Entry, Key, Seconds};
use super::record::Record;

/// What each batch begins with.
const MAGIC: [u8; 4] = *b"RGU1";
/// Magic, length and checksum.
const HEADER_BYTES: usize = 16;
/// How many records are in a batch at most.
const MAX_BATCH_RECORDS: usize = 10_000;
/// The longest batch that is read, in bytes: no record has more than 1.1 KiB.
const MAX_BATCH_BYTES: usize = 1100 * MAX_BATCH_RECORDS;
/// The file is written anew once it has this many more records than it needs, or twice as many.
const SPARE_RECORDS: u64 = 100_000;

/// The open file.
#[derive(Debug)]
pub(super) struct UseLog {
    path: PathBuf,
    file: File,
    /// How many records are in it, and how many it needed when it was written.
    records: u64,
    needed: u64,
}

/// What is in a log.
#[derive(Debug, Default)]
pub(super) struct Recalled {
    pub(super) entries: Vec<Entry>,
    pub(super) tenants: Vec<Record>,
    /// How whoever wrote it last ended it.
    pub(super) end: LogEnd,
    /// Before this moment nothing is to go, if whoever wrote it last knew of one.
    held_until: Option<Seconds>,
}

/// How much a log says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum LogEnd {
    /// Nobody ended it: what was asked for in the last seconds is not in it.
    #[default]
    Killed,
    /// All that was asked for is in it.
    Stopped,
    /// And so is all that was stored.
    Complete,
}

impl LogEnd {
    /// The same of a log that may not name all that was stored.
    const fn without_all(self) -> Self {
        match self {
            Self::Killed => Self::Killed,
            Self::Stopped | Self::Complete => Self::Stopped,
        }
    }
}

impl Recalled {
    /// Before which moment nothing is to go: what was promised in the last seconds before a kill has no name, and is
    /// kept for `held_for` after it.
    pub(super) fn held_until(&self, now: Seconds, held_for: Seconds) -> Option<Seconds> {
        let until = now.saturating_add(held_for);
        match self.end {
            LogEnd::Killed => Some(until),
            LogEnd::Stopped | LogEnd::Complete => self.held_until.map(|held| held.min(until)),
        }
    }
}

impl UseLog {
    /// Opens the file, made if it is absent, and says what is in it.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Recalled)> {
        let mut file = OpenOptions::new();
        let file = file.create(true).truncate(false).read(true).write(true);
        let file = file.open(path)?;
        let mut replay = Replay::default();
        let length = replay.read(&file)?;
        // What comes after what could be read would never be read either.
        file.set_len(length)?;
        let file = {
            use std::io::{Seek as _, SeekFrom};
            let mut file = file;
            file.seek(SeekFrom::Start(length))?;
            file
        };
        let (records, recalled) = (replay.records, replay.finish());
        let log = Self {
            path: path.to_owned(),
            file,
            records,
            needed: recalled.entries.len() as u64,
        };
        Ok((log, recalled))
    }

    /// What is in a file that somebody else may be appending to.
    pub(super) fn peek(path: &Path) -> io::Result<Recalled> {
        let mut replay = Replay::default();
        match File::open(path) {
            Ok(file) => replay.read(&file)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        Ok(replay.finish())
    }

    /// Appends records. After an error the file has to be written anew.
    pub(super) fn append(&mut self, records: &[Record]) -> io::Result<()> {
        write_batches(&mut self.file, records)?;
        self.records += records.len() as u64;
        Ok(())
    }

    /// Whether most of the file says what is no longer so.
    pub(super) fn is_mostly_spare(&self) -> bool {
        self.records > self.needed * 2 + SPARE_RECORDS
    }

    /// Writes the file anew.
    pub(super) fn replace(&mut self, records: &[Record]) -> io::Result<()> {
        let new = self.path.with_extension("new");
        let mut file = BufWriter::new(File::create(&new)?);
        write_batches(&mut file, records)?;
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        std::fs::rename(&new, &self.path)?;
        if let Some(directory) = self.path.parent() {
            // Else a loss of power can bring the earlier one back.
            File::open(directory)?.sync_all()?;
        }
        self.file = file;
        self.records = records.len() as u64;
        self.needed = self.records;
        Ok(())
    }

    /// Waits until what was appended is on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn write_batches(file: &mut impl Write, records: &[Record]) -> io::Result<()> {
    for batch in records.chunks(MAX_BATCH_RECORDS) {
        let mut payload = Vec::with_capacity(60 * batch.len());
        batch.iter().for_each(|record| record.encode(&mut payload));
        let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
        let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
        bytes.extend(MAGIC);
        bytes.extend(length.to_le_bytes());
        bytes.extend(&Digest::of(&payload).hash()[..8]);
        bytes.append(&mut payload);
        // One call, so that a process that is killed leaves all of it or none.
        file.write_all(&bytes)?;
    }
    file.flush()
}

/// What the records come to.
#[derive(Default)]
struct Replay {
    slots: HashMap<Key, (u64, Vec<Claim>)>,
    tenants: Vec<Record>,
    end: LogEnd,
    held_until: Option<Seconds>,
    records: u64,
}

impl Replay {
    /// Reads batches as far as they are whole; says how far that is, in bytes.
    fn read(&mut self, file: &File) -> io::Result<u64> {
        let mut file = BufReader::new(file);
        let mut length = 0;
        while let Some(payload) = read_batch(&mut file)? {
            length += (HEADER_BYTES + payload.len()) as u64;
            let mut rest = &payload[..];
            while let Some(record) = Record::decode(&mut rest) {
                self.records += 1;
                self.take(record);
            }
        }
        Ok(length)
    }

    fn take(&mut self, record: Record) {
        self.note_end(&record);
        match record {
            Record::Tenant { .. } => self.tenants.push(record),
            Record::Used {
                key,
                size_bytes,
                claim,
            } => {
                let (size, claims) = self.slots.entry(key).or_default();
                *size = size_bytes;
                match claims.iter_mut().find(|it| it.claimant == claim.claimant) {
                    Some(known) => known.used = known.used.max(claim.used),
                    None => claims.push(claim),
                }
            }
            Record::Released { key, claimant } => {
                if let Some((_, claims)) = self.slots.get_mut(&key) {
                    claims.retain(|claim| claim.claimant != claimant);
                }
            }
            Record::Gone { key } => {
                self.slots.remove(&key);
            }
            Record::Opened | Record::Complete | Record::Stopped | Record::Held { .. } => {}
        }
    }

    /// Whatever is told after an end shows that it no longer holds.
    fn note_end(&mut self, record: &Record) {
        match record {
            Record::Complete => self.end = LogEnd::Complete,
            Record::Stopped => self.end = LogEnd::Stopped,
            Record::Held { until } => (self.end, self.held_until) = (LogEnd::Killed, Some(*until)),
            // Whoever repairs the store tells what it removed, and nobody asks it for anything.
            Record::Gone { .. } => self.end = self.end.without_all(),
            Record::Opened
            | Record::Tenant { .. }
            | Record::Used { .. }
            | Record::Released { .. } => (self.end, self.held_until) = (LogEnd::Killed, None),
        }
    }

    fn finish(self) -> Recalled {
        let entries = self.slots.into_iter();
        let entries = entries.filter(|(_, (_, claims))| !claims.is_empty());
        let entries = entries.map(|(key, (size_bytes, claims))| Entry {
            key,
            size_bytes,
            claims,
            order: 0,
        });
        Recalled {
            entries: entries.collect(),
            tenants: self.tenants,
            end: self.end,
            held_until: self.held_until,
        }
    }
}

/// The payload of the next batch; `None` at the end, or where the file is damaged.
fn read_batch(file: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut header = [0; HEADER_BYTES];
    if !filled(file.read_exact(&mut header))? || header[..4] != MAGIC {
        return Ok(None);
    }
    let mut length = [0; 4];
    length.copy_from_slice(&header[4..8]);
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_BATCH_BYTES {
        return Ok(None);
    }
    let mut payload = vec![0; length];
    let is_whole = filled(file.read_exact(&mut payload))?;
    let is_right = is_whole && Digest::of(&payload).hash()[..8] == header[8..];
    Ok(is_right.then_some(payload))
}

fn filled(read: io::Result<()>) -> io::Result<bool> {
    match read {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Seek as _;

    use proptest::prelude::*;

    use super::super::entry::{Claimant, Kind};
    use super::*;

    fn key(seed: u8) -> Key {
        Key {
            kind: Kind::ALL[usize::from(seed) % 4],
            digest: Digest::of(&[seed]),
        }
    }

    fn used(seed: u8, claimant: u16, used: Seconds) -> Record {
        Record::Used {
            key: key(seed),
            size_bytes: u64::from(seed) + 1,
            claim: Claim {
                claimant: Claimant(claimant),
                used,
            },
        }
    }

    fn record() -> impl Strategy<Value = Record> {
        prop_oneof![
            4 => (0..6u8, 0..4u16, 0..99u32).prop_map(|(seed, by, at)| used(seed, by, at)),
            1 => (0..6u8, 0..4u16).prop_map(|(seed, by)| Record::Released {
                key: key(seed),
                claimant: Claimant(by)
            }),
            1 => (0..6u8).prop_map(|seed| Record::Gone { key: key(seed) }),
            1 => Just(Record::Complete),
            1 => Just(Record::Opened),
            1 => Just(Record::Stopped),
            1 => (0..99u32).prop_map(|until| Record::Held { until }),
            1 => "[a-z]{0,9}".prop_map(|name| Record::Tenant {
                claimant: Claimant(7),
                tenant: name.parse().unwrap(),
            }),
        ]
    }

    type Sorted = (Vec<Entry>, Vec<Record>, (LogEnd, Option<Seconds>));

    fn sorted(mut recalled: Recalled) -> Sorted {
        for entry in &mut recalled.entries {
            entry.claims.sort_by_key(|claim| claim.claimant);
        }
        recalled.entries.sort_by_key(|entry| entry.key);
        let end = (recalled.end, recalled.held_until);
        (recalled.entries, recalled.tenants, end)
    }

    fn replayed(records: &[Record]) -> Sorted {
        let mut replay = Replay::default();
        records
            .iter()
            .for_each(|record| replay.take(record.clone()));
        sorted(replay.finish())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever a machine that lost power left of the file, what is read is what was told up to some batch.
        #[test]
        fn what_was_told_is_recalled_up_to_where_the_file_is_damaged(
            batches in proptest::collection::vec(proptest::collection::vec(record(), 1..9), 1..6),
            cut in any::<prop::sample::Index>(),
            flip in any::<bool>(),
        ) {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("uses");
            let (mut log, _) = UseLog::open(&path).unwrap();
            let mut ends = vec![0];
            for batch in &batches {
                log.append(batch).unwrap();
                ends.push(log.file.stream_position().unwrap());
            }
            drop(log);
            let mut bytes = std::fs::read(&path).unwrap();
            let at = cut.index(bytes.len());
            match flip {
                true => bytes[at] ^= 1,
                false => bytes.truncate(at),
            }
            std::fs::write(&path, &bytes).unwrap();
            let whole = ends.iter().filter(|end| **end <= at as u64).count() - 1;
            let expected = replayed(&batches[..whole].concat());
            prop_assert_eq!(sorted(UseLog::peek(&path).unwrap()), expected.clone());
            // It goes on from there.
            let (mut log, recalled) = UseLog::open(&path).unwrap();
            prop_assert_eq!(sorted(recalled), expected);
            let more = [used(9, 3, 100)];
            log.append(&more).unwrap();
            let all = [batches[..whole].concat(), more.to_vec()].concat();
            prop_assert_eq!(sorted(UseLog::peek(&path).unwrap()), replayed(&all));
        }
    }

    #[test]
    fn what_is_told_after_an_end_shows_that_it_no_longer_holds() {
        let [gone, used] = [Record::Gone { key: key(1) }, used(1, 2, 3)];
        let held = Record::Held { until: 9 };
        for (records, expected) in [
            (vec![], (LogEnd::Killed, None)),
            (vec![Record::Complete], (LogEnd::Complete, None)),
            (vec![Record::Stopped], (LogEnd::Stopped, None)),
            (
                vec![held.clone(), Record::Stopped],
                (LogEnd::Stopped, Some(9)),
            ),
            (
                vec![held.clone(), Record::Complete, gone.clone()],
                (LogEnd::Stopped, Some(9)),
            ),
            (vec![Record::Stopped, gone.clone()], (LogEnd::Stopped, None)),
            (vec![gone], (LogEnd::Killed, None)),
            (
                vec![held.clone(), Record::Complete, used],
                (LogEnd::Killed, None),
            ),
            (
                vec![held, Record::Stopped, Record::Opened],
                (LogEnd::Killed, None),
            ),
        ] {
            assert_eq!(replayed(&records).2, expected, "{records:?}");
        }
    }

    #[test]
    fn a_file_that_is_mostly_spare_is_written_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("uses");
        let (mut log, recalled) = UseLog::open(&path).unwrap();
        let is_killed = recalled.end == LogEnd::Killed;
        assert!(is_killed, "nothing is known of an empty file");
        let uses: Vec<Record> = (0..100_001).map(|at| used(1, 2, at)).collect();
        log.append(&uses[..100_000]).unwrap();
        assert!(!log.is_mostly_spare());
        log.append(&uses[100_000..]).unwrap();
        assert!(log.is_mostly_spare());
        log.replace(&uses[100_000..]).unwrap();
        assert!(!log.is_mostly_spare());
        log.append(&[used(2, 2, 5), Record::Complete]).unwrap();
        drop(log);
        assert!(std::fs::metadata(&path).unwrap().len() < 1000);
        let (_, recalled) = UseLog::open(&path).unwrap();
        let expected = replayed(&[used(1, 2, 100_000), used(2, 2, 5), Record::Complete]);
        assert_eq!(sorted(recalled), expected);
    }
}
