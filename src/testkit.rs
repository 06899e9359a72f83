//! Real PostgreSQL clusters with streaming replicas, and faults to test against.
//!
//! A mock does not hang, fail over or lose its WAL as a real server does, so the tests use real servers. A [`Cluster`]
//! is a primary with its replicas, in a separate folder, on free ports of 127.0.0.1. It starts within seconds and is
//! removed with the test, however the test ends. Each [`Server`] can be killed, paused, promoted, rewound and more. A
//! [`Proxy`] in front of a server breaks the network.
//!
//! ```
//! use pointsman::testkit::Cluster;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let cluster = Cluster::builder().replicas(1).start().await?;
//! cluster.primary().execute("CREATE TABLE train (number int); INSERT INTO train VALUES (12)").await?;
//! cluster.wait_caught_up().await?;
//! assert_eq!(cluster.replica(0).query_value("SELECT number FROM train").await?, "12");
//!
//! // The primary is lost, and the replica takes over.
//! cluster.primary().kill().await?;
//! cluster.replica(0).promote().await?;
//! cluster.replica(0).execute("INSERT INTO train VALUES (13)").await?;
//! # Ok(()) }
//! ```
//!
//! - [`Cluster`], [`ClusterBuilder`]: start servers, ask who is the primary, wait for the replicas.
//! - [`Server`]: one server with its URLs, SQL for administration and its faults.
//! - [`Proxy`]: a connection that refuses, resets, stalls, is slow or breaks in the middle of a reply.
//! - `NetworkNamespace` (on Linux, as root): an address that stops answering, as a lost machine does.
//! - `ProgramFolder` (on Linux): programs of other projects, such as a pooler, that end with the test.
//! - [`RollbackSet`]: a set whose work is rolled back at the end of a test.
//! - [`Load`]: steady reads and writes, and what their users noticed.
//! - [`ignore_causal_tokens`]: breaks a set on purpose, to show that a test can fail.
//! - [`always_ask`]: lets each read with a causal token ask its replica, to measure what that costs.
//! - [`simulation`]: a network in memory instead of sockets, for simulated servers.
//! - [`wait`]: waits for a condition of a set, with an error that names it.
//! - [`TestkitError`]: the errors, each with a remedy.
//!
//! A small shell tidies up (`pointsman-watchdog` in `ps`), and that is the limit of the guarantee. If the shell is
//! killed too, or the machine fails, a folder `pointsman-*` stays in the folder for temporary files. The template that
//! clusters are copied from stays there on purpose, as `pointsman-templates-*`.

mod builder;
mod cluster;
mod error;
mod identity;
mod load;
#[cfg(target_os = "linux")]
mod network_namespace;
mod os_user;
mod poll;
mod ports;
mod processes;
#[cfg(target_os = "linux")]
mod program_folder;
mod programs;
mod proxy;
mod rollback;
mod server;
mod settings;
pub mod simulation;
mod sql;
mod template;
pub mod wait;
mod watchdog;

pub use builder::ClusterBuilder;
pub use cluster::Cluster;
pub use error::{Result, TestkitError};
pub use load::{Effects, Load, LoadReport, Sample, WriteOutcome};
#[cfg(target_os = "linux")]
pub use network_namespace::NetworkNamespace;
#[cfg(target_os = "linux")]
pub use program_folder::ProgramFolder;
pub use proxy::Proxy;
pub use rollback::RollbackSet;
pub use server::{ExhaustedConnections, Server};

use crate::{ReadOptions, ReplicaSet};

/// Lets all reads of a set ignore causal tokens from now on.
///
/// A test of causality should fail then. It shows that the test can fail.
///
/// ```no_run
/// # fn example(set: pointsman::ReplicaSet) {
/// pointsman::testkit::ignore_causal_tokens(&set);
/// # }
/// ```
pub fn ignore_causal_tokens(set: &ReplicaSet) {
    set.ignore_tokens();
}

/// Lets a read with a causal token ask its replica even for a known position.
///
/// A set usually knows that a replica is far enough, and then asks nothing. So the cost of a question shows in few
/// reads, and a benchmark needs it in all.
///
/// ```
/// # use pointsman::{CausalToken, ReadOptions};
/// # fn example(token: CausalToken) -> ReadOptions {
/// pointsman::testkit::always_ask(ReadOptions::new().after(&token))
/// # }
/// ```
pub const fn always_ask(mut options: ReadOptions) -> ReadOptions {
    options.always_asks = true;
    options
}

/// The superuser.
const ADMIN: &str = "postgres";
/// The role of the program under test, and its database.
const APP: &str = "app";
/// The first password of [`APP`].
///
/// It is no secret: the role can do nothing outside its database. The word is unlike any other, so that a test can
/// search for it in places that must not contain a password.
const APP_PASSWORD: &str = "open-sesame";
/// The server's verifier of [`APP_PASSWORD`]: SCRAM with one iteration, not 4096.
///
/// In a debug build, 4096 iterations cost a client a tenth of a second per connection, which would distort
/// measurements.
const APP_VERIFIER: &str = "SCRAM-SHA-256$1:cG9pbnRzbWFuLWtpdC0xNg==$lGg8Eb18jK42sEaWdZ1J07rhZL9m1WsXQqTn705uBqc=:\
    OzTIgEguebPb1mit8bY7lfx6/ArhWPM3yPYT3OASoLQ=";
