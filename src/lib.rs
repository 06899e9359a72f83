//! Pointsman

#[cfg(feature = "testkit")]
pub mod testkit;
