//! What must hold for whatever a peer sends: the bodies of the fuzz targets, and the replay of their
//! corpora.
//!
//! `cargo xtask fuzz` feeds these functions with libFuzzer's inputs; the tests feed them with the corpora
//! that it left behind and with generated ones.
//!
//! Invariants:
//! - A target takes any bytes, and panics only where the product broke a promise.
//! - A target touches no network and no clock, so that an input does the same each time.
//! - libFuzzer is compiled only under `cfg(fuzzing)`, which `cargo fuzz` sets: in every other build the
//!   targets are plain programs that replay files.

mod compression;
mod replay;
mod resource_name;
mod tree;

pub use compression::compression;
pub use replay::{check_corpus, replay_arguments, replay_corpus};
pub use resource_name::resource_name;
pub use tree::tree;

/// For [`fuzz_target!`].
#[cfg(fuzzing)]
pub use libfuzzer_sys;

/// The body of a program that is a fuzz target: libFuzzer's entry point when fuzzing, else a `main` that
/// replays the files on its command line.
#[macro_export]
macro_rules! fuzz_target {
    ($target:path) => {
        #[cfg(fuzzing)]
        $crate::libfuzzer_sys::fuzz_target!(|data: &[u8]| $target(data));

        #[cfg(not(fuzzing))]
        fn main() -> std::io::Result<()> {
            $crate::replay_arguments($target)
        }
    };
}
