//! Which files there are, who uses them and how much room is left.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::DiskCacheUsage;
use super::local_file::LocalFile;
use crate::lru_map::LruMap;

/// How precisely the last use of a file is kept on disk, where it orders files after a restart.
const MARK_INTERVAL: Duration = Duration::from_secs(60);

/// The accounts of a disk cache. They touch no disk.
#[derive(Debug)]
pub(super) struct Residents {
    capacity_bytes: u64,
    /// Files that nobody uses, and when their use was last marked on disk.
    idle: LruMap<LocalFile, Option<Instant>>,
    /// Files in use.
    pinned: HashMap<LocalFile, Pinned>,
    pinned_bytes: u64,
    /// Room for files that are on their way.
    reserved_bytes: u64,
}

#[derive(Debug)]
struct Pinned {
    count: usize,
    /// To be removed when nobody uses it any more; nobody new may use it.
    doomed: bool,
    marked: Option<Instant>,
}

/// What became of a wish to use a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PinOutcome {
    /// There is no such file.
    Absent,
    /// It is pinned.
    Pinned,
    /// It is pinned, and its use should be marked on disk.
    PinnedAndDue,
}

impl Residents {
    pub(super) fn new(capacity_bytes: u64) -> Self {
        Self {
            capacity_bytes,
            idle: LruMap::new(),
            pinned: HashMap::new(),
            pinned_bytes: 0,
            reserved_bytes: 0,
        }
    }

    pub(super) fn usage(&self) -> DiskCacheUsage {
        DiskCacheUsage {
            files: self.idle.len() + self.pinned.len(),
            used_bytes: self.used_bytes(),
            pinned_files: self.pinned.len(),
        }
    }

    pub(super) fn reserved_bytes(&self) -> u64 {
        self.reserved_bytes
    }

    fn used_bytes(&self) -> u64 {
        self.idle.weight() + self.pinned_bytes + self.reserved_bytes
    }

    /// Adds a file that was found on disk, as the most recently used.
    pub(super) fn add_idle(&mut self, file: LocalFile) {
        self.idle.insert(file, None, file.cost_bytes());
    }

    /// Pins a file, if it is there.
    pub(super) fn pin(&mut self, file: LocalFile, now: Instant) -> PinOutcome {
        if let Some(marked) = self.idle.remove(&file) {
            self.pinned_bytes += file.cost_bytes();
            self.pinned.insert(
                file,
                Pinned {
                    count: 0,
                    doomed: false,
                    marked,
                },
            );
        }
        let Some(pinned) = self.pinned.get_mut(&file).filter(|pinned| !pinned.doomed) else {
            return PinOutcome::Absent;
        };
        pinned.count += 1;
        let due = pinned
            .marked
            .is_none_or(|marked| now.duration_since(marked) >= MARK_INTERVAL);
        if !due {
            return PinOutcome::Pinned;
        }
        pinned.marked = Some(now);
        PinOutcome::PinnedAndDue
    }

    /// Ends a use. Whether the file has to be removed now.
    pub(super) fn unpin(&mut self, file: LocalFile) -> bool {
        let Some(pinned) = self.pinned.get_mut(&file) else {
            return false;
        };
        pinned.count = pinned.count.saturating_sub(1);
        if pinned.count > 0 {
            return false;
        }
        let (doomed, marked) = (pinned.doomed, pinned.marked);
        self.pinned.remove(&file);
        self.pinned_bytes -= file.cost_bytes();
        if !doomed {
            self.idle.insert(file, marked, file.cost_bytes());
        }
        doomed
    }

    /// Forgets a file, at once or after its last use. Whether it has to be removed now.
    pub(super) fn doom(&mut self, file: LocalFile) -> bool {
        if let Some(pinned) = self.pinned.get_mut(&file) {
            pinned.doomed = true;
        }
        self.idle.remove(&file).is_some()
    }

    /// Takes the least recently used file out, if files have to go to make room for `cost_bytes` more.
    pub(super) fn evict_for(&mut self, cost_bytes: u64) -> Option<LocalFile> {
        if self.has_room(cost_bytes) {
            return None;
        }
        self.evict()
    }

    pub(super) fn has_room(&self, cost_bytes: u64) -> bool {
        self.used_bytes().saturating_add(cost_bytes) <= self.capacity_bytes
    }

    /// Takes the least recently used file out.
    pub(super) fn evict(&mut self) -> Option<LocalFile> {
        self.idle.pop_oldest().map(|(file, _)| file)
    }

    pub(super) fn reserve(&mut self, cost_bytes: u64) {
        self.reserved_bytes += cost_bytes;
    }

    pub(super) fn release(&mut self, cost_bytes: u64) {
        self.reserved_bytes -= cost_bytes;
    }

    /// Adds a file that has just been put in place, pinned once.
    pub(super) fn add_pinned(&mut self, file: LocalFile, now: Instant) {
        self.idle.remove(&file);
        let pinned = self.pinned.entry(file).or_insert_with(|| {
            self.pinned_bytes += file.cost_bytes();
            Pinned {
                count: 0,
                doomed: false,
                marked: None,
            }
        });
        // A doomed file of that name has been replaced by this one.
        pinned.doomed = false;
        pinned.marked = Some(now);
        pinned.count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk_tier::local_file::Part;
    use regatta_model::Digest;

    fn file(name: &[u8]) -> LocalFile {
        LocalFile {
            part: Part(0),
            digest: Digest::of(name),
            executable: false,
        }
    }

    #[test]
    fn files_in_use_are_never_evicted_and_go_back_in_line_afterwards() {
        let now = Instant::now();
        let mut residents = Residents::new(2 * 4096);
        let (a, b) = (file(b"a"), file(b"b"));
        residents.add_idle(a);
        residents.add_idle(b);
        assert_eq!(residents.pin(a, now), PinOutcome::PinnedAndDue);
        assert_eq!(residents.pin(a, now), PinOutcome::Pinned);
        assert_eq!(residents.evict_for(4096), Some(b));
        assert_eq!(residents.evict_for(4096), None);
        assert!(!residents.has_room(4097));
        assert!(!residents.unpin(a));
        assert_eq!(residents.evict(), None);
        assert!(!residents.unpin(a));
        assert_eq!(residents.evict(), Some(a));
        assert_eq!(residents.usage(), DiskCacheUsage::default());
    }

    #[test]
    fn a_doomed_file_goes_with_its_last_user_unless_it_is_replaced() {
        let now = Instant::now();
        let mut residents = Residents::new(1 << 20);
        let a = file(b"a");
        residents.add_pinned(a, now);
        assert!(!residents.doom(a));
        assert_eq!(residents.pin(a, now), PinOutcome::Absent);
        assert!(residents.unpin(a));
        assert_eq!(residents.usage(), DiskCacheUsage::default());
        residents.add_pinned(a, now);
        residents.doom(a);
        residents.add_pinned(a, now);
        assert!(!residents.unpin(a));
        assert!(!residents.unpin(a));
        assert_eq!(residents.usage().files, 1);
        assert!(residents.doom(a));
    }
}
