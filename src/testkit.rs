//! Real PostgreSQL clusters with streaming replicas, and the faults to test against.
//!
//! What a program does while a replica hangs or a primary is replaced is decided by real servers,
//! and no mock knows their habits. A [`Cluster`] is a primary and its replicas in a folder of
//! their own, on free ports of 127.0.0.1, ready within seconds and gone with the test, however the
//! test ends. Each [`Server`] can be killed, paused, promoted, rewound and more; a [`Proxy`] in front
//! of it breaks the network.
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
//! - `Namespace` (on Linux, as root): an address that vanishes without a word.
//! - [`RollbackSet`]: a set whose work is rolled back at the end of a test.
//! - [`Load`]: steady reads and writes, and what their users noticed.
//! - [`TestkitError`]: what can go wrong, and what helps.
//!
//! The guarantee of tidying up has one limit: it is a small shell that does it, so whoever kills that
//! shell as well (`pointsman-watchdog` in `ps`) or the whole machine leaves a folder
//! `pointsman-*` in the folder for temporary files. The template that clusters are copied from stays
//! there on purpose, as `pointsman-templates-*`.

mod account;
mod builder;
mod cluster;
mod error;
mod identity;
mod load;
#[cfg(target_os = "linux")]
mod namespace;
mod ports;
mod processes;
mod programs;
mod proxy;
mod rollback;
mod server;
mod settings;
mod sql;
mod template;
mod wait;
mod watchdog;

pub use builder::ClusterBuilder;
pub use cluster::Cluster;
pub use error::{Result, TestkitError};
pub use load::{Load, Record, Sample, WriteOutcome};
#[cfg(target_os = "linux")]
pub use namespace::Namespace;
pub use proxy::Proxy;
pub use rollback::RollbackSet;
pub use server::{ExhaustedConnections, Server};

/// The superuser.
const ADMIN: &str = "postgres";
/// The role of the program under test, and its database.
const APP: &str = "app";
/// The first password of [`APP`]. It is no secret: the role can do nothing outside its database. And it
/// is unlike any other word, so that a test can look for it where no password may be.
const APP_PASSWORD: &str = "open-sesame";
/// What the server keeps of [`APP_PASSWORD`]: SCRAM with one iteration instead of 4096. In a debug build these
/// cost a client a tenth of a second for every connection, which would hide what a test measures.
const APP_VERIFIER: &str = "SCRAM-SHA-256$1:cG9pbnRzbWFuLWtpdC0xNg==$lGg8Eb18jK42sEaWdZ1J07rhZL9m1WsXQqTn705uBqc=:\
    OzTIgEguebPb1mit8bY7lfx6/ArhWPM3yPYT3OASoLQ=";
