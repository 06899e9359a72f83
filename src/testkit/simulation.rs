//! A whole set in one thread, against simulated servers.
//!
//! A [`Network`] replaces the sockets of a set, and paused time the clock. So a simulation of a minute takes
//! milliseconds, and one seed gives one order of events.

use std::sync::Arc;

use crate::config::Config;
pub use crate::config::network::{Connecting, Network, NetworkStream};
pub use crate::defect::Defect;

/// Returns a configuration whose nodes are reached over a network in memory.
///
/// Each connection goes over it, also that of a cancel request. A host name is not resolved.
///
/// ```
/// use std::io;
/// use std::sync::Arc;
/// use pointsman::testkit::simulation::{Connecting, Network, over};
/// use pointsman::{Config, ReplicaSet};
///
/// /// A network without servers.
/// struct Empty;
///
/// impl Network for Empty {
///     fn connect<'n>(&'n self, _host: &'n str, _port: u16) -> Connecting<'n> {
///         Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) })
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), pointsman::Error> {
/// let config = Config::builder().primary("postgres://app@a/app").build()?;
/// let set = ReplicaSet::connect(over(config, Arc::new(Empty))).await?;
/// assert!(set.topology().node("a:5432").is_some_and(|node| !node.serves_reads));
/// # Ok(()) }
/// ```
#[must_use]
pub fn over(config: Config, network: Arc<dyn Network>) -> Config {
    config.over(&network)
}

/// Plants a defect in the sets that run in this thread, or removes it.
///
/// A simulation should find it. That shows that the simulation can fail.
///
/// ```
/// use pointsman::testkit::simulation::{Defect, seed_defect};
///
/// seed_defect(Some(Defect::NoFence));
/// // … a simulation, which should report a violation …
/// seed_defect(None);
/// ```
pub fn seed_defect(defect: Option<Defect>) {
    Defect::seed(defect);
}
