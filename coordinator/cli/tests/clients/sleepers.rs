//! Actions that a test finds among this machine's processes.

/// Whether a `sleep` of so many seconds runs on this machine, in whatever container. A test that starts
/// one has a number of its own.
pub(crate) fn sleeps(seconds: &str) -> bool {
    let wanted = format!("sleep\0{seconds}\0");
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    let mut lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.any(|line| line == wanted.as_bytes())
}
