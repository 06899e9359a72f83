//! Every setting: its key, type, default, range and meaning, with reasons.
//!
//! `docs/configuration.md` and `pointsman.example.toml` are generated from here (`documentation`), and
//! `check` has the rules that concern several settings. See the guide for how to add a setting.

use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::ExposeSecret;

use super::declare::{Group, settings};
use super::file;
use super::reader::{Diagnostics, Reader};
use super::value::{Setting, spelled};
use crate::backoff::{Backoff, BackoffError};
use crate::token::TokenKey;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

spelled! {
    /// Which reads the primary serves.
    pub enum Fallback, "a fallback policy", "never, when_unfit or always" {
        /// None: without a fit replica, a read fails. Spelled `never`.
        ///
        /// A set that was configured without replicas serves its reads from the primary all the same.
        Never = "never",
        /// Reads for which no replica is fit. Spelled `when_unfit`.
        WhenUnfit = "when_unfit",
        /// Any: the primary is a candidate like each replica. Spelled `always`.
        Always = "always",
    }
}

settings! {
    /// The zone and the name of the program.
    pub(super) struct ProgramSettings in "", "Servers and program" {
        /// The zone that this program runs in, such as `eu-central-1a`.
        pub(super) zone: Option<String> = None;
        /// The name that `pg_stat_activity` shows.
        ///
        /// A program that shares its server should say its own name.
        pub(super) application_name: String = "pointsman".to_owned();
    }

    /// The connection pools. There is one per node and intent.
    pub struct PoolSettings in "pool", "Pools" {
        /// Most connections of one pool. There is one pool per node and intent.
        ///
        /// A server of 4 to 8 cores has its best throughput with about 10 active sessions, and several programs of
        /// several nodes each stay below `max_connections = 100`.
        pub max_size: u32 = 10, in 1..=10_000;
        /// Time without use after which a connection is closed.
        ///
        /// Long enough to bridge the pauses of ordinary traffic, and short enough that a burst at noon does not hold
        /// server memory until the evening. It is also the default of bb8.
        pub idle_timeout: Duration = 10 * MINUTE, in MS..=DAY;
        /// Age at which a connection is replaced.
        ///
        /// A backend keeps what it cached about tables and plans until it ends. Half an hour bounds that at the cost
        /// of one connect per session in that time. It is also the default of bb8.
        pub max_lifetime: Duration = 30 * MINUTE, in MS..=7 * DAY;
        /// Proportion of `max_lifetime` that is left to chance.
        ///
        /// Connections that were opened together, at the start or after an outage, would also end together. A fifth of
        /// half an hour spreads them over six minutes. At 1, some would be closed as soon as they were opened.
        pub lifetime_jitter: f64 = 0.2, in 0.0..=0.9;
        /// Connections to one node that are being opened at the same time.
        ///
        /// A connect costs the server a fork and an authentication, which is milliseconds of processor for SCRAM. Four
        /// at a time fill a pool of ten in a few rounds, and leave a recovering server room for queries.
        pub max_concurrent_connects: u32 = 4, in 1..=1_000;
        /// Resets a session on which something was set, before its next user gets it.
        ///
        /// That is `search_path`, an advisory lock or a temporary table, for example. The next user of a session must not work in the schema, or under the locks, of the one before. The reset
        /// costs a round trip if something was set, and nothing otherwise.
        pub reset_sessions: bool = true;
    }

    /// Time limits of connecting, waiting and closing.
    pub struct TimeoutSettings in "timeouts", "Timeouts" {
        /// Limit of connecting to one node: TCP, TLS and authentication together.
        ///
        /// A healthy server accepts in milliseconds, and across a continent in about half a second with TLS and SCRAM.
        /// A node that needs more than 2 s is better replaced by another one.
        pub connect: Duration = 2 * SECOND, in MS..=5 * MINUTE;
        /// Deadline of `read()` and `write()`, over all nodes that they try.
        ///
        /// Below the 10 to 30 s after which browsers and load balancers give up, so that our error arrives rather than
        /// theirs. Above `timeouts.connect`, so that one hanging node is not fatal.
        pub checkout: Duration = 5 * SECOND, in MS..=10 * MINUTE;
        /// `statement_timeout` of read sessions; `none` leaves it to the server.
        ///
        /// Only the program knows its slow reports. The server counts whole milliseconds, and takes 0 for no limit.
        pub read_statement: Option<Duration> = None, in MS..=7 * DAY;
        /// `statement_timeout` of write sessions; `none` leaves it to the server.
        ///
        /// As for reads. A migration is a write that may take hours, too.
        pub write_statement: Option<Duration> = None, in MS..=7 * DAY;
        /// Time for which closing waits for connections that are in use.
        ///
        /// Kubernetes grants 30 s between SIGTERM and SIGKILL. This leaves the rest of the program its share.
        pub shutdown: Duration = 10 * SECOND, in Duration::ZERO..=60 * MINUTE;
        /// Silence on a connection before its first keepalive, in whole seconds.
        ///
        /// Firewalls and NAT gateways forget idle connections after minutes at the earliest (AWS: 350 s), and Linux
        /// sends its first keepalive after two hours. 10 s also notices a host that was lost without a word.
        pub tcp_keepalive_idle: Duration = 10 * SECOND, in SECOND..=120 * MINUTE;
        /// Time between two keepalives, in whole seconds.
        ///
        /// With three retries, a silent host is given up 3 s after the first keepalive.
        pub tcp_keepalive_interval: Duration = SECOND, in SECOND..=10 * MINUTE;
        /// Unanswered keepalives that end a connection.
        ///
        /// Two lost packets are bad luck, three in a row are an outage.
        pub tcp_keepalive_retries: u32 = 3, in 1..=100;
        /// Time without an acknowledgement of sent data after which a connection is ended.
        ///
        /// Linux repeats an unacknowledged packet for about 15 minutes. Keepalives do not help meanwhile, because they
        /// are only sent on an idle connection.
        pub tcp_user_timeout: Duration = 5 * SECOND, in 10 * MS..=15 * MINUTE;
    }

    /// The probes by which the monitors watch their nodes.
    pub struct ProbeSettings in "probe", "Probes" {
        /// Time between two probes of a node that is well.
        ///
        /// Together with `probe.timeout`, which must be missed twice, a node that hangs is marked down within a second.
        /// A few cheap queries a second are no load.
        pub interval: Duration = 400 * MS, in 10 * MS..=MINUTE;
        /// Time after which a probe counts as missed. Two in a row mark the node down.
        ///
        /// A probe takes below 1 ms in a data centre and 150 ms around the world. 300 ms, missed twice in a row, tell a
        /// slow network and a checkpoint from a node that hangs.
        pub timeout: Duration = 300 * MS, in 10 * MS..=MINUTE;
        /// Time between two probes at the beginning of a search for a primary.
        ///
        /// It grows to an eighth of the time for which the search lasts, up to `probe.interval`. Half of it is what a
        /// promotion goes unnoticed on average. Below 10 ms the probes themselves are load.
        pub failover_interval: Duration = 25 * MS, in 10 * MS..=100 * MS;
    }

    /// Knowledge of the nodes that outlives the program.
    pub(super) struct TopologySettings in "topology", "Memory across restarts" {
        /// File that keeps the highest timeline across restarts; `none` keeps nothing.
        ///
        /// It also keeps the system identifier. Without it, a program that starts while it reaches only an old primary writes there. Only an operator knows a folder
        /// that outlives the program and that no other program writes to.
        pub(super) memory_file: Option<PathBuf> = None;
    }

    struct NodeBackoff in "backoff", "Looking for a node that is down" {
        /// First wait before a node that is down is tried again.
        ///
        /// Many outages are short: a restart takes 0.3 s.
        initial: Duration = 100 * MS, in MS..=10 * MINUTE;
        /// Factor by which each wait is longer than the one before.
        ///
        /// Doubling reaches the maximum after four steps.
        factor: f64 = 2.0, in 1.0..;
        /// Longest wait.
        ///
        /// A node that is back must be used within 2 s: one wait of at most 1 s, and 1 s to probe and start slowly.
        max: Duration = SECOND, in MS..=10 * MINUTE;
        /// Proportion of each wait that is left to chance. 1 is full jitter.
        ///
        /// Only one monitor per node and program waits here. A fifth keeps many programs out of step.
        jitter: f64 = 0.2, in 0.0..=1.0;
        /// Number of steps of the schedule; `none` sets no end.
        /// A monitor never gives a node up: after the last step, the longest wait repeats.
        ///
        /// No program is restarted because a replica came back. The schedule 2, 4, 8, 16, 32 s is `initial = "2s"`,
        /// `max = "32s"`, `jitter = 0`, `attempts = 5`.
        attempts: Option<u32> = None, in 0..;
    }

    /// Which nodes serve reads, and what happens to a read that is slow.
    pub struct ReadSettings in "reads", "Reads" {
        /// Reads that the primary serves: none, those without a fit replica, or any.
        ///
        /// Reads go on without replicas, but cost the primary nothing while a replica is fit.
        pub fallback: Fallback = Fallback::WhenUnfit;
        /// Reads that the primary serves at the same time instead of replicas.
        ///
        /// As many as one pool has: an outage of all replicas must not become one of the primary.
        pub max_fallback: u32 = 10, in 0..=100_000;
        /// Longest time by which a replica may lag behind.
        ///
        /// Replication lags by milliseconds when all is well. 10 s tell a burst of writes from a replica that is stuck,
        /// and are what a person notices as stale.
        pub max_lag: Duration = 10 * SECOND, in MS..=7 * DAY;
        /// Most bytes of WAL by which a replica may lag behind; `none` sets no limit.
        ///
        /// Time is what people mean by stale; how many bytes are many depends on the load.
        pub max_lag_bytes: Option<u64> = None, in 1..;
        /// Wait for a replica to reach a token's position, before the primary serves it.
        ///
        /// A replica that keeps up replays a commit within some milliseconds. A longer wait than 25 ms would be felt, and
        /// the primary can answer meanwhile.
        pub causal_wait: Duration = 25 * MS, in Duration::ZERO..=MINUTE;
        /// Times that `run_read` repeats a read that its node failed; 0 turns that off.
        ///
        /// Each of three nodes may fail a read once, and one of them twice. A read that failed five times in a row is
        /// not helped by a sixth run.
        pub retries: u32 = 4, in 0..=100;
        /// Proportion of reads that may be sent to a second node; 0 turns hedging off.
        ///
        /// At most one read in twenty is sent twice. Dean and Barroso ("The Tail at Scale") found that a few per cent
        /// remove most of the tail; without a bound, hedging doubles the load of a slow set.
        pub hedge_budget: f64 = 0.05, in 0.0..=1.0;
        /// Shortest wait before a read is sent to a second node.
        ///
        /// Below this, the second read costs more than it saves: it is in the order of a scheduling delay.
        pub hedge_min_delay: Duration = 20 * MS, in MS..=MINUTE;
        /// Prefers nodes in the zone of this program. It has no effect without a zone.
        ///
        /// Traffic within a zone is faster and free of charge.
        pub prefer_zone: bool = true;
        /// Time of a node's first ejection. It doubles with each repeat.
        ///
        /// About twice the probe interval: long enough to see whether the node is still bad.
        pub base_ejection_time: Duration = SECOND, in MS..=60 * MINUTE;
        /// Longest time of an ejection, however often the node failed.
        ///
        /// A node that keeps failing costs one try in half a minute, and is back soon after its repair.
        pub max_ejection_time: Duration = 30 * SECOND, in MS..=DAY;
        /// Time in which a node that is back gets its full share; `0s` gives it at once.
        ///
        /// Its caches are cold, and it has no sessions. A primary takes the reads of replicas in the same steps.
        pub slow_start: Duration = 2 * SECOND, in Duration::ZERO..=10 * MINUTE;
    }

    /// Waits and retries by which writes outlive a failover and conflicts.
    pub struct WriteSettings in "writes", "Writes" {
        /// Time for which `write()` waits for a primary; `0s` fails at once.
        ///
        /// With Patroni's defaults, a leader that vanished keeps its lock for 30 s (`ttl`), another member looks within
        /// 10 s (`loop_wait`), and 5 s are left for its promotion. It stays below the 60 s after which proxies give up.
        /// `docs/deployment.md` derives it for other tools.
        pub failover_wait: Duration = 45 * SECOND, in Duration::ZERO..=10 * MINUTE;
        /// Callers of `write()` that may wait for a primary at the same time.
        ///
        /// At 100 writes/s, the traffic of `writes.failover_wait`, and a tenth more. Each waiter holds a request in
        /// memory, some ten kilobytes for most.
        pub max_waiters: u32 = 5_000, in 1..=1_000_000;
        /// Times that `run_write` repeats a transaction that conflicted.
        ///
        /// A transaction that conflicts five times in a row meets contention that retrying makes worse.
        pub retries: u32 = 5, in 0..=1_000;
        @nested
        /// The waits before `run_write` repeats a transaction; `retries` limits them.
        pub retry_backoff: Backoff as RetryBackoff;
    }

    struct RetryBackoff in "writes.retry_backoff", "Repeating a transaction" {
        /// First wait before a transaction is repeated.
        ///
        /// About the length of a short transaction: the one that it collided with is then done.
        initial: Duration = 5 * MS, in MS / 10..=MINUTE;
        /// Factor by which each wait is longer than the one before.
        ///
        /// Each retry makes room for twice as many contenders.
        factor: f64 = 2.0, in 1.0..;
        /// Longest wait.
        ///
        /// Five retries at this length stay below a second for the user who waits.
        max: Duration = 200 * MS, in MS / 10..=MINUTE;
        /// Proportion of each wait that is left to chance. 1 is full jitter.
        ///
        /// Transactions that collided are many in one place, and must not collide again.
        jitter: f64 = 1.0, in 0.0..=1.0;
    }

    /// The causal tokens that leave the program.
    pub(super) struct CausalSettings in "causal", "Causal tokens" {
        /// The key that signs causal tokens, 16 bytes or more; `none` leaves them unsigned.
        ///
        /// Without a key, a client can make a token up, which costs it an error or a short wait. All programs that
        /// exchange tokens need the same key.
        pub(super) token_key: Option<TokenKey> = None;
        /// The path of a file that holds the key, instead of `causal.token_key`.
        pub(super) token_key_file: Option<String> = None, example "\"/run/secrets/token_key\"";
    }
}

/// Converts between a `Backoff` and the settings that are its parts.
macro_rules! parts_of_a_backoff {
    ($Parts:ident in $table:literal $(, $attempts:ident)?) => {
        impl $Parts {
            fn schedule(&self, attempts: Option<u32>) -> Result<Backoff, BackoffError> {
                $(let attempts = self.$attempts.or(attempts);)?
                let backoff =
                    Backoff::new(self.initial, self.max)?.with_factor(self.factor)?.with_jitter(self.jitter)?;
                Ok(match attempts {
                    Some(attempts) => backoff.with_attempts(attempts),
                    None => backoff,
                })
            }

            fn visit_backoff(backoff: &mut Backoff, reader: &mut Reader) {
                let (initial, max) = (backoff.initial(), backoff.max());
                let (factor, jitter, attempts) = (backoff.factor(), backoff.jitter(), backoff.attempts());
                let mut parts = Self { initial, factor, max, jitter $(, $attempts: attempts)? };
                parts.visit(reader);
                match parts.schedule(attempts) {
                    Ok(read) => *backoff = read,
                    Err(_) if parts.initial > parts.max => reader.diagnostics.contradiction(
                        &[concat!($table, ".initial"), concat!($table, ".max")],
                        "the first wait must not be above the longest",
                    ),
                    // The part that is wrong was reported already.
                    Err(_) => {}
                }
            }
        }
    };
}

parts_of_a_backoff!(NodeBackoff in "backoff", attempts);
parts_of_a_backoff!(RetryBackoff in "writes.retry_backoff");

/// All settings but the nodes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Settings {
    pub(super) program: ProgramSettings,
    pub(super) pool: PoolSettings,
    pub(super) timeouts: TimeoutSettings,
    pub(super) probe: ProbeSettings,
    pub(super) topology: TopologySettings,
    pub(super) backoff: Backoff,
    pub(super) reads: ReadSettings,
    pub(super) writes: WriteSettings,
    pub(super) causal: CausalSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            program: ProgramSettings::default(),
            pool: PoolSettings::default(),
            timeouts: TimeoutSettings::default(),
            probe: ProbeSettings::default(),
            topology: TopologySettings::default(),
            backoff: NodeBackoff::default().schedule(None).expect("a valid default"),
            reads: ReadSettings::default(),
            writes: WriteSettings::default(),
            causal: CausalSettings::default(),
        }
    }
}

impl Group for Settings {
    fn visit(&mut self, reader: &mut Reader) {
        self.program.visit(reader);
        self.pool.visit(reader);
        self.timeouts.visit(reader);
        self.probe.visit(reader);
        self.topology.visit(reader);
        NodeBackoff::visit_backoff(&mut self.backoff, reader);
        self.reads.visit(reader);
        self.writes.visit(reader);
        self.causal.visit(reader);
    }
}

impl CausalSettings {
    /// Reads the key from the file that holds it, if there is one.
    pub(super) fn read_file(&mut self, diagnostics: &mut Diagnostics) {
        const KEY: &str = "causal.token_key";
        const FILE: &str = "causal.token_key_file";
        // Taken, because a key that stands where the path belongs must not be shown later.
        let Some(path) = self.token_key_file.take() else { return };
        if diagnostics.is_written(KEY) {
            let problem = format!("is set beside {}", diagnostics.key(KEY));
            return diagnostics.report(FILE, problem, "remove one of the two");
        }
        match file::read_secret(&diagnostics.key(FILE), &path) {
            Ok(key) => match TokenKey::new(key.expose_secret()) {
                Ok(key) => self.token_key = Some(key),
                Err(_) => diagnostics.report(
                    FILE,
                    "names a file with a key that is too short",
                    <TokenKey as Setting>::REMEDY,
                ),
            },
            Err(issue) => diagnostics.issues.push(issue),
        }
    }
}

impl Settings {
    /// Checks the rules that no range expresses.
    pub(super) fn check(&self, diagnostics: &mut Diagnostics) {
        let Self { program, probe, topology, reads, .. } = self;
        if program.zone.as_deref().is_some_and(|zone| !is_word(zone, "._-")) {
            diagnostics.report("zone", "is not a plain word", WORD_REMEDY);
        }
        // PostgreSQL truncates at 63 bytes and replaces what is not printable ASCII.
        let name = &program.application_name;
        let fits = (1..=63).contains(&name.len()) && name.bytes().all(|b| (b' '..=b'~').contains(&b));
        if !fits || name.contains("://") {
            diagnostics.report(
                "application_name",
                "is not a name that PostgreSQL would keep",
                "use 1 to 63 printable ASCII characters, and no URL",
            );
        }
        if topology.memory_file.as_deref().is_some_and(|path| !is_file_path(path)) {
            diagnostics.report(
                "topology.memory_file",
                "is not the path of a file",
                "write a path such as /var/lib/payments/pointsman.memory, in a folder of which this user owns the files",
            );
        }
        if probe.failover_interval > probe.interval {
            diagnostics.contradiction(
                &["probe.failover_interval", "probe.interval"],
                "during the search for a primary, probes must be at least as frequent as otherwise",
            );
        }
        if reads.max_fallback == 0 && reads.fallback != Fallback::Never {
            diagnostics.contradiction(
                &["reads.max_fallback", "reads.fallback"],
                "at least 1 read must fit, or write `never` for no fallback",
            );
        }
        if reads.max_ejection_time < reads.base_ejection_time {
            diagnostics.contradiction(
                &["reads.max_ejection_time", "reads.base_ejection_time"],
                "the longest time must not be below the first",
            );
        }
        let smallest = smallest_max_lag(probe);
        if reads.max_lag < smallest {
            diagnostics.contradiction(
                &["reads.max_lag", "probe.interval", "probe.timeout"],
                &format!(
                    "the age of a measurement counts as lag, so with these probes a replica that misses nothing is \
                     up to {smallest:?} behind: that is the smallest usable value"
                ),
            );
        }
    }
}

/// Returns the most that a replica lags by which misses nothing.
///
/// The primary's position may be an interval and a probe old when the replica is asked. The replica's answer is used
/// until the next one, an interval and two probes later. A probe of a healthy node takes less than a sixth of its timeout.
pub(crate) fn smallest_max_lag(probe: &ProbeSettings) -> Duration {
    probe.interval.saturating_mul(2).saturating_add(probe.timeout / 2)
}

pub(super) const WORD_REMEDY: &str = "use 1 to 63 of the characters a-z A-Z 0-9 . _ -";

/// Returns `true` if a path ends in the name of a file, and is no URL.
fn is_file_path(path: &Path) -> bool {
    let text = path.to_string_lossy();
    path.file_name().is_some() && !text.ends_with('/') && !text.contains("://")
}

/// Returns `true` if a text needs no quotes in a metric's label and in a header.
pub(super) fn is_word(text: &str, special: &str) -> bool {
    (1..=63).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || special.contains(c))
}
