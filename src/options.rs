//! Options of one call: what it asks for beyond the configuration.
//!
//! * [`ReadOptions`]: for [`read_with`](crate::ReplicaSet::read_with) and [`run_read_with`](crate::ReplicaSet::run_read_with)
//! * [`WriteOptions`]: for [`write_with`](crate::ReplicaSet::write_with) and [`run_write_with`](crate::ReplicaSet::run_write_with)
//!
//! The configuration gives the default of each option, so that a call states only what is different about it.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Fallback;

/// Longest wait that an option can ask for; more counts as this, so that no deadline lies past the end of the clock.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// Describes one read: how long it may wait, and which nodes may serve it.
///
/// ```
/// use std::time::Duration;
/// use pointsman::prelude::*;
/// use pointsman::{CheckoutError, ReadOptions, ReplicaSet};
///
/// /// The page after a login: better a few rows too old than a second of waiting.
/// async fn page(set: &ReplicaSet) -> Result<Conn<Read>, CheckoutError> {
///     let options = ReadOptions::new().prefer_primary().within(Duration::from_millis(300));
///     set.read_with(&options).await
/// }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "options do nothing until `read_with` or `run_read_with`"]
pub struct ReadOptions {
    pub(crate) within: Option<Duration>,
    pub(crate) prefer_primary: bool,
    pub(crate) fallback: Option<Fallback>,
    pub(crate) max_lag: Option<Duration>,
    pub(crate) zone: Option<Arc<str>>,
}

impl ReadOptions {
    /// Makes options that leave everything to the configuration.
    pub const fn new() -> Self {
        Self { within: None, prefer_primary: false, fallback: None, max_lag: None, zone: None }
    }

    /// Limits the wait for connections in this call, in place of `timeouts.checkout`.
    ///
    /// It is one limit for the whole call. [`run_read_with`](crate::ReplicaSet::run_read_with) starts no run after it, neither
    /// a repeat nor a second try of a slow read. A run that has started is not cut short: to bound that as well, put
    /// `tokio::time::timeout` around the call. [`Duration::ZERO`] takes an idle connection or fails; more than a day
    /// counts as a day.
    pub const fn within(mut self, limit: Duration) -> Self {
        self.within = Some(clamped(limit));
        self
    }

    /// Asks the primary first, and replicas if it cannot serve at once.
    ///
    /// It is for reads that had rather be fresh, such as a page after a login. It is a preference and no guarantee: to be sure
    /// to see your own write, read on the `Conn<Write>` that made it ([`as_read`](crate::Conn::as_read)).
    ///
    /// Preferred reads take places under `reads.max_fallback`, together with the reads that fall back to the primary, so that
    /// the two never overload it. A read is served as any other, by a replica if one is fit,
    ///
    /// * when all places are taken, or the primary is just back and has its share (`reads.slow_start`);
    /// * when there is no primary, it is in doubt, or its pool has no connection within 100 ms;
    /// * under [`Fallback::Never`], which keeps all reads off the primary.
    ///
    /// In `run_read_with` it holds for each run, except that a second try of a slow read goes to replicas first.
    pub const fn prefer_primary(mut self) -> Self {
        self.prefer_primary = true;
        self
    }

    /// Sets whether the primary may serve this read, in place of `reads.fallback`.
    ///
    /// A report that must never cost the primary anything asks for [`Fallback::Never`]. The limit `reads.max_fallback` holds
    /// whatever the call asks for, except under [`Fallback::Always`], where the primary serves as a replica does. A set of one
    /// node serves all reads from it.
    pub const fn fallback(mut self, fallback: Fallback) -> Self {
        self.fallback = Some(fallback);
        self
    }

    /// Sets how far behind in time a replica may be to serve this read, in place of `reads.max_lag`.
    ///
    /// The age of the last probe counts as lag, so that with less than about twice `probe.interval` no replica is fresh
    /// enough, and the read falls back to the primary. As with the setting, while there is no primary a replica serves
    /// whatever its lag, since nothing fresher is known. `reads.max_lag_bytes` holds as well.
    pub const fn max_lag(mut self, max_lag: Duration) -> Self {
        self.max_lag = Some(max_lag);
        self
    }

    /// Prefers nodes of a zone for this read, in place of the program's own zone.
    ///
    /// As with the setting, a zone without a fit node keeps no read from the nodes of others.
    pub fn zone(mut self, zone: impl Into<Arc<str>>) -> Self {
        self.zone = Some(zone.into());
        self
    }
}

/// Describes one write: how long it may wait, and how its transaction runs.
///
/// ```
/// use std::time::Duration;
/// use pointsman::WriteOptions;
///
/// let options = WriteOptions::new().serializable().resolvable().within(Duration::from_secs(2));
/// # let _ = options;
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[must_use = "options do nothing until `write_with` or `run_write_with`"]
pub struct WriteOptions {
    pub(crate) isolation: Option<&'static str>,
    pub(crate) resolvable: bool,
    pub(crate) within: Option<Duration>,
    pub(crate) no_wait: bool,
}

impl WriteOptions {
    /// Makes options with PostgreSQL's default isolation, and waits as the configuration says.
    pub const fn new() -> Self {
        Self { isolation: None, resolvable: false, within: None, no_wait: false }
    }

    /// Lets all statements see what was committed before the first of them.
    ///
    /// It describes a transaction, so [`write_with`](crate::ReplicaSet::write_with) does not use it.
    pub const fn repeatable_read(mut self) -> Self {
        self.isolation = Some("REPEATABLE READ");
        self
    }

    /// Makes the transaction behave as if it ran alone, or run again.
    ///
    /// It describes a transaction, so [`write_with`](crate::ReplicaSet::write_with) does not use it.
    pub const fn serializable(mut self) -> Self {
        self.isolation = Some("SERIALIZABLE");
        self
    }

    /// Notes the transaction's id before the COMMIT, for one more round trip, so that
    /// [`ReplicaSet::settle`](crate::ReplicaSet::settle) can find out whether it was carried out if the answer never comes.
    ///
    /// It describes a transaction, so [`write_with`](crate::ReplicaSet::write_with) does not use it.
    pub const fn resolvable(mut self) -> Self {
        self.resolvable = true;
        self
    }

    /// Limits the wait for connections in this call, in place of `writes.failover_wait` and `timeouts.checkout`.
    ///
    /// It is one limit for the whole call: waiting for a primary, for one of its connections, and before a transaction
    /// that conflicted is run again. [`run_write_with`](crate::ReplicaSet::run_write_with) starts no run after it. A transaction
    /// that has started is not cut short. [`Duration::ZERO`] takes an idle connection or fails; more than a day counts
    /// as a day.
    pub const fn within(mut self, limit: Duration) -> Self {
        self.within = Some(clamped(limit));
        self
    }

    /// Waits neither for a primary nor for other callers.
    ///
    /// While there is no primary, the call fails at once, and takes no place under `writes.max_waiters`. So it does with
    /// [`Exhausted`](crate::CheckoutError::Exhausted) when all connections of the primary are in use. It takes an idle
    /// connection, or else opens one, for which [`within`](Self::within) or `timeouts.checkout` is the limit.
    /// `run_write_with` still pauses before it runs a transaction again that conflicted.
    pub const fn no_wait(mut self) -> Self {
        self.no_wait = true;
        self
    }
}

const fn clamped(limit: Duration) -> Duration {
    if limit.as_nanos() > LONGEST_WAIT.as_nanos() { LONGEST_WAIT } else { limit }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_past_the_end_of_the_clock_is_cut() {
        assert_eq!(ReadOptions::new().within(Duration::MAX).within, Some(LONGEST_WAIT));
        assert_eq!(WriteOptions::new().within(Duration::MAX).within, Some(LONGEST_WAIT));
        assert_eq!(ReadOptions::new().within(Duration::ZERO).within, Some(Duration::ZERO));
    }

    #[test]
    fn the_default_is_what_new_makes() {
        assert_eq!(ReadOptions::default(), ReadOptions::new());
        assert_eq!(WriteOptions::default(), WriteOptions::new());
    }
}
