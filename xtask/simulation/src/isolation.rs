//! Shuts this machine out: its clock and its random numbers are the simulation's.
//!
//! What is simulated asks the C library for the time and for random numbers, through the standard library: for
//! the order of hash maps, the choices of `select!`, the names of runs. The two functions below take the place
//! of the library's own in this program, as they would in any that defines them, so that a seed decides about
//! all of that, too.

#![expect(
    unsafe_code,
    reason = "functions of the C library are replaced, which have its signatures"
)]

use std::ffi::{c_int, c_uint, c_void};
use std::sync::atomic::{AtomicU64, Ordering};

/// The time of day, in nanoseconds since 1970; the machine's own as long as it is 0.
static TIME_NANOS: AtomicU64 = AtomicU64::new(0);
/// What clocks show that nobody sets, in nanoseconds.
static STEADY_NANOS: AtomicU64 = AtomicU64::new(0);
/// The state of a SplitMix64 (Steele, Lea and Flood, 2014).
static RANDOM: AtomicU64 = AtomicU64::new(0);
/// What its state grows by with each number.
const STRIDE: u64 = 0x9e37_79b9_7f4a_7c15;

/// Lets the random numbers of this process follow from a seed. Threads that have made a hash map keep its order.
pub(crate) fn seed_random_numbers(seed: u64) {
    RANDOM.store(seed, Ordering::Relaxed);
}

/// Sets the clocks, in nanoseconds: that of the day, since 1970, and those that nobody sets. They stand still until they
/// are set again.
pub(crate) fn set_clocks(day: u64, steady: u64) {
    TIME_NANOS.store(day.max(1), Ordering::Relaxed);
    STEADY_NANOS.store(steady, Ordering::Relaxed);
}

fn random_number() -> u64 {
    let mut mixed = RANDOM
        .fetch_add(STRIDE, Ordering::Relaxed)
        .wrapping_add(STRIDE);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// `getrandom(2)`, as the C library has it.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut c_void, length: usize, _flags: c_uint) -> isize {
    // SAFETY: whoever calls it gives a buffer of that length, as the C library's own function asks.
    let buffer = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<u8>(), length) };
    for piece in buffer.chunks_mut(8) {
        piece.copy_from_slice(&random_number().to_le_bytes()[..piece.len()]);
    }
    length.cast_signed()
}

/// `clock_gettime(2)`, as the C library has it; every clock but that of the day shows the same.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: c_int, time: *mut libc::timespec) -> c_int {
    let day = TIME_NANOS.load(Ordering::Relaxed);
    if day == 0 {
        // SAFETY: the arguments are those of the system call, and whoever calls this has vouched for them.
        let result = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) };
        return if result == 0 { 0 } else { -1 };
    }
    let nanos = match clock == libc::CLOCK_REALTIME {
        true => day,
        false => STEADY_NANOS.load(Ordering::Relaxed),
    };
    let part = |nanos: u64| i64::try_from(nanos).unwrap_or(i64::MAX);
    let shown = libc::timespec {
        tv_sec: part(nanos / 1_000_000_000),
        tv_nsec: part(nanos % 1_000_000_000),
    };
    // SAFETY: whoever calls it gives a place for the time, as the C library's own function asks.
    unsafe { time.write(shown) };
    0
}
