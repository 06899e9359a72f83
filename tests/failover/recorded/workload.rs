//! Sessions at work, from their start to the record of what they did.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use pointsman::ReplicaSet;
use pointsman::testkit::wait::{until_all_serve, until_writable};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::client::Client;
use super::history::{Key, Operation};
use super::worker::{Mix, Record, Worker};
use crate::test_error::TestResult;

const SESSIONS: u32 = 16;

/// Sessions that work until they are stopped.
pub(crate) struct Workload {
    sets: Vec<ReplicaSet>,
    sessions: Vec<JoinHandle<Record>>,
    pub(crate) keys: Key,
    pub(crate) start: Instant,
    stop: CancellationToken,
    last_read: CancellationToken,
}

/// The work of all sessions.
pub(crate) struct Work {
    pub(crate) operations: Vec<Operation>,
    pub(crate) hand_overs: usize,
    /// Errors by their kind.
    pub(crate) errors: BTreeMap<String, usize>,
    /// Time until every node served again.
    pub(crate) recovery: Duration,
}

impl Workload {
    /// Starts the sessions of a run of this length.
    pub(crate) fn start(
        sets: Vec<ReplicaSet>,
        mix: Mix,
        client: impl Fn(&ReplicaSet) -> Client,
        length: Duration,
        rng: &mut Rng,
    ) -> Self {
        // In a longer run more keys, so that the snapshots do not grow.
        let keys = 2 * Key::try_from(length.as_secs()).expect("a run has an end").max(5);
        let (stop, last_read, start) = (CancellationToken::new(), CancellationToken::new(), Instant::now());
        let sessions = (0..SESSIONS).map(|session| {
            let client = client(&sets[session as usize % sets.len()]);
            let worker = Worker::new(session, mix, client, sets.clone(), keys, start, rng.fork());
            tokio::spawn(worker.work(stop.clone(), last_read.clone()))
        });
        let sessions = sessions.collect();
        Self { sets, sessions, keys, start, stop, last_read }
    }

    /// Stops the sessions after the last fault. Each reads all keys once more as soon as every node serves.
    pub(crate) async fn stop(self) -> TestResult<Work> {
        self.stop.cancel();
        let began = Instant::now();
        for set in &self.sets {
            until_writable(set).await?;
            until_all_serve(set).await?;
        }
        let recovery = began.elapsed();
        self.last_read.cancel();
        let mut work = Work { operations: Vec::new(), hand_overs: 0, errors: BTreeMap::new(), recovery };
        for session in self.sessions {
            let record = session.await?;
            work.operations.extend(record.history);
            work.hand_overs += record.hand_overs;
            for (kind, number) in record.errors {
                *work.errors.entry(kind).or_default() += number;
            }
        }
        Ok(work)
    }
}
