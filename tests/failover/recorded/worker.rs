//! One session: a random mix of reads and writes, and the record of them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use fastrand::Rng;
use pointsman::prelude::*;
use pointsman::{CausalError, CheckoutError, Error, ReplicaSet, WriteOptions};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::client::{Client, Served, insert, served};
use super::history::{Action, Key, Operation, Outcome, Snapshot, WriteId};

/// Time for the last read of a session, after all faults.
const LAST_READ: Duration = Duration::from_secs(30);

/// The keys that a session chose last, and chooses again with preference.
const FAVOURITES: usize = 6;

/// The operations that a session draws from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mix {
    /// Each kind of read and write, one after the other with hardly a pause.
    Sessions,
    /// Transactions that happen exactly once, and reads with the session's token or without.
    ExactlyOnce,
}

impl Mix {
    /// Returns the longest pause between two operations.
    const fn pause(self) -> Duration {
        match self {
            Self::Sessions => Duration::from_millis(20),
            // Sixteen sessions make about 100 writes a second.
            Self::ExactlyOnce => Duration::from_millis(60),
        }
    }

    /// Returns the options of a transaction.
    const fn options(self) -> WriteOptions {
        match self {
            Self::Sessions => WriteOptions::new(),
            Self::ExactlyOnce => WriteOptions::new().exactly_once(),
        }
    }
}

/// A session at work.
pub(crate) struct Worker {
    session: u32,
    mix: Mix,
    client: Client,
    /// The sets among which the session moves.
    sets: Vec<ReplicaSet>,
    keys: Key,
    favourites: VecDeque<Key>,
    rng: Rng,
    /// The start of the run.
    start: Instant,
    writes: u32,
    record: Record,
}

/// The operations of a session.
#[derive(Default)]
pub(crate) struct Record {
    pub(crate) history: Vec<Operation>,
    pub(crate) hand_overs: usize,
    /// Errors by their kind.
    pub(crate) errors: BTreeMap<String, usize>,
}

impl Worker {
    pub(crate) fn new(
        session: u32,
        mix: Mix,
        client: Client,
        sets: Vec<ReplicaSet>,
        keys: Key,
        start: Instant,
        rng: Rng,
    ) -> Self {
        let (favourites, record) = (VecDeque::new(), Record::default());
        Self { session, mix, client, sets, keys, favourites, rng, start, writes: 0, record }
    }

    /// Works until it is told to stop, and then reads all keys once more.
    pub(crate) async fn work(mut self, stop: CancellationToken, last_read: CancellationToken) -> Record {
        while !stop.is_cancelled() {
            self.operate().await;
            sleep(self.mix.pause().mul_f64(self.rng.f64())).await;
        }
        last_read.cancelled().await;
        self.read_all().await;
        self.record
    }

    async fn operate(&mut self) {
        match self.mix {
            Mix::Sessions => self.operate_as_session().await,
            Mix::ExactlyOnce => self.operate_exactly_once().await,
        }
    }

    async fn operate_exactly_once(&mut self) {
        match self.rng.u32(..100) {
            0..30 => self.run_read().await,
            30..60 => self.run_read_without_token().await,
            60..68 => self.read_both().await,
            68..95 => self.run_write(None).await,
            95..97 => {
                let limit = Duration::from_micros(self.rng.u64(100..10_000));
                self.run_write(Some(limit)).await;
            }
            _ => self.hand_over(),
        }
    }

    async fn operate_as_session(&mut self) {
        match self.rng.u32(..100) {
            0..45 => self.run_read().await,
            45..55 => self.read_twice().await,
            55..60 => self.read_both().await,
            60..77 => self.run_write(None).await,
            77..80 => {
                let limit = Duration::from_micros(self.rng.u64(100..10_000));
                self.run_write(Some(limit)).await;
            }
            80..92 => self.write().await,
            _ => self.hand_over(),
        }
    }

    async fn run_read(&mut self) {
        let (keys, began) = (self.some_keys(), self.now());
        let outcome = self.client.run_read(&keys).await;
        self.record_read(began, outcome);
    }

    /// A read that any node may serve.
    async fn run_read_without_token(&mut self) {
        let (keys, began) = (self.some_keys(), self.now());
        let set = &self.sets[self.rng.usize(..self.sets.len())];
        match set.run_read(async |conn: &mut Conn<Read>| served(conn, &keys).await).await {
            Ok(Served { seen, node, by_replica }) => {
                self.record(began, Action::Read { seen, node, by_replica, with_token: false });
            }
            Err(error) => {
                self.count_error(&error);
                self.record(began, Action::ReadFailed { error: format!("{error:?}"), with_token: false });
            }
        }
    }

    /// Two statements on one connection.
    async fn read_twice(&mut self) {
        let (keys, mut began) = (self.some_keys(), self.now());
        let conn = match self.client.read().await {
            Ok(conn) => conn,
            Err(error) => return self.record_read(began, Err(error.into())),
        };
        for _ in 0..2 {
            let outcome = served(&conn, &keys).await;
            self.record_read(began, outcome);
            began = self.now();
        }
    }

    /// Two reads at the same time.
    async fn read_both(&mut self) {
        let (one, other, began) = (self.some_keys(), self.some_keys(), self.now());
        let (one, other) = tokio::join!(self.client.run_read(&one), self.client.run_read(&other));
        self.record_read(began, one);
        self.record_read(began, other);
    }

    /// A transaction, which the session drops after a while if there is a limit, as a service whose client has left.
    async fn run_write(&mut self, limit: Option<Duration>) {
        let (keys, (write, key), began) = (self.some_keys(), self.next_write(), self.now());
        let options = self.mix.options();
        let transaction = self.client.run_write(&options, &keys, write, key);
        let ended = timeout(limit.unwrap_or(Duration::MAX), transaction).await;
        let text =
            ended.as_ref().ok().and_then(|ended| ended.as_ref().err()).map(|error| format!("{error:?}"));
        let (outcome, seen) = match ended {
            Ok(Ok(seen)) => (Outcome::Acknowledged, Some(seen)),
            Ok(Err(error)) => {
                self.record_error(began, &error);
                let outcome = match error {
                    Error::OutcomeUnknown(_) => Outcome::Unknown,
                    Error::Checkout(CheckoutError::Causal(_)) => Outcome::Refused,
                    _ => Outcome::Failed,
                };
                (outcome, None)
            }
            Err(_) => (Outcome::Dropped, None),
        };
        self.record_write(began, write, key, outcome, seen, text);
    }

    /// One statement outside a transaction.
    async fn write(&mut self) {
        let ((write, key), began) = (self.next_write(), self.now());
        let conn = match self.client.write().await {
            Ok(conn) => conn,
            Err(error) => return self.record_error(began, &error.into()),
        };
        let (outcome, text) = match insert(&conn, write, key).await {
            Ok(()) => (Outcome::Acknowledged, None),
            Err(error) => {
                self.record_error(began, &error);
                (Outcome::Unknown, Some(format!("{error:?}")))
            }
        };
        drop(conn);
        self.record_write(began, write, key, outcome, None, text);
    }

    /// Goes on as a request to another service, which has the token alone.
    fn hand_over(&mut self) {
        let to = self.rng.usize(..self.sets.len());
        self.client.hand_over(&self.sets[to]);
        self.record.hand_overs += 1;
    }

    /// Reads all keys, so that a session that was told of no loss by now has no more chance.
    async fn read_all(&mut self) {
        let (keys, deadline): (Vec<_>, _) = ((0..self.keys).collect(), Instant::now() + LAST_READ);
        loop {
            let began = self.now();
            let outcome = self.client.run_read(&keys).await;
            let is_read = outcome.as_ref().map(drop).map_err(|error| format!("{error}"));
            self.record_read(began, outcome);
            if is_read.is_ok() {
                return;
            }
            assert!(Instant::now() < deadline, "session {} is stuck: {is_read:?}", self.session);
        }
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Draws one to three keys, most of them from those that the session used before.
    fn some_keys(&mut self) -> Vec<Key> {
        let number = self.rng.usize(1..=3);
        let mut keys: Vec<_> = (0..number).map(|_| self.some_key()).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    fn some_key(&mut self) -> Key {
        if self.favourites.len() == FAVOURITES && self.rng.u32(..10) < 7 {
            return self.favourites[self.rng.usize(..FAVOURITES)];
        }
        let key = self.rng.i32(0..self.keys);
        self.favourites.push_front(key);
        self.favourites.truncate(FAVOURITES);
        key
    }

    fn next_write(&mut self) -> (WriteId, Key) {
        self.writes += 1;
        (WriteId { session: self.session, number: self.writes }, self.some_key())
    }

    fn record(&mut self, began: Duration, action: Action) {
        let (session, ended) = (self.session, self.now());
        self.record.history.push(Operation { session, began, ended, action });
    }

    fn record_read(&mut self, began: Duration, outcome: Result<Served, Error>) {
        match outcome {
            Ok(Served { seen, node, by_replica }) => {
                self.record(began, Action::Read { seen, node, by_replica, with_token: true });
            }
            Err(error) => {
                self.record_error(began, &error);
                self.record(began, Action::ReadFailed { error: format!("{error:?}"), with_token: true });
            }
        }
    }

    fn record_write(
        &mut self,
        began: Duration,
        write: WriteId,
        key: Key,
        outcome: Outcome,
        seen: Option<Snapshot>,
        error: Option<String>,
    ) {
        self.record(began, Action::Write { write, key, outcome, seen, error });
    }

    /// Counts an error; if it reports a loss, the session starts afresh.
    fn record_error(&mut self, began: Duration, error: &Error) {
        self.count_error(error);
        // In an unknown history, everything may be lost, and of an unknown position its write.
        if let Error::Checkout(CheckoutError::Causal(
            CausalError::Lost { .. }
            | CausalError::HistoryUnknown { .. }
            | CausalError::PositionUnknown { .. },
        )) = error
        {
            self.record(began, Action::LossReported);
            self.client.forget();
        }
    }

    /// Counts an error by its kind.
    fn count_error(&mut self, error: &Error) {
        let text = format!("{error:?}");
        let kind = text.split([' ', ',', '{', ')']).next().unwrap_or_default();
        *self.record.errors.entry(kind.to_owned()).or_default() += 1;
    }
}
