//! Options of one call, which override the configuration.
//!
//! * [`ReadOptions`]: for [`read_with`](crate::ReplicaSet::read_with) and
//!   [`run_read_with`](crate::ReplicaSet::run_read_with)
//! * [`WriteOptions`]: for [`write_with`](crate::ReplicaSet::write_with) and
//!   [`run_write_with`](crate::ReplicaSet::run_write_with)
//!
//! * `mode`: the isolation level and the access mode of a transaction
//!
//! The configuration has the default of each option, so that a call states only its differences.

use std::sync::Arc;
use std::time::Duration;

pub(crate) use self::mode::{AccessMode, IsolationLevel, TransactionMode};
use crate::config::Fallback;
use crate::lsn::SharedLog;
use crate::token::CausalToken;

mod mode;

/// Longest wait of an option.
///
/// A longer one is cut to this, so that no deadline exceeds the clock.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// Options of one read: its time limit, and the nodes that may serve it.
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
    pub(crate) after: Option<CausalToken>,
    pub(crate) causal_wait: Option<Duration>,
    /// The record of the positions of what is read.
    pub(crate) log: SharedLog,
    /// `true` if no replica is known to be far enough, which benchmarks need.
    #[cfg(feature = "testkit")]
    pub(crate) always_asks: bool,
}

impl ReadOptions {
    /// Creates options that change nothing in the configuration.
    pub const fn new() -> Self {
        Self {
            within: None,
            prefer_primary: false,
            fallback: None,
            max_lag: None,
            zone: None,
            after: None,
            causal_wait: None,
            log: SharedLog::none(),
            #[cfg(feature = "testkit")]
            always_asks: false,
        }
    }

    /// Returns `true` if no replica counts as far enough (`testkit::always_ask`).
    #[cfg(feature = "testkit")]
    pub(crate) const fn always_asks(&self) -> bool {
        self.always_asks
    }

    #[cfg(not(feature = "testkit"))]
    #[expect(clippy::unused_self, reason = "the test kit's variant reads the options")]
    pub(crate) const fn always_asks(&self) -> bool {
        false
    }

    /// Limits the wait for connections in this call, instead of `timeouts.checkout`.
    ///
    /// It is one limit for the whole call. [`run_read_with`](crate::ReplicaSet::run_read_with) starts no run after it,
    /// neither a repeat nor a hedge. A run that has started is not interrupted; to limit that as well, put
    /// `tokio::time::timeout` around the call. [`Duration::ZERO`] takes an idle connection or fails. More than a day
    /// counts as a day.
    pub const fn within(mut self, limit: Duration) -> Self {
        self.within = Some(clamped(limit));
        self
    }

    /// Asks the primary first, and replicas if it cannot serve at once.
    ///
    /// It is for reads that should be fresh, such as a page after a login. It is a preference and no guarantee. To be
    /// sure to see the call's own write, read on the `Conn<Write>` that made it ([`as_read`](crate::Conn::as_read)).
    ///
    /// Preferred reads take permits of `reads.max_fallback`, together with the reads that fall back to the primary, so
    /// that the two never overload it. A preferred read is served as any other, by a replica if one is fit,
    ///
    /// * if all permits are taken, or the primary is just up again and has its share (`reads.slow_start`);
    /// * if there is no primary, its state is uncertain, or its pool has no connection within 100 ms;
    /// * under [`Fallback::Never`], which keeps all reads off the primary.
    ///
    /// In `run_read_with` it applies to each run, but a hedge goes to replicas first.
    pub const fn prefer_primary(mut self) -> Self {
        self.prefer_primary = true;
        self
    }

    /// Sets if the primary may serve this read, instead of `reads.fallback`.
    ///
    /// A report that must never load the primary uses [`Fallback::Never`]. The limit `reads.max_fallback` applies to
    /// every call, except under [`Fallback::Always`], with which the primary serves as a replica does. In a set of one
    /// node, this node serves all reads.
    pub const fn fallback(mut self, fallback: Fallback) -> Self {
        self.fallback = Some(fallback);
        self
    }

    /// Sets the maximum lag of a replica for this read, instead of `reads.max_lag`.
    ///
    /// The age of the last probe counts as lag. So with less than about twice `probe.interval` no replica is fresh
    /// enough, and the read falls back to the primary. As with the setting, while there is no primary a replica serves
    /// with any lag, because no fresher node is known. `reads.max_lag_bytes` applies as well.
    pub const fn max_lag(mut self, max_lag: Duration) -> Self {
        self.max_lag = Some(max_lag);
        self
    }

    /// Requires that the read sees everything that a token covers, on any node.
    ///
    /// A replica that is known to be that far serves at no cost. Otherwise a replica is asked for its position in the
    /// same flight as the read, then there is a short wait for the first replica to get there
    /// ([`causal_wait`](Self::causal_wait)), and then the primary serves, within `reads.max_fallback`. The lag of a
    /// replica does not matter then, unless [`max_lag`](Self::max_lag) is set as well.
    ///
    /// [`Session`](crate::Session) does this by itself.
    ///
    /// ```
    /// use pointsman::prelude::*;
    /// use pointsman::{CausalToken, CheckoutError, ReadOptions, ReplicaSet};
    ///
    /// async fn read_after(set: &ReplicaSet, token: &CausalToken) -> Result<Conn<Read>, CheckoutError> {
    ///     set.read_with(&ReadOptions::new().after(token)).await
    /// }
    /// ```
    pub const fn after(mut self, token: &CausalToken) -> Self {
        self.after = Some(*token);
        self
    }

    /// Limits the wait for a replica to reach the token's position.
    ///
    /// It replaces `reads.causal_wait`.
    ///
    /// After it, the primary serves. [`Duration::ZERO`] does not wait. Without [`after`](Self::after) it has no effect.
    pub const fn causal_wait(mut self, limit: Duration) -> Self {
        self.causal_wait = Some(clamped(limit));
        self
    }

    /// Prefers nodes of a zone for this read, instead of the program's own zone.
    ///
    /// As with the setting, if the zone has no fit node, nodes of other zones serve the read.
    pub fn zone(mut self, zone: impl Into<Arc<str>>) -> Self {
        self.zone = Some(zone.into());
        self
    }
}

/// Options of one write: its time limit, and the mode of its transaction.
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
    pub(crate) isolation: Option<IsolationLevel>,
    resolvable: bool,
    pub(crate) exactly_once: bool,
    pub(crate) within: Option<Duration>,
    pub(crate) no_wait: bool,
}

impl WriteOptions {
    /// Creates options with the default isolation and the configured time limits.
    pub const fn new() -> Self {
        Self { isolation: None, resolvable: false, exactly_once: false, within: None, no_wait: false }
    }

    /// Sets the level at which all statements see one snapshot.
    ///
    /// They see what was committed before the first of them.
    ///
    /// It is for a transaction, so [`write_with`](crate::ReplicaSet::write_with) ignores it.
    pub const fn repeatable_read(mut self) -> Self {
        self.isolation = Some(IsolationLevel::RepeatableRead);
        self
    }

    /// Sets the level at which the transaction acts as if alone, or runs again.
    ///
    /// It is for a transaction, so [`write_with`](crate::ReplicaSet::write_with) ignores it.
    pub const fn serializable(mut self) -> Self {
        self.isolation = Some(IsolationLevel::Serializable);
        self
    }

    /// Records the transaction's id before the COMMIT.
    ///
    /// If the answer to the COMMIT never arrives, [`ReplicaSet::resolve`](crate::ReplicaSet::resolve) can then find out
    /// if the transaction was committed. [`exactly_once`](Self::exactly_once) does that by itself.
    ///
    /// The id comes in the flight of the transaction's statements, so it costs no round trip. It costs one if the last
    /// statement is not a `SELECT`, `INSERT`, `UPDATE`, `DELETE`, `MERGE`, `WITH` or `VALUES`, or if the transaction
    /// changes settings of its session.
    ///
    /// It is for a transaction, so [`write_with`](crate::ReplicaSet::write_with) ignores it.
    pub const fn resolvable(mut self) -> Self {
        self.resolvable = true;
        self
    }

    /// Resolves a COMMIT without an answer, for exactly one effect.
    ///
    /// [`run_write_with`](crate::ReplicaSet::run_write_with) then asks the primary that there is, after a failover the
    /// new one. The caller gets the function's value if the transaction was committed. If it was not, the transaction
    /// runs again. The error is [`OutcomeUnknown`](crate::OutcomeUnknown) only if the answer cannot be determined: the
    /// [guide](crate::guide::failover) lists these cases. A value is returned only after the present primary has waited
    /// for its synchronous standbys, if it has any.
    ///
    /// It costs what [`resolvable`](Self::resolvable) costs, which it includes. The transaction's id identifies its
    /// effect on the database alone. A notification (`NOTIFY`) of a transaction that writes nothing may be sent twice.
    ///
    /// It is for a transaction, so [`write_with`](crate::ReplicaSet::write_with) ignores it.
    ///
    /// ```no_run
    /// use pointsman::prelude::*;
    /// use pointsman::{Error, ReplicaSet, WriteOptions};
    ///
    /// diesel::table! { accounts (id) { id -> Integer, balance -> BigInt, } }
    ///
    /// async fn deposit(set: &ReplicaSet, id: i32, amount: i64) -> Result<usize, Error> {
    ///     set.run_write_with(&WriteOptions::new().exactly_once(), async |tx| {
    ///         let balance = accounts::balance.eq(accounts::balance + amount);
    ///         Ok(diesel::update(accounts::table.find(id)).set(balance).execute(tx).await?)
    ///     })
    ///     .await
    /// }
    /// ```
    pub const fn exactly_once(mut self) -> Self {
        self.exactly_once = true;
        self
    }

    /// Returns `true` if the transaction's id is recorded before the COMMIT.
    pub(crate) const fn is_noted(&self) -> bool {
        self.resolvable || self.exactly_once
    }

    /// Limits all waiting in this call.
    ///
    /// It replaces `writes.failover_wait` and `timeouts.checkout`.
    ///
    /// It is one limit for the whole call. It covers the wait for a primary, for one of its connections, and before a
    /// transaction runs again after a conflict. [`run_write_with`](crate::ReplicaSet::run_write_with) starts no run
    /// after it. A transaction that has started is not interrupted. [`Duration::ZERO`] takes an idle connection or
    /// fails. More than a day counts as a day.
    pub const fn within(mut self, limit: Duration) -> Self {
        self.within = Some(clamped(limit));
        self
    }

    /// Waits neither for a primary nor for other callers.
    ///
    /// While there is no primary, the call fails at once, and takes no permit of `writes.max_waiters`. If all
    /// connections of the primary are in use, it fails at once with [`Exhausted`](crate::CheckoutError::Exhausted). It
    /// takes an idle connection, or else opens one, for which [`within`](Self::within) or `timeouts.checkout` is the
    /// limit. `run_write_with` still pauses before it runs a conflicting transaction again.
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
