//! Two lanes of faults, one after the other in each.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use pointsman::testkit::{Cluster, Server};
use tokio::sync::Mutex as Lock;
use tokio::sync::MutexGuard as LockGuard;
use tokio::time::{Instant, sleep};

use crate::recorded::history::Outage;
use crate::recorded::run::Log;
use crate::test_error::TestResult;

/// The faults of a run.
pub(super) struct Faults<'c> {
    cluster: &'c Cluster,
    start: Instant,
    /// The present primary's place in the cluster.
    primary: Mutex<usize>,
    /// Each node has one fault at a time.
    nodes: Vec<Lock<()>>,
    /// The nodes that do not follow the present primary yet, and get no fault until they do.
    behind: Mutex<BTreeSet<usize>>,
    record: Mutex<Record>,
}

/// The faults that were made.
#[derive(Default)]
pub(super) struct Record {
    pub(super) log: Log,
    pub(super) outages: Vec<Outage>,
    /// The kind of each promotion, and the time at which the new primary took writes.
    pub(super) promotions: Vec<(String, Duration)>,
}

/// A node on which no other lane makes a fault.
pub(super) struct Node<'f> {
    pub(super) place: usize,
    pub(super) server: &'f Server,
    _lock: LockGuard<'f, ()>,
}

impl<'c> Faults<'c> {
    pub(super) fn new(cluster: &'c Cluster, start: Instant) -> Self {
        let nodes = cluster.servers().iter().map(|_| Lock::new(())).collect();
        Self {
            cluster,
            start,
            primary: Mutex::new(0),
            nodes,
            behind: Mutex::default(),
            record: Mutex::default(),
        }
    }

    pub(super) fn into_record(self) -> Record {
        self.record.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Injects faults in two lanes; the first one also promotes.
    pub(super) async fn inject(&self, length: Duration, rng: &mut Rng) -> TestResult {
        let end = Instant::now() + length;
        let (first, second) = (rng.fork(), rng.fork());
        tokio::try_join!(self.promote_and_disturb(first, end), self.disturb(second, end)).map(drop)
    }

    async fn promote_and_disturb(&self, mut rng: Rng, end: Instant) -> TestResult {
        let mut is_first = true;
        while self.pauses_before(&mut rng, end).await {
            if std::mem::take(&mut is_first) || rng.u32(..3) == 0 {
                self.change_primary(&mut rng).await?;
            } else {
                self.disturb_one(&mut rng).await?;
            }
        }
        Ok(())
    }

    async fn disturb(&self, mut rng: Rng, end: Instant) -> TestResult {
        while self.pauses_before(&mut rng, end).await {
            self.disturb_one(&mut rng).await?;
        }
        Ok(())
    }

    /// Pauses between two faults, and returns `true` if there is time for another one.
    async fn pauses_before(&self, rng: &mut Rng, end: Instant) -> bool {
        sleep(Duration::from_millis(rng.u64(100..1000))).await;
        Instant::now() < end
    }

    /// Returns the time since the start of the run.
    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    pub(super) fn servers(&self) -> &'c [Server] {
        self.cluster.servers()
    }

    /// Returns the place of the present primary.
    pub(super) fn primary(&self) -> usize {
        *lock(&self.primary)
    }

    /// Takes a node for a fault, if it has none and follows the primary.
    pub(super) fn try_take_for_fault(&self, place: usize) -> Option<Node<'_>> {
        self.try_take(place).filter(|_| !lock(&self.behind).contains(&place))
    }

    /// Takes a node that is free; an occupied one has a fault.
    pub(super) fn try_take(&self, place: usize) -> Option<Node<'_>> {
        let lock = self.nodes[place].try_lock().ok()?;
        Some(Node { place, server: &self.servers()[place], _lock: lock })
    }

    /// Takes a node as soon as its fault has ended.
    pub(super) async fn take(&self, place: usize) -> Node<'_> {
        let lock = self.nodes[place].lock().await;
        Node { place, server: &self.servers()[place], _lock: lock }
    }

    /// Records a promotion; the node is the primary from now on.
    pub(super) fn record_promotion(&self, kind: String, new: &Node<'_>, at: Instant) {
        *lock(&self.primary) = new.place;
        lock(&self.behind).extend((0..self.servers().len()).filter(|place| *place != new.place));
        lock(&self.record).promotions.push((kind, at.duration_since(self.start)));
    }

    /// Records that a node follows the present primary.
    pub(super) fn record_following(&self, node: &Node<'_>) {
        lock(&self.behind).remove(&node.place);
    }

    /// Records a fault that has ended.
    pub(super) fn record(&self, server: &Server, from: Duration, kind: String) {
        let (node, until) = (server.name().to_owned(), self.now());
        let mut record = lock(&self.record);
        record.log.push((from, format!("{kind}: {node} for {:?}", until - from)));
        record.outages.push(Outage { kind, node, from, until });
    }
}

/// Takes a lock whose data stay whole when a holder panics.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
