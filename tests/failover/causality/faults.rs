//! Random faults: replicas that lag, hang and die, primaries that crash, and promotions that lose writes.

use std::time::Duration;

use fastrand::Rng;
use pointsman::testkit::{Cluster, Server};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::recorded::history::Promotion;
use crate::recorded::run::{ENTRIES, Log, rows};
use crate::test_error::TestResult;

/// Time that a failover takes, with all that follows until the three servers replicate again.
const FAILOVER: Duration = Duration::from_secs(6);

/// Time for a standby to find the new primary; if it takes longer, the two histories differ.
const FOLLOWS: Duration = Duration::from_secs(5);

/// The faults of a run.
pub(super) struct Faults<'c> {
    cluster: &'c Cluster,
    rng: Rng,
    start: Instant,
    pub(super) log: Log,
    pub(super) promotions: Vec<Promotion>,
}

impl<'c> Faults<'c> {
    pub(super) fn new(cluster: &'c Cluster, rng: Rng, start: Instant) -> Self {
        Self { cluster, rng, start, log: Log::new(), promotions: Vec::new() }
    }

    /// Injects all faults, and some failovers between them.
    pub(super) async fn inject_all(&mut self, length: Duration, failovers: u32) -> TestResult {
        let end = Instant::now() + length;
        for left in (1..=failovers).rev() {
            let time = end.saturating_duration_since(Instant::now());
            self.disturb(time.saturating_sub(FAILOVER * left) / (left + 1)).await?;
            self.fail_over().await?;
        }
        self.disturb(end.saturating_duration_since(Instant::now())).await
    }

    /// Lets one replica lag, and then the other one.
    pub(super) async fn lag(&mut self, length: Duration) -> TestResult {
        let (_, replicas) = self.roles().await?;
        let end = Instant::now() + length;
        for replica in replicas.into_iter().cycle() {
            replica.pause_replay().await?;
            sleep(Duration::from_millis(700)).await;
            replica.resume_replay().await?;
            if Instant::now() >= end {
                break;
            }
        }
        Ok(())
    }

    /// Disturbs each replica by itself for a while, and now and then the primary.
    async fn disturb(&mut self, length: Duration) -> TestResult {
        let (primary, [one, other]) = self.roles().await?;
        let (start, end) = (self.start, Instant::now() + length);
        let (first, second, third) = (self.rng.fork(), self.rng.fork(), self.rng.fork());
        let (one, other, primary) = tokio::join!(
            disturb_replica(one, first, start, end),
            disturb_replica(other, second, start, end),
            crash(primary, third, start, end),
        );
        self.log.extend([one?, other?, primary?].concat());
        Ok(())
    }

    /// Loses the primary and promotes a replica, which may lack acknowledged writes; the others follow it.
    async fn fail_over(&mut self) -> TestResult {
        let (old, mut replicas) = self.roles().await?;
        self.rng.shuffle(&mut replicas);
        let [new, other] = replicas;
        let began = self.start.elapsed();
        let lacks_writes = self.rng.u32(..4) > 0;
        if lacks_writes {
            new.disconnect_from_primary().await?;
            if self.rng.bool() {
                other.disconnect_from_primary().await?;
            }
            self.pause(50..400).await;
        }
        let hangs = self.rng.u32(..3) == 0;
        if hangs {
            old.pause().await?
        } else {
            old.kill().await?
        }
        self.pause(0..500).await;
        // What is under way could still arrive after the comparison.
        other.disconnect_from_primary().await?;
        let is_ahead = received(other).await? > received(new).await?;
        new.promote().await?;
        let had = rows(&new.query_value(ENTRIES).await?).into_iter().map(|(_, write)| write).collect();
        self.promotions.push(Promotion { at: self.start.elapsed(), had });
        let what = format!(
            "failover from {} ({}) to {} ({}); {} is {}",
            old.name(),
            if hangs { "hangs" } else { "killed" },
            new.name(),
            if lacks_writes { "lacks writes" } else { "has all that it received" },
            other.name(),
            if is_ahead { "ahead of it" } else { "not ahead" },
        );
        self.log.push((began, what));
        self.pause(0..500).await;
        if hangs {
            old.resume().await?;
            self.pause(0..500).await;
        }
        let follow = async {
            let follows =
                !is_ahead && timeout(FOLLOWS, other.follow(new)).await.is_ok_and(|followed| followed.is_ok());
            if follows { Ok(()) } else { other.rebuild(new).await }
        };
        let rejoin = async {
            // It fails if the old primary no longer has the WAL at which the histories part.
            if old.rejoin(new).await.is_ok() { Ok(()) } else { old.rebuild(new).await }
        };
        tokio::try_join!(follow, rejoin)?;
        self.log.push((self.start.elapsed(), "the others follow".to_owned()));
        Ok(())
    }

    /// Returns the present primary and the others.
    async fn roles(&self) -> TestResult<(&'c Server, [&'c Server; 2])> {
        let primary = self.cluster.current_primary().await?;
        let others: Vec<_> =
            self.cluster.servers().iter().filter(|server| server.name() != primary.name()).collect();
        Ok((primary, others.try_into().expect("two replicas")))
    }

    async fn pause(&mut self, milliseconds: std::ops::Range<u64>) {
        sleep(Duration::from_millis(self.rng.u64(milliseconds))).await;
    }
}

/// Returns the position up to which a standby has what its primary wrote.
async fn received(server: &Server) -> TestResult<u64> {
    let query = "SELECT (greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) - '0/0')::bigint";
    Ok(server.query_value(query).await?.parse()?)
}

/// Injects one fault after the other.
async fn disturb_replica(server: &Server, mut rng: Rng, start: Instant, end: Instant) -> TestResult<Log> {
    let mut log = Log::new();
    loop {
        sleep(Duration::from_millis(rng.u64(50..700))).await;
        if Instant::now() >= end {
            return Ok(log);
        }
        let (began, hold) = (start.elapsed(), Duration::from_millis(rng.u64(100..1500)));
        let fault = match rng.u32(..6) {
            0 => {
                server.pause_replay().await?;
                sleep(hold).await;
                server.resume_replay().await?;
                "replay paused"
            }
            1 | 2 => {
                server.set_replay_delay(Duration::from_millis(rng.u64(100..1000))).await?;
                sleep(hold).await;
                server.set_replay_delay(Duration::ZERO).await?;
                "replay delayed"
            }
            3 => {
                server.disconnect_from_primary().await?;
                sleep(hold).await;
                server.reconnect_to_primary().await?;
                "disconnected"
            }
            4 => {
                server.kill().await?;
                sleep(hold).await;
                server.start().await?;
                "killed"
            }
            _ => {
                server.pause().await?;
                sleep(hold).await;
                server.resume().await?;
                "hung"
            }
        };
        let took = start.elapsed() - began;
        log.push((began, format!("{} {fault} for {took:?}", server.name())));
    }
}

/// Crashes the primary once, or not, without a promotion.
async fn crash(primary: &Server, mut rng: Rng, start: Instant, end: Instant) -> TestResult<Log> {
    let left = end.saturating_duration_since(Instant::now());
    sleep_until(end - left.mul_f64(rng.f64())).await;
    if rng.bool() {
        return Ok(Log::new());
    }
    let began = start.elapsed();
    primary.stop_immediate().await?;
    primary.start().await?;
    Ok(vec![(began, format!("{} crashed", primary.name()))])
}
