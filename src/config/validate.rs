//! What must hold for values that have the right type.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::draft::Draft;
use super::reader::Names;
use super::value::Setting;
use super::{
    Config, ConfigError, ConfigIssue, Fallback, InitialRole, NodeConfig, ProbeSettings, TlsMode, file,
};

/// The faults that were found so far.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) faults: Vec<ConfigIssue>,
    /// The paths of faulty values, which were replaced by their defaults.
    pub(super) poisoned: BTreeSet<String>,
    /// Whether a node is missing because it was faulty.
    pub(super) nodes_incomplete: bool,
}

impl Findings {
    pub(super) fn node_faults(&mut self, faults: Vec<ConfigIssue>) {
        self.nodes_incomplete = true;
        self.faults.extend(faults);
    }
}

/// Checks a draft and turns it into a configuration, if nothing at all is wrong.
pub(super) fn finish(
    draft: Draft,
    names: &Names,
    findings: Findings,
    no_primary: (&str, &str),
) -> Result<Config, ConfigError> {
    let mut check = Check { names, findings };
    check.texts(&draft);
    check.pool(&draft);
    check.timeouts(&draft);
    check.probe(&draft);
    check.reads(&draft);
    check.writes(&draft);
    check.nodes(&draft.nodes, no_primary);
    if !check.findings.faults.is_empty() {
        return Err(ConfigError::new(check.findings.faults));
    }
    let mut nodes: Vec<_> = draft.nodes.into_iter().map(|(_, node)| node).collect();
    for node in &mut nodes {
        node.complete(&draft.application_name, &draft.timeouts);
    }
    Ok(Config {
        nodes,
        zone: draft.zone,
        application_name: draft.application_name,
        pool: draft.pool,
        timeouts: draft.timeouts,
        probe: draft.probe,
        backoff: draft.backoff,
        reads: draft.reads,
        writes: draft.writes,
    })
}

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

struct Check<'a> {
    names: &'a Names,
    findings: Findings,
}

impl Check<'_> {
    fn fault(&mut self, path: &str, problem: impl Into<String>, remedy: impl Into<String>) {
        self.findings.faults.push(ConfigIssue::new(self.names.of(path), problem, remedy));
        self.findings.poisoned.insert(path.to_owned());
    }

    /// Whether the values at all of `paths` are what the user wrote.
    fn sound(&self, paths: &[&str]) -> bool {
        paths.iter().all(|path| !self.findings.poisoned.contains(*path))
    }

    fn within<T: PartialOrd + Setting>(&mut self, path: &str, value: &T, least: T, most: T) {
        // Written so that a NaN is refused, too.
        if !(*value >= least && *value <= most) && self.sound(&[path]) {
            let show = |value: &T| value.show().unwrap_or_default().replace('"', "");
            let problem = format!("is not within {} to {}", show(&least), show(&most));
            self.fault(path, problem, "choose a value in that range, or remove the key for its default");
        }
    }

    /// Reports values that contradict each other, by the first key that the user wrote.
    fn contradiction(&mut self, paths: &[&str], rule: &str) {
        if !self.sound(paths) {
            return;
        }
        let blamed = paths.iter().find(|path| self.names.has(path)).unwrap_or(&paths[0]);
        let others: Vec<_> =
            paths.iter().filter(|path| *path != blamed).map(|path| self.names.of(path)).collect();
        let problem = format!("contradicts {}", others.join(" and "));
        self.fault(blamed, problem, format!("change one of them: {rule}"));
    }

    fn texts(&mut self, draft: &Draft) {
        if let Some(zone) = &draft.zone {
            self.word("zone", zone);
        }
        let name = &draft.application_name;
        // PostgreSQL truncates at 63 bytes and replaces what isn't printable ASCII.
        let fits = (1..=63).contains(&name.len()) && name.bytes().all(|b| (b' '..=b'~').contains(&b));
        if !fits || name.contains("://") {
            self.fault(
                "application_name",
                "is not a name that PostgreSQL would keep",
                "use 1 to 63 printable ASCII characters, and no URL",
            );
        }
    }

    fn word(&mut self, path: &str, word: &str) {
        if !is_word(word) {
            self.fault(path, "is not a plain word", WORD_REMEDY);
        }
    }

    fn pool(&mut self, draft: &Draft) {
        let pool = &draft.pool;
        self.within("pool.max_size", &pool.max_size, 1, 10_000);
        self.within("pool.idle_timeout", &pool.idle_timeout, MS, DAY);
        self.within("pool.max_lifetime", &pool.max_lifetime, MS, 7 * DAY);
        // At 1 some connections would be closed as soon as they were opened.
        self.within("pool.lifetime_jitter", &pool.lifetime_jitter, 0.0, 0.9);
        self.within("pool.max_concurrent_connects", &pool.max_concurrent_connects, 1, 1_000);
    }

    fn timeouts(&mut self, draft: &Draft) {
        let timeouts = &draft.timeouts;
        self.within("timeouts.connect", &timeouts.connect, MS, 5 * MINUTE);
        self.within("timeouts.checkout", &timeouts.checkout, MS, 10 * MINUTE);
        self.within("timeouts.shutdown", &timeouts.shutdown, Duration::ZERO, 60 * MINUTE);
        for (path, value) in [
            ("timeouts.read_statement", timeouts.read_statement),
            ("timeouts.write_statement", timeouts.write_statement),
        ] {
            // The server counts whole milliseconds, and takes 0 for no limit at all.
            if let Some(value) = value {
                self.within(path, &value, MS, 7 * DAY);
            }
        }
        // The socket options count whole seconds; 0 would mean the default of the system.
        self.within("timeouts.tcp_keepalive_idle", &timeouts.tcp_keepalive_idle, SECOND, DAY / 12);
        self.within("timeouts.tcp_keepalive_interval", &timeouts.tcp_keepalive_interval, SECOND, 10 * MINUTE);
        self.within("timeouts.tcp_keepalive_retries", &timeouts.tcp_keepalive_retries, 1, 100);
        self.within("timeouts.tcp_user_timeout", &timeouts.tcp_user_timeout, 10 * MS, 15 * MINUTE);
    }

    fn probe(&mut self, draft: &Draft) {
        let probe = &draft.probe;
        self.within("probe.interval", &probe.interval, 10 * MS, MINUTE);
        self.within("probe.timeout", &probe.timeout, 10 * MS, MINUTE);
        // Below, the probes themselves are load; above, a failover is noticed late.
        self.within("probe.failover_interval", &probe.failover_interval, 10 * MS, 100 * MS);
        if probe.failover_interval > probe.interval {
            self.contradiction(
                &["probe.failover_interval", "probe.interval"],
                "while a primary is looked for, probes must be at least as frequent as otherwise",
            );
        }
        self.within("backoff.initial", &draft.backoff.initial(), MS, 10 * MINUTE);
        if draft.backoff.max() > 10 * MINUTE && self.sound(&["backoff.max"]) {
            self.fault(
                "backoff.max",
                "is above 10min",
                "lower it: a node that is back goes unused until then",
            );
        }
    }

    fn reads(&mut self, draft: &Draft) {
        let reads = &draft.reads;
        if reads.fallback != Fallback::Never {
            self.within("reads.max_fallback", &reads.max_fallback, 1, 100_000);
        }
        self.within("reads.max_lag", &reads.max_lag, MS, 7 * DAY);
        if reads.max_lag_bytes == Some(0) {
            let remedy = "raise it, or write none for no limit";
            self.fault("reads.max_lag_bytes", "is zero, and every replica is some bytes behind", remedy);
        }
        self.within("reads.retries", &reads.retries, 0, 100);
        self.within("reads.hedge_budget", &reads.hedge_budget, 0.0, 1.0);
        self.within("reads.hedge_min_delay", &reads.hedge_min_delay, MS, MINUTE);
        self.within("reads.base_ejection_time", &reads.base_ejection_time, MS, 60 * MINUTE);
        self.within("reads.max_ejection_time", &reads.max_ejection_time, MS, DAY);
        self.within("reads.slow_start", &reads.slow_start, Duration::ZERO, 10 * MINUTE);
        if reads.max_ejection_time < reads.base_ejection_time {
            self.contradiction(
                &["reads.max_ejection_time", "reads.base_ejection_time"],
                "the maximum must not be below the first step",
            );
        }
        let smallest = smallest_max_lag(&draft.probe);
        if reads.max_lag < smallest {
            self.contradiction(
                &["reads.max_lag", "probe.interval", "probe.timeout"],
                &format!(
                    "the age of a measurement counts as lag, so with these probes a replica that misses nothing is \
                     up to {smallest:?} behind: that is the smallest usable value"
                ),
            );
        }
    }

    fn writes(&mut self, draft: &Draft) {
        let writes = &draft.writes;
        self.within("writes.failover_wait", &writes.failover_wait, Duration::ZERO, 10 * MINUTE);
        self.within("writes.max_waiters", &writes.max_waiters, 1, 1_000_000);
        self.within("writes.retries", &writes.retries, 0, 1_000);
        let initial = writes.retry_backoff.initial();
        self.within("writes.retry_backoff.initial", &initial, MS / 10, MINUTE);
        if writes.retry_backoff.max() > MINUTE && self.sound(&["writes.retry_backoff.max"]) {
            self.fault(
                "writes.retry_backoff.max",
                "is above 1min",
                "lower it: somebody waits for the answer",
            );
        }
    }

    fn nodes(&mut self, nodes: &[(String, NodeConfig)], no_primary: (&str, &str)) {
        let mut names = BTreeMap::new();
        let mut servers = BTreeMap::new();
        for (key, node) in nodes {
            let default = node.name() == NodeConfig::default_name(node.host(), node.port());
            if !default && !is_word(node.name()) {
                self.of_node(key, "has a name that is not a plain word", WORD_REMEDY);
            }
            if node.zone().is_some_and(|zone| !is_word(zone)) {
                self.of_node(key, "has a zone that is not a plain word", WORD_REMEDY);
            }
            if node.tags().iter().any(|tag| !is_tag(tag)) {
                self.of_node(
                    key,
                    "has a tag that is not a plain word",
                    "use 1 to 63 of the characters a-z A-Z 0-9 . _ - : =",
                );
            }
            if !(1..=1_000).contains(&node.weight()) {
                self.of_node(
                    key,
                    "has a weight that is not within 1 to 1000",
                    "set 1 for an ordinary share of the reads; to take a node out, remove it",
                );
            }
            self.certificates(key, node);
            if node.initial_role() == InitialRole::Primary && !node.promotable() {
                self.of_node(
                    key,
                    "is the primary and not promotable",
                    "remove `promotable = false`, or make another node the primary",
                );
            }
            let server = (node.host().to_lowercase(), node.port());
            if let Some(first) = servers.insert(server, key) {
                self.of_node(
                    key,
                    &format!("is the same server as {first}"),
                    "remove one: each server is one node, and without replicas the primary serves the reads",
                );
            } else if let Some(first) = names.insert(node.name(), key) {
                self.of_node(key, &format!("has the same name as {first}"), "give it a name of its own");
            }
        }
        self.roles(nodes, no_primary);
    }

    /// Checks the files that TLS needs, also those that `sslmode` makes no use of: they were named for a reason.
    fn certificates(&mut self, key: &str, node: &NodeConfig) {
        let tls = node.tls();
        if tls.mode == TlsMode::Disable {
            return;
        }
        for (parameter, path) in [
            ("sslrootcert", &tls.root_certificate),
            ("sslcert", &tls.client_certificate),
            ("sslkey", &tls.client_key),
        ] {
            if let Some(problem) = path.as_deref().and_then(file::pem_problem) {
                self.of_node(
                    key,
                    &format!("has an `{parameter}` that {problem}"),
                    "name a PEM file that this user may read, or remove the parameter",
                );
            }
        }
    }

    fn roles(&mut self, nodes: &[(String, NodeConfig)], no_primary: (&str, &str)) {
        let mut primaries = nodes.iter().filter(|(_, node)| node.initial_role() == InitialRole::Primary);
        match (primaries.next(), primaries.next()) {
            (None, _) if !self.findings.nodes_incomplete => {
                self.of_node(no_primary.0, "is missing: no primary is configured", no_primary.1);
            }
            (Some((first, _)), Some((second, _))) => {
                let problem = format!("is a primary, as is {first}");
                self.of_node(
                    second,
                    &problem,
                    "make it a replica: it is a first guess, and the real roles are discovered",
                );
            }
            _ => {}
        }
    }

    fn of_node(&mut self, key: &str, problem: &str, remedy: &str) {
        self.findings.faults.push(ConfigIssue::new(key, problem, remedy));
    }
}

/// Returns the most that a replica lags by which misses nothing.
///
/// The primary's position may be an interval and a probe old when the replica is asked, and the replica's answer is used
/// until the next one, an interval and two probes later. A probe of a healthy node takes less than a sixth of its timeout.
pub(crate) fn smallest_max_lag(probe: &ProbeSettings) -> Duration {
    probe.interval.saturating_mul(2).saturating_add(probe.timeout / 2)
}

const WORD_REMEDY: &str = "use 1 to 63 of the characters a-z A-Z 0-9 . _ -";

/// Whether a text can stand in a metric's label and in a header without being quoted.
fn is_word(text: &str) -> bool {
    (1..=63).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

fn is_tag(text: &str) -> bool {
    (1..=63).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-:=".contains(&b))
}
