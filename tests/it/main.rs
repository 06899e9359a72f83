//! Integration tests: one binary, with an area a module.

mod config;
mod migrate;
mod payments;
mod replica_set;
mod support;
mod testkit;
