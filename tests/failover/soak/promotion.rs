//! Failovers and switchovers, before which each acknowledged write is on two replicas.

use std::time::Duration;

use fastrand::Rng;
use pointsman::testkit::Server;
use tokio::time::{sleep, timeout};

use super::faults::{Faults, Node};
use crate::test_error::TestResult;

/// The table of the writes that show that commits wait for replicas.
pub(super) const CREATE_MARKS: &str = "CREATE TABLE marks (at timestamptz NOT NULL)";

/// Time for a standby to find the new primary; if it takes longer, the two histories differ.
const FOLLOWS: Duration = Duration::from_secs(5);

/// The end of an old primary.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Killed,
    Hung,
    /// Stopped in order, after the replicas have all that it wrote.
    Stopped,
}

impl Faults<'_> {
    /// Ends the primary, promotes the replica that has the most, and makes the others follow.
    pub(super) async fn change_primary(&self, rng: &mut Rng) -> TestResult {
        let old = self.take(self.primary()).await;
        let end = [End::Killed, End::Hung, End::Stopped][rng.usize(..3)];
        let others = || (0..self.servers().len()).filter(|place| *place != old.place);
        // A clean stop waits for every replica that is connected, also for one that hangs.
        let mut replicas = Vec::new();
        for place in others().filter(|_| end == End::Stopped) {
            replicas.push(self.take(place).await);
        }
        // One replica may have a fault of the other lane, and one of the two that remain has each write.
        synchronous(old.server, true).await?;
        sleep(Duration::from_millis(rng.u64(100..800))).await;

        let from = self.now();
        match end {
            End::Killed => old.server.kill().await?,
            End::Hung => old.server.pause().await?,
            End::Stopped => old.server.stop().await?,
        }
        sleep(Duration::from_millis(rng.u64(..500))).await;
        if end != End::Stopped {
            replicas = others().filter_map(|place| self.try_take(place)).collect();
        }
        let (new, mut followers) = most_advanced(replicas).await?;
        let kind = match end {
            End::Killed => "failover from a killed primary",
            End::Hung => "failover from a hung primary",
            End::Stopped => "switchover",
        };
        let promoted = new.server.promote().await?;
        self.record_promotion(kind.to_owned(), &new, promoted);
        if end == End::Hung {
            sleep(Duration::from_millis(rng.u64(200..1000))).await;
            old.server.resume().await?;
            sleep(Duration::from_millis(rng.u64(200..1000))).await;
        }
        let follow = async {
            let is_free = |place: &usize| followers.iter().any(|node| node.place == *place);
            let faulty: Vec<_> = others().filter(|place| *place != new.place && !is_free(place)).collect();
            let follow = async |node: Node<'_>| {
                let from = self.now();
                if follow(&node, &new).await? {
                    self.record(node.server, from, "rebuilt to follow".to_owned());
                }
                self.record_following(&node);
                TestResult::Ok(())
            };
            while let Some(node) = followers.pop() {
                follow(node).await?;
            }
            for place in faulty {
                // The fault of a replica ends before it follows.
                follow(self.take(place).await).await?;
            }
            TestResult::Ok(())
        };
        let rejoin = async {
            old.server.stop().await?;
            synchronous(old.server, false).await?;
            // It fails if the old primary no longer has the WAL at which the histories part.
            if old.server.rejoin(new.server).await.is_err() {
                old.server.rebuild(new.server).await?;
            }
            self.record_following(&old);
            self.record(old.server, from, kind.to_owned());
            TestResult::Ok(())
        };
        tokio::try_join!(follow, rejoin).map(drop)
    }
}

/// Lets a standby follow, and returns `true` if it had to be copied.
async fn follow(node: &Node<'_>, new: &Node<'_>) -> TestResult<bool> {
    let (node, new) = (node.server, new.server);
    let follows = async {
        node.follow(new).await?;
        // One that is ahead of the fork connects as well, again and again, and stays on its timeline.
        let timeline = "SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)";
        let received = "SELECT coalesce(max(lpad(upper(to_hex(received_tli)), 8, '0')), '') \
            FROM pg_stat_wal_receiver WHERE status = 'streaming'";
        while node.query_value(received).await? != new.query_value(timeline).await? {
            sleep(Duration::from_millis(20)).await;
        }
        TestResult::Ok(())
    };
    if timeout(FOLLOWS, follows).await.is_ok_and(|follows| follows.is_ok()) {
        return Ok(false);
    }
    node.rebuild(new).await?;
    Ok(true)
}

/// Lets each commit wait for two replicas, and returns once one has; or ends that.
async fn synchronous(primary: &Server, on: bool) -> TestResult {
    primary.change_setting("synchronous_standby_names", if on { "ANY 2 (*)" } else { "" }).await?;
    if on {
        primary.execute("INSERT INTO marks VALUES (now())").await?;
    }
    Ok(())
}

/// Returns the replica that has received the most WAL, and the others.
async fn most_advanced(mut replicas: Vec<Node<'_>>) -> TestResult<(Node<'_>, Vec<Node<'_>>)> {
    let mut best = (0, 0);
    for (i, replica) in replicas.iter().enumerate() {
        let query = "SELECT (greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) - '0/0')::bigint";
        let received: u64 = replica.server.query_value(query).await?.parse()?;
        best = best.max((received, i));
    }
    let best = replicas.swap_remove(best.1);
    Ok((best, replicas))
}
