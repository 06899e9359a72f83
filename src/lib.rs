//! Pointsman
