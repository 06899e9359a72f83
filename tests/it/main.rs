//! Integration tests: one binary, with an area a module.

#![expect(clippy::unwrap_used, reason = "a test that panics is a test that fails, and says where")]

mod aliases;
mod borrowed;
mod cancel;
mod causality;
mod cli;
mod config;
mod conflicts;
mod diagnoses;
mod ended_sessions;
mod evidence;
mod exactly_once;
mod given_up;
mod lag;
mod listen;
mod logs;
mod migrate;
mod options;
mod overload;
mod past_both_layers;
mod payments;
mod pool;
mod poolers;
mod probes;
mod proofs;
mod read_only;
mod reconfigure;
mod replay;
mod replica_set;
mod returns;
mod run_read;
mod runtimes;
mod service;
mod session_checks;
mod session_settings;
mod session_state;
mod statements;
mod support;
mod synchronous_commits;
mod testkit;
mod tls;
mod transactions;
