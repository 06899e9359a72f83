//! Pointsman

pub mod backoff;
pub mod config;
