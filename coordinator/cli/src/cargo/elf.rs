//! As much of ELF as it takes to know which shared libraries a file wants.
//!
//! Source: System V Application Binary Interface, chapters 4 and 5; 64-bit little-endian files alone.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What a file says to the dynamic linker.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DynamicSection {
    /// The sonames of the libraries it is linked with.
    pub needed: Vec<String>,
    /// Where to look for them first (`DT_RUNPATH`, or `DT_RPATH`), as written.
    pub run_path: Vec<String>,
}

/// Why a file tells nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReadElfError {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is no ELF file for a 64-bit little-endian machine.
    #[error("it is no 64-bit little-endian ELF file")]
    OtherFormat,
    /// It contradicts itself.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
}

/// Of an ELF file's header: the magic number, 64 bits, little-endian.
const IDENTIFICATION: [u8; 6] = [0x7f, b'E', b'L', b'F', 2, 1];
const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const DT_NULL: u64 = 0;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_STRSZ: u64 = 10;
const DT_RPATH: u64 = 15;
const DT_RUNPATH: u64 = 29;
const HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: usize = 56;
const DYNAMIC_ENTRY_BYTES: usize = 16;
/// More than any linker writes: a damaged length must not exhaust the memory.
const MOST_BYTES: u64 = 16 << 20;

/// A segment of the file.
#[derive(Clone, Copy, Debug)]
struct Segment {
    kind: u32,
    offset: u64,
    address: u64,
    file_bytes: u64,
}

/// Reads what `file` says to the dynamic linker; nothing if it is linked statically.
///
/// # Errors
/// It cannot be read, or is no ELF file of the supported kind.
pub fn read(file: &Path) -> Result<DynamicSection, ReadElfError> {
    let file = File::open(file)?;
    let segments = read_segments(&file)?;
    let Some(dynamic) = segments.iter().find(|segment| segment.kind == PT_DYNAMIC) else {
        return Ok(DynamicSection::default());
    };
    let entries = read_part(&file, dynamic.offset, dynamic.file_bytes)?;
    let entries: Vec<(u64, u64)> = entries
        .chunks_exact(DYNAMIC_ENTRY_BYTES)
        .map(|entry| (word(entry, 0), word(entry, 8)))
        .take_while(|(tag, _)| *tag != DT_NULL)
        .collect();
    let strings = read_strings(&file, &segments, &entries)?;
    let texts = |tag| {
        entries
            .iter()
            .filter(move |entry| entry.0 == tag)
            .map(|entry| text_at(&strings, entry.1))
            .collect::<Result<Vec<_>, _>>()
    };
    let mut run_path = texts(DT_RUNPATH)?;
    if run_path.is_empty() {
        run_path = texts(DT_RPATH)?;
    }
    Ok(DynamicSection {
        needed: texts(DT_NEEDED)?,
        run_path: run_path
            .iter()
            .flat_map(|paths| paths.split(':'))
            .filter(|path| !path.is_empty())
            .map(str::to_owned)
            .collect(),
    })
}

fn read_segments(file: &File) -> Result<Vec<Segment>, ReadElfError> {
    let mut header = [0; HEADER_BYTES];
    file.read_exact_at(&mut header, 0)
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => ReadElfError::OtherFormat,
            _ => ReadElfError::Io(error),
        })?;
    if header[..IDENTIFICATION.len()] != IDENTIFICATION {
        return Err(ReadElfError::OtherFormat);
    }
    let (offset, size, count) = (word(&header, 32), half(&header, 54), half(&header, 56));
    if usize::from(size) != PROGRAM_HEADER_BYTES {
        return Err(ReadElfError::Damaged(
            "its program headers have an odd size",
        ));
    }
    let headers = read_part(file, offset, u64::from(size) * u64::from(count))?;
    Ok(headers
        .chunks_exact(PROGRAM_HEADER_BYTES)
        .map(|header| Segment {
            kind: u32::from(half(header, 0)) | u32::from(half(header, 2)) << 16,
            offset: word(header, 8),
            address: word(header, 16),
            file_bytes: word(header, 32),
        })
        .collect())
}

/// The string table, which the dynamic section names by its address in memory.
fn read_strings(
    file: &File,
    segments: &[Segment],
    entries: &[(u64, u64)],
) -> Result<Vec<u8>, ReadElfError> {
    let value = |tag| {
        entries
            .iter()
            .find(|entry| entry.0 == tag)
            .map(|entry| entry.1)
    };
    let (Some(address), Some(size)) = (value(DT_STRTAB), value(DT_STRSZ)) else {
        return Err(ReadElfError::Damaged("its dynamic section has no strings"));
    };
    let offset = segments
        .iter()
        .filter(|segment| segment.kind == PT_LOAD)
        .find_map(|segment| {
            let within = address.checked_sub(segment.address)?;
            (within < segment.file_bytes).then(|| segment.offset.checked_add(within))?
        })
        .ok_or(ReadElfError::Damaged("its strings are in no segment"))?;
    read_part(file, offset, size)
}

fn read_part(file: &File, offset: u64, length: u64) -> Result<Vec<u8>, ReadElfError> {
    let length = usize::try_from(length.min(MOST_BYTES))
        .map_err(|_| ReadElfError::Damaged("a part of it is too long"))?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, offset)
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => ReadElfError::Damaged("it ends too early"),
            _ => ReadElfError::Io(error),
        })?;
    Ok(bytes)
}

fn text_at(strings: &[u8], offset: u64) -> Result<String, ReadElfError> {
    let tail = usize::try_from(offset)
        .ok()
        .and_then(|offset| strings.get(offset..));
    let tail = tail.ok_or(ReadElfError::Damaged("a name is beyond its strings"))?;
    let text = tail.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(text).into_owned())
}

/// The two bytes at `offset`; 0 beyond the end.
fn half(bytes: &[u8], offset: usize) -> u16 {
    bytes
        .get(offset..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |bytes| u16::from_le_bytes(*bytes))
}

/// The eight bytes at `offset`; 0 beyond the end.
fn word(bytes: &[u8], offset: usize) -> u64 {
    bytes
        .get(offset..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_very_test_binary_names_its_libraries() {
        let binary = std::env::current_exe().expect("it runs");
        let section = read(&binary).expect("it is an ELF file");
        if !section.needed.is_empty() {
            assert!(
                section.needed.iter().any(|name| name.starts_with("libc.")),
                "{section:?}"
            );
        }
    }

    #[test]
    fn what_is_no_elf_file_is_refused() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("x");
        std::fs::write(&file, "#!/bin/sh\n").expect("written");
        assert!(matches!(read(&file), Err(ReadElfError::OtherFormat)));
    }

    #[test]
    fn a_file_cut_anywhere_is_an_error_and_no_panic() {
        let binary = std::env::current_exe().expect("it runs");
        let mut bytes = vec![0; 4096];
        let read_bytes = File::open(binary)
            .expect("it is there")
            .read_at(&mut bytes, 0);
        bytes.truncate(read_bytes.expect("it can be read"));
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("x");
        for length in (0..bytes.len()).step_by(7) {
            std::fs::write(&file, &bytes[..length]).expect("written");
            assert!(read(&file).is_err(), "{length} bytes");
        }
    }
}
