//! Reads that see the writes before them, on any replica.
//!
//! * [`Session`]: carries the highest position that was written and read through it
//!
//! [`CausalToken`](crate::CausalToken) is what a session has seen, for other programs and later requests.

pub use self::session::Session;

mod session;
