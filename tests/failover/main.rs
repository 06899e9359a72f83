//! Failures of nodes as a set's users see them: real clusters, real faults, steady load.
//!
//! Each test is an incident: break, assert, restore, assert. They run one at a time (`--test-threads=1`), because they
//! measure, and print their measurements.

mod cuts;
mod events;
mod histories;
mod lineage;
mod load;
mod many_programs;
mod network;
mod outage;
mod policy;
mod primary;
mod replicas;
mod resolve;
mod two_histories;
mod writes;
