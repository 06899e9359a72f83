//! Statistics from a node's connections, between two probes of its monitor.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::LatencyEwma;
use super::heartbeat::Heartbeat;
use super::server::LastSeenServer;
use crate::lsn::Lsn;

/// Signs of life and of trouble, collected without an extra query.
#[derive(Debug, Default)]
pub(crate) struct NodeStats {
    /// Average time of the node's answers.
    pub(crate) latency: LatencyEwma,
    /// Read connections that are checked out, or waited for.
    pub(crate) in_flight: AtomicU32,
    /// Read connections checked out since the start.
    pub(crate) reads: AtomicU64,
    /// Write connections checked out since the start.
    pub(crate) writes: AtomicU64,
    /// Probes that the monitor began since the start.
    pub(crate) probes: AtomicU64,
    /// Heartbeat of the node's monitor.
    pub(crate) heartbeat: Heartbeat,
    /// Answers that the node's sessions received since the start.
    pub(crate) answers: AtomicU64,
    /// Open sessions of the pools, as far as this machine knows.
    sessions: AtomicU32,
    /// Highest known position: replayed by a standby, written by a primary.
    position: AtomicU64,
    /// Timeline that the node follows as a standby; 0 if it is not known.
    followed_timeline: AtomicU32,
    /// Wakes the callers that wait for a position.
    advanced: Notify,
    /// Callers that wait for a position.
    awaiting: AtomicU32,
    /// Waits for a position in a row that ended before the node had reached it.
    missed_waits: AtomicU32,
    /// When a caller last waited although the others were in vain.
    retried_wait: Moment,
    /// `true` while a task asks for the position on their behalf.
    asking: AtomicBool,
    /// The server behind the node's address.
    pub(crate) server: LastSeenServer,
    suspected: AtomicBool,
    /// Reads in flight whose answer takes far longer than usual.
    overdue: AtomicU32,
    /// When the monitor sent a probe that has no answer yet; 0 if there is none.
    probed: Moment,
    /// When a slow answer last woke the monitor.
    woken_by_slow_answer: Moment,
    /// When the monitor was last woken to learn a position.
    located: Moment,
    wake: Notify,
}

/// Shortest time between two wakes of the monitor by slow answers.
///
/// Slow is not down, and some answers are always slow.
const SLOW_ANSWERS: Duration = Duration::from_secs(1);

/// Shortest time between two wakes of the monitor to learn a position.
const POSITIONS: Duration = Duration::from_millis(100);

/// Waits in a row for a position in vain, before reads stop waiting for the node.
const MISSED_WAITS: u32 = 3;

/// Time after which one read tries such a node again.
///
/// A node that has caught up is in use again after this, or after the next probe.
const RETRIED_WAITS: Duration = Duration::from_millis(100);

/// Time after which a probe can be overdue.
///
/// A probe is one cheap query. If a probe takes this long, and many times the node's average, the node hangs or is
/// about to be marked suspect.
const OVERDUE_PROBE: Duration = Duration::from_millis(100);

/// Multiple of the node's average latency from which a probe is overdue.
const OVERDUE_FACTOR: u32 = 4;

impl NodeStats {
    /// Records a sign of trouble, so that the monitor probes at once.
    ///
    /// Reads avoid the node until then.
    ///
    /// Several signs between two probes count as one.
    pub(crate) fn suspect(&self) {
        self.suspected.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// Wakes the monitor for another reason than trouble.
    pub(crate) fn wake_monitor(&self) {
        self.wake.notify_one();
    }

    /// Counts a read as in flight while it waits for its connection.
    ///
    /// So concurrent routing decisions see the read.
    pub(crate) fn enter(&self) -> InFlightGuard<'_> {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        InFlightGuard(self)
    }

    /// Counts a session of a pool until the guard is dropped.
    pub(crate) fn open_session(self: &Arc<Self>) -> OpenSession {
        self.sessions.fetch_add(1, Ordering::AcqRel);
        OpenSession(Arc::clone(self))
    }

    /// Returns the number of open sessions of the pools.
    pub(crate) fn sessions(&self) -> u32 {
        self.sessions.load(Ordering::Acquire)
    }

    /// Returns `true` if there was trouble since the last healthy probe.
    pub(crate) fn is_suspected(&self) -> bool {
        self.suspected.load(Ordering::Acquire)
    }

    /// Clears the suspicion, because the monitor found the node healthy.
    pub(crate) fn clear_suspicion(&self) {
        self.suspected.store(false, Ordering::Release);
    }

    /// Wakes the monitor for a slow answer, which is no trouble by itself.
    pub(crate) fn wake_monitor_for_slow_answer(&self) {
        let now = Instant::now();
        if self.woken_by_slow_answer.elapsed(now).is_none_or(|elapsed| elapsed >= SLOW_ANSWERS) {
            self.woken_by_slow_answer.set(now);
            self.wake_monitor();
        }
    }

    /// Wakes the monitor to learn the node's position, ten times a second at most.
    ///
    /// Made-up tokens must not make it probe more often.
    pub(crate) fn wake_monitor_for_position(&self) {
        let now = Instant::now();
        if self.located.elapsed(now).is_none_or(|elapsed| elapsed >= POSITIONS) {
            self.located.set(now);
            self.wake_monitor();
        }
    }

    /// Counts an answer as overdue for as long as the guard lives.
    pub(crate) fn overdue(&self) -> Overdue<'_> {
        self.overdue.fetch_add(1, Ordering::AcqRel);
        Overdue(self)
    }

    /// Returns the number of answers that are overdue now.
    pub(crate) fn overdue_answers(&self) -> u32 {
        self.overdue.load(Ordering::Relaxed)
    }

    /// Marks a probe as in flight until the guard is dropped.
    pub(crate) fn probing(&self) -> Probing<'_> {
        self.probed.set(Instant::now());
        Probing(self)
    }

    /// Returns `true` if reads should prefer other nodes.
    ///
    /// Then there was a sign of trouble, or the monitor's probe is overdue.
    pub(crate) fn is_doubtful(&self, now: Instant) -> bool {
        self.is_suspected()
            || self.probed.elapsed(now).is_some_and(|elapsed| {
                elapsed >= OVERDUE_PROBE
                    && elapsed >= self.latency.average().unwrap_or_default() * OVERDUE_FACTOR
            })
    }

    /// Records that the node reached a position.
    pub(crate) fn note_position(&self, position: Lsn) {
        if self.position.fetch_max(position.as_u64(), Ordering::AcqRel) < position.as_u64() {
            self.advanced.notify_waiters();
        }
    }

    /// Replaces the known position of a node that may have been rewound or rebuilt.
    pub(crate) fn reset_position(&self, position: Lsn) {
        self.position.store(position.as_u64(), Ordering::Release);
        self.advanced.notify_waiters();
    }

    /// Returns the highest position that the node is known to have reached.
    ///
    /// A position that was replayed stays replayed, so this is never too high.
    pub(crate) fn position(&self) -> Lsn {
        Lsn::new(self.position.load(Ordering::Acquire))
    }

    /// Records the timeline that the node follows as a standby, or 0.
    pub(crate) fn note_followed_timeline(&self, timeline: u32) {
        self.followed_timeline.store(timeline, Ordering::Release);
    }

    /// Returns the timeline that the node follows as a standby; 0 if that is not known.
    pub(crate) fn followed_timeline(&self) -> u32 {
        self.followed_timeline.load(Ordering::Acquire)
    }

    /// Counts a caller that waits for a position, until the guard is dropped.
    pub(crate) fn await_position(&self) -> AwaitedPosition<'_> {
        self.awaiting.fetch_add(1, Ordering::SeqCst);
        AwaitedPosition(self)
    }

    /// Records if a wait for a position was in vain.
    pub(crate) fn note_wait(&self, reached: bool) {
        if reached {
            self.missed_waits.store(0, Ordering::Relaxed);
        } else {
            self.missed_waits.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns `true` if the last waits for a position were in vain.
    ///
    /// One caller at a time gets `false`, to try again.
    pub(crate) fn is_wait_in_vain(&self, now: Instant) -> bool {
        if self.missed_waits.load(Ordering::Relaxed) < MISSED_WAITS {
            return false;
        }
        let retries = self.retried_wait.elapsed(now).is_none_or(|elapsed| elapsed >= RETRIED_WAITS);
        if retries {
            self.retried_wait.set(now);
        }
        !retries
    }

    /// Returns `true` if a caller waits for a position.
    pub(crate) fn is_position_awaited(&self) -> bool {
        self.awaiting.load(Ordering::SeqCst) > 0
    }

    /// Takes the task of asking for the position, if a caller needs it and none asks.
    pub(crate) fn begin_asking(self: &Arc<Self>) -> Option<Asking> {
        let begins = self.is_position_awaited() && !self.asking.swap(true, Ordering::SeqCst);
        begins.then(|| Asking(Arc::clone(self)))
    }

    /// Waits until the node is known to have reached a position.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped.
    pub(crate) async fn reached(&self, position: Lsn) {
        loop {
            let advanced = self.advanced.notified();
            if self.position() >= position {
                return;
            }
            advanced.await;
        }
    }

    /// Waits for a sign of trouble.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }
}

/// A caller that waits for a position.
#[derive(Debug)]
pub(crate) struct AwaitedPosition<'v>(&'v NodeStats);

impl Drop for AwaitedPosition<'_> {
    fn drop(&mut self) {
        self.0.awaiting.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The task of asking for a position, until it is dropped.
#[derive(Debug)]
pub(crate) struct Asking(Arc<NodeStats>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.asking.store(false, Ordering::SeqCst);
    }
}

/// A session of a pool, for as long as it is open.
#[derive(Debug)]
pub(crate) struct OpenSession(Arc<NodeStats>);

impl Drop for OpenSession {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Ordering::AcqRel);
    }
}

/// An instant, or none.
#[derive(Debug)]
struct Moment {
    origin: Instant,
    /// In microseconds since the origin; 0 for none.
    micros: AtomicU64,
}

impl Default for Moment {
    fn default() -> Self {
        Self { origin: Instant::now(), micros: AtomicU64::new(0) }
    }
}

impl Moment {
    fn set(&self, now: Instant) {
        let micros = now.duration_since(self.origin).as_micros();
        self.micros.store(u64::try_from(micros).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
    }

    fn clear(&self) {
        self.micros.store(0, Ordering::Relaxed);
    }

    /// Returns the time since this instant.
    fn elapsed(&self, now: Instant) -> Option<Duration> {
        let micros = self.micros.load(Ordering::Relaxed);
        (micros != 0).then(|| now.duration_since(self.origin).saturating_sub(Duration::from_micros(micros)))
    }
}

/// An answer that is overdue.
#[derive(Debug)]
pub(crate) struct Overdue<'v>(&'v NodeStats);

impl Drop for Overdue<'_> {
    fn drop(&mut self) {
        self.0.overdue.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A probe that waits for the node's answer.
#[derive(Debug)]
pub(crate) struct Probing<'v>(&'v NodeStats);

impl Drop for Probing<'_> {
    fn drop(&mut self) {
        self.0.probed.clear();
    }
}

/// A read that waits for a connection.
#[derive(Debug)]
pub(crate) struct InFlightGuard<'v>(&'v NodeStats);

impl Drop for InFlightGuard<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn callers_that_wait_for_a_position_share_one_task_that_asks_and_one_answer() {
        let stats = Arc::new(NodeStats::default());
        assert!(stats.begin_asking().is_none(), "no caller waits");
        let waiting: Vec<_> = (0..64).map(|_| stats.await_position()).collect();
        let asking = stats.begin_asking();
        assert!(asking.is_some());
        assert!((0..64).all(|_| stats.begin_asking().is_none()), "one task asks for all of them");

        let mut reached: Vec<_> = (0..64).map(|_| Box::pin(stats.reached(Lsn::new(500)))).collect();
        assert!(reached.iter_mut().all(|caller| caller.now_or_never().is_none()));
        stats.note_position(Lsn::new(499));
        assert!(reached.iter_mut().all(|caller| caller.now_or_never().is_none()));
        stats.note_position(Lsn::new(500));
        assert!(reached.iter_mut().all(|caller| caller.now_or_never().is_some()));

        drop(asking);
        assert!(stats.begin_asking().is_some(), "the next task takes over from one that ended");
        drop(waiting);
        assert!(stats.begin_asking().is_none());
    }
}
