//! Reads that see the writes before them, on any replica.
//!
//! * [`Session`]: carries the highest position that was written and read through it
//! * `layer`: opens a session for each request of a tower service (feature `tower`)
//!
//! [`CausalToken`](crate::CausalToken) is what a session has seen, for other programs and later requests.

pub use self::session::Session;

#[cfg(feature = "tower")]
pub(crate) mod layer;
mod session;
