//! Every default, each with its reason.

use std::time::Duration;

use super::{Fallback, TlsMode};
use crate::backoff::Backoff;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// What `pg_stat_activity` shows; a program that shares its server should say its own name.
pub(crate) const APPLICATION_NAME: &str = "pointsman";

/// What libpq does without `sslmode`, so that a URL means the same here as in `psql`.
pub(crate) const TLS_MODE: TlsMode = TlsMode::Prefer;

/// A server of 4 to 8 cores has its best throughput with about that many active sessions, and
/// with several programs of several nodes each this stays below `max_connections = 100`.
pub(crate) const POOL_MAX_SIZE: u32 = 10;

/// Long enough to bridge the pauses of ordinary traffic, short enough that a burst at noon does
/// not hold server memory until the evening. It is the default of bb8, too.
pub(crate) const POOL_IDLE_TIMEOUT: Duration = secs(600);

/// Backends keep what they cached about tables and plans until they end; half an hour bounds it
/// at one connect per session in that time. It is the default of bb8, too.
pub(crate) const POOL_MAX_LIFETIME: Duration = secs(1800);

/// Connections that were opened together (at the start, after an outage) would also end together;
/// a fifth of half an hour spreads that over six minutes.
pub(crate) const POOL_LIFETIME_JITTER: f64 = 0.2;

/// A connect costs the server a fork and an authentication (SCRAM: several ms of processor); four
/// at a time fill a pool of ten in a few rounds and leave a recovering server room for queries.
pub(crate) const POOL_MAX_CONCURRENT_CONNECTS: u32 = 4;

/// The next user of a session must not work in the schema, or under the locks, of the one before. It costs a round trip
/// where something was set, and nothing elsewhere.
pub(crate) const POOL_RESET_SESSIONS: bool = true;

/// A healthy server accepts in milliseconds, across a continent in about half a second with TLS
/// and SCRAM; whoever needs more than 2 s is better replaced by another node.
pub(crate) const TIMEOUT_CONNECT: Duration = secs(2);

/// Below the 10 to 30 s after which browsers and load balancers give up, so that our error
/// arrives rather than theirs; above `TIMEOUT_CONNECT`, so that one hanging node isn't fatal.
pub(crate) const TIMEOUT_CHECKOUT: Duration = secs(5);

/// The server's own limit holds unless told otherwise: only the program knows its slow reports.
pub(crate) const TIMEOUT_READ_STATEMENT: Option<Duration> = None;

/// As for reads; in addition, a migration is a write that may take hours.
pub(crate) const TIMEOUT_WRITE_STATEMENT: Option<Duration> = None;

/// Kubernetes grants 30 s between SIGTERM and SIGKILL; this leaves the rest of the program its share.
pub(crate) const TIMEOUT_SHUTDOWN: Duration = secs(10);

/// Firewalls and NAT gateways forget idle connections after minutes at the earliest (AWS: 350 s),
/// Linux sends its first keepalive after two hours. 10 s also notices a silently lost host.
pub(crate) const TIMEOUT_TCP_KEEPALIVE_IDLE: Duration = secs(10);

/// With three retries a silent host is given up 3 s after the first keepalive.
pub(crate) const TIMEOUT_TCP_KEEPALIVE_INTERVAL: Duration = secs(1);

/// Two lost packets are bad luck, three in a row are an outage.
pub(crate) const TIMEOUT_TCP_KEEPALIVE_RETRIES: u32 = 3;

/// Linux repeats an unacknowledged packet for about 15 minutes before it gives up; keepalives
/// don't help meanwhile, because they are only sent on an idle connection.
pub(crate) const TIMEOUT_TCP_USER: Duration = secs(5);

/// Together with `PROBE_TIMEOUT`, which must be missed twice, a node that hangs is known to be lost within a
/// second. A few cheap queries a second are no load.
pub(crate) const PROBE_INTERVAL: Duration = ms(400);

/// A probe takes below 1 ms in a data centre and 150 ms around the world; missed twice in a row, 300 ms
/// tell a slow network and a checkpoint from a node that hangs.
pub(crate) const PROBE_TIMEOUT: Duration = ms(300);

/// Half of it is what a promotion goes unnoticed on average; the connection survives the
/// promotion, so a probe is one query of well below 1 ms. They become rarer from 0.2 s on.
pub(crate) const PROBE_FAILOVER_INTERVAL: Duration = ms(25);

/// The first retry comes soon, because many outages are short (a restart takes 0.3 s).
pub(crate) const BACKOFF_INITIAL: Duration = ms(100);

/// Doubling reaches the maximum after four steps.
pub(crate) const BACKOFF_FACTOR: f64 = 2.0;

/// A node that is back must be used within 2 s: one wait of at most 1 s, and 1 s to probe and start slowly.
pub(crate) const BACKOFF_MAX: Duration = secs(1);

/// Only one prober per node and program waits here; a fifth keeps many programs out of step.
pub(crate) const BACKOFF_JITTER: f64 = 0.2;

/// A node never stops being looked for: nobody restarts a program because a replica came back.
pub(crate) const BACKOFF_ATTEMPTS: Option<u32> = None;

/// Reads go on without replicas, but don't cost the primary anything while there are some.
pub(crate) const READS_FALLBACK: Fallback = Fallback::WhenUnfit;

/// As many as one pool has: an outage of all replicas must not become one of the primary.
pub(crate) const READS_MAX_FALLBACK: u32 = 10;

/// Replication is behind by milliseconds when all is well. 10 s tell a burst of writes from a
/// replica that is stuck, and are what a person notices as stale.
pub(crate) const READS_MAX_LAG: Duration = secs(10);

/// Time is what people mean by stale; how many bytes are many depends on the load.
pub(crate) const READS_MAX_LAG_BYTES: Option<u64> = None;

/// Each of three nodes may fail a read once, and one of them twice; whatever fails five times in a row is not helped by
/// a sixth run.
pub(crate) const READS_RETRIES: u32 = 4;

/// At most one read in twenty is sent twice. Dean and Barroso ("The Tail at Scale") found that a
/// few per cent remove most of the tail; without a bound, hedging doubles the load of a slow set.
pub(crate) const READS_HEDGE_BUDGET: f64 = 0.05;

/// Below this, the second read costs more than it saves: it is in the order of a scheduling delay.
pub(crate) const READS_HEDGE_MIN_DELAY: Duration = ms(20);

/// Traffic within a zone is faster and free of charge. It has no effect without a zone.
pub(crate) const READS_PREFER_ZONE: bool = true;

/// Twice the probe interval: long enough to see whether the node is still bad.
pub(crate) const READS_BASE_EJECTION_TIME: Duration = secs(1);

/// A node that keeps failing costs one try in half a minute, and is back soon after its repair.
pub(crate) const READS_MAX_EJECTION_TIME: Duration = secs(30);

/// A node that comes back has cold caches and no sessions; its share grows over this time.
pub(crate) const READS_SLOW_START: Duration = secs(2);

/// With Patroni's defaults, a leader that vanished keeps its lock for 30 s (`ttl`), another member looks within 10 s
/// (`loop_wait`), and 5 s are left for its promotion. It stays below the 60 s after which proxies give up.
pub(crate) const WRITES_FAILOVER_WAIT: Duration = secs(45);

/// At 100 writes/s, the traffic of `WRITES_FAILOVER_WAIT`, and a tenth more. Each waiter holds a request in memory,
/// some ten kilobytes for most.
pub(crate) const WRITES_MAX_WAITERS: u32 = 5_000;

/// A transaction that conflicts five times in a row meets contention that retrying makes worse.
pub(crate) const WRITES_RETRIES: u32 = 5;

/// About the length of a short transaction: whoever we collided with is then done.
pub(crate) const WRITES_RETRY_INITIAL: Duration = ms(5);

/// Five retries at this length stay below a second for the user who waits.
pub(crate) const WRITES_RETRY_MAX: Duration = ms(200);

/// Each retry makes room for twice as many contenders.
pub(crate) const WRITES_RETRY_FACTOR: f64 = 2.0;

/// Full jitter: those who collided are many in one place, and must not collide again.
pub(crate) const WRITES_RETRY_JITTER: f64 = 1.0;

/// How to look for a node that is down.
pub(crate) fn backoff() -> Backoff {
    let policy = schedule(BACKOFF_INITIAL, BACKOFF_MAX, BACKOFF_FACTOR, BACKOFF_JITTER);
    BACKOFF_ATTEMPTS.map_or_else(|| policy.clone(), |attempts| policy.clone().with_attempts(attempts))
}

/// How to repeat a transaction that conflicted.
pub(crate) fn retry_backoff() -> Backoff {
    schedule(WRITES_RETRY_INITIAL, WRITES_RETRY_MAX, WRITES_RETRY_FACTOR, WRITES_RETRY_JITTER)
}

fn schedule(initial: Duration, max: Duration, factor: f64, jitter: f64) -> Backoff {
    Backoff::new(initial, max)
        .and_then(|policy| policy.with_factor(factor))
        .and_then(|policy| policy.with_jitter(jitter))
        .expect("the defaults above are a valid schedule")
}
