//! Large files that change a little.

/// One part of a file in this many changes.
const CHANGED_SHARE: usize = 100;

/// Bytes that do not compress.
pub(crate) fn noise(length_bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    std::iter::repeat_with(next).take(length_bytes).collect()
}

/// The file with one percent of it replaced, in `places` that lie evenly apart. What stands there then is
/// somewhat longer, so that everything behind it moves.
pub(crate) fn edited(file: &[u8], places: usize, seed: u64) -> Vec<u8> {
    let changed_bytes = file.len() / CHANGED_SHARE / places;
    let apart_bytes = file.len() / places;
    let mut edited = Vec::with_capacity(file.len() + 100 * places);
    for (place, part) in file.chunks(apart_bytes).enumerate() {
        let at = part.len() / 3;
        let changed = noise(changed_bytes + 7, seed + place as u64);
        edited.extend_from_slice(&part[..at]);
        edited.extend_from_slice(&changed);
        edited.extend_from_slice(part.get(at + changed_bytes..).unwrap_or_default());
    }
    edited
}
