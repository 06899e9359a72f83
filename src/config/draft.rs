//! A configuration in the making: values of the right type, not yet checked together.

use super::reader::Reader;
use super::{
    NodeConfig, PoolSettings, ProbeSettings, ReadSettings, TimeoutSettings, WriteSettings, defaults,
};
use crate::backoff::{Backoff, BackoffError};

/// All values, with the key of each node as it was written.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub(super) nodes: Vec<(String, NodeConfig)>,
    pub(super) zone: Option<String>,
    pub(super) application_name: String,
    pub(super) pool: PoolSettings,
    pub(super) timeouts: TimeoutSettings,
    pub(super) probe: ProbeSettings,
    pub(super) backoff: Backoff,
    pub(super) reads: ReadSettings,
    pub(super) writes: WriteSettings,
}

impl Default for Draft {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            zone: None,
            application_name: defaults::APPLICATION_NAME.to_owned(),
            pool: PoolSettings::default(),
            timeouts: TimeoutSettings::default(),
            probe: ProbeSettings::default(),
            backoff: defaults::backoff(),
            reads: ReadSettings::default(),
            writes: WriteSettings::default(),
        }
    }
}

impl Draft {
    /// Takes every setting but the nodes.
    pub(super) fn read(from: &mut Reader) -> Self {
        let Self { zone, application_name, pool, timeouts, probe, backoff: schedule, reads, writes, .. } =
            Self::default();
        Self {
            nodes: Vec::new(),
            zone: from.take("zone", zone),
            application_name: from.take("application_name", application_name),
            pool: PoolSettings {
                max_size: from.take("pool.max_size", pool.max_size),
                idle_timeout: from.take("pool.idle_timeout", pool.idle_timeout),
                max_lifetime: from.take("pool.max_lifetime", pool.max_lifetime),
                lifetime_jitter: from.take("pool.lifetime_jitter", pool.lifetime_jitter),
                max_concurrent_connects: from
                    .take("pool.max_concurrent_connects", pool.max_concurrent_connects),
                reset_sessions: from.take("pool.reset_sessions", pool.reset_sessions),
            },
            timeouts: TimeoutSettings {
                connect: from.take("timeouts.connect", timeouts.connect),
                checkout: from.take("timeouts.checkout", timeouts.checkout),
                read_statement: from.take("timeouts.read_statement", timeouts.read_statement),
                write_statement: from.take("timeouts.write_statement", timeouts.write_statement),
                shutdown: from.take("timeouts.shutdown", timeouts.shutdown),
                tcp_keepalive_idle: from.take("timeouts.tcp_keepalive_idle", timeouts.tcp_keepalive_idle),
                tcp_keepalive_interval: from
                    .take("timeouts.tcp_keepalive_interval", timeouts.tcp_keepalive_interval),
                tcp_keepalive_retries: from
                    .take("timeouts.tcp_keepalive_retries", timeouts.tcp_keepalive_retries),
                tcp_user_timeout: from.take("timeouts.tcp_user_timeout", timeouts.tcp_user_timeout),
            },
            probe: ProbeSettings {
                interval: from.take("probe.interval", probe.interval),
                timeout: from.take("probe.timeout", probe.timeout),
                failover_interval: from.take("probe.failover_interval", probe.failover_interval),
            },
            backoff: backoff(from, "backoff", schedule, true),
            reads: ReadSettings {
                fallback: from.take("reads.fallback", reads.fallback),
                max_fallback: from.take("reads.max_fallback", reads.max_fallback),
                max_lag: from.take("reads.max_lag", reads.max_lag),
                max_lag_bytes: from.take("reads.max_lag_bytes", reads.max_lag_bytes),
                retries: from.take("reads.retries", reads.retries),
                hedge_budget: from.take("reads.hedge_budget", reads.hedge_budget),
                hedge_min_delay: from.take("reads.hedge_min_delay", reads.hedge_min_delay),
                prefer_zone: from.take("reads.prefer_zone", reads.prefer_zone),
                base_ejection_time: from.take("reads.base_ejection_time", reads.base_ejection_time),
                max_ejection_time: from.take("reads.max_ejection_time", reads.max_ejection_time),
                slow_start: from.take("reads.slow_start", reads.slow_start),
            },
            writes: WriteSettings {
                failover_wait: from.take("writes.failover_wait", writes.failover_wait),
                max_waiters: from.take("writes.max_waiters", writes.max_waiters),
                retries: from.take("writes.retries", writes.retries),
                retry_backoff: backoff(from, "writes.retry_backoff", writes.retry_backoff, false),
            },
        }
    }
}

/// Takes the parts of a schedule. Without `limited` something else limits the attempts.
fn backoff(from: &mut Reader, table: &str, default: Backoff, limited: bool) -> Backoff {
    let path = |key: &str| format!("{table}.{key}");
    let initial = from.take(&path("initial"), default.initial());
    let factor = from.take(&path("factor"), default.factor());
    let max = from.take(&path("max"), default.max());
    let jitter = from.take(&path("jitter"), default.jitter());
    let attempts =
        if limited { from.take(&path("attempts"), default.attempts()) } else { default.attempts() };

    let sound = !["initial", "max"].iter().any(|key| from.poisoned.contains(&path(key)));
    let culprit = if initial.is_zero() || !from.names.has(&path("max")) { "initial" } else { "max" };
    // Each part is judged by itself, so that one fault doesn't hide another.
    let mut judge = |key: &str, verdict: Result<Backoff, BackoffError>| match verdict {
        Ok(policy) => Some(policy),
        Err(error) => {
            let derived = matches!(error, BackoffError::InitialAboveMax { .. }) && !sound;
            if !derived && !from.poisoned.contains(&path(key)) {
                let (problem, remedy) = words(&error);
                from.fault(&path(key), problem, remedy);
            }
            None
        }
    };
    let bounds = judge(culprit, Backoff::new(initial, max));
    judge("factor", default.clone().with_factor(factor));
    judge("jitter", default.clone().with_jitter(jitter));
    let policy =
        bounds.and_then(|policy| policy.with_factor(factor).and_then(|p| p.with_jitter(jitter)).ok());
    match (policy, attempts) {
        (Some(policy), Some(attempts)) => policy.with_attempts(attempts),
        (Some(policy), None) => policy,
        (None, _) => default,
    }
}

/// The error in the form of a fault.
fn words(error: &BackoffError) -> (&'static str, &'static str) {
    match error {
        BackoffError::ZeroInitial => ("is zero: a retry without a wait is a busy loop", "set at least 1ms"),
        BackoffError::InitialAboveMax { .. } => (
            "contradicts the schedule it belongs to: `initial` is above `max`",
            "lower `initial`, or raise `max` of the same table",
        ),
        BackoffError::Factor(_) => ("is below 1: the waits would shrink", "set 2, or 1 for a constant wait"),
        BackoffError::Jitter(_) => ("is not within 0..=1", "set 0.2, or 0 for an exact schedule"),
    }
}
