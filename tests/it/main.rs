//! Integration tests: one binary, with an area a module.

mod config;
mod replica_set;
mod support;
mod testkit;
