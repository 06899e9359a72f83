//! Integration tests: one binary, with an area a module.

mod config;
mod logs;
mod migrate;
mod payments;
mod pool;
mod read_only;
mod replica_set;
mod support;
mod testkit;
mod tls;
mod transactions;
