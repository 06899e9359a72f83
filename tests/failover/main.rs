//! What the users of a set notice while its nodes fail: real clusters, real faults, steady load.
//!
//! Each test is an incident: break, assert, restore, assert. They run one at a time
//! (`--test-threads=1`), since they measure, and print what they measured.

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
