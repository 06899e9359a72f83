//! Integration tests: one binary, with an area a module.

mod cli;
mod config;
mod migrate;
mod payments;
mod replay;
mod replica_set;
mod service;
mod support;
mod testkit;
