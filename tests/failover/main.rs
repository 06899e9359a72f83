//! Failures of nodes as a set's users see them: real clusters, real faults, steady load.
//!
//! Each test is an incident: break, assert, restore, assert; comments mark where it breaks and restores. They run one at a time (`--test-threads=1`), because they
//! measure, and print their measurements.

mod causality;
mod cuts;
mod events;
mod exactly_once;
mod fixture;
mod histories;
mod lineage;
mod load;
mod many_programs;
mod memory;
mod network;
mod outage;
#[cfg(target_os = "linux")]
mod patroni;
mod policy;
mod primary;
mod recorded;
mod replaced;
mod replicas;
mod resolve;
mod soak;
#[path = "../support/test_error.rs"]
mod test_error;
mod two_histories;
mod writes;
