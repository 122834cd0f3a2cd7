//! What must hold for whatever a user or a client writes: the bodies of the fuzz targets on the
//! coordinator's side, as `regatta_proto_fuzz` has those of what travels.
//!
//! Invariants:
//! - A target takes any bytes, and panics only where the product broke a promise.
//! - A target changes no file but those below a temporary directory of its own.

mod configuration;
mod path;

pub use configuration::configuration;
pub use path::path;
