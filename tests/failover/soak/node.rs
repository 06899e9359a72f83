//! The faults of one node, which is left as it was found.

use std::time::Duration;

use fastrand::Rng;
use pointsman::testkit::{Server, TestkitError};
use tokio::time::{Instant, sleep, timeout};

use super::faults::{Faults, Node};
use crate::test_error::TestResult;

/// Time for a standby to find its primary again; if it takes longer, the primary is gone, and its successor is
/// given to the standby after this fault.
const FINDS: Duration = Duration::from_secs(3);

/// Time for a copy of the primary, which may be replaced meanwhile.
const COPIED: Duration = Duration::from_secs(30);

impl Faults<'_> {
    /// Injects one fault into a node that is free.
    pub(super) async fn disturb_one(&self, rng: &mut Rng) -> TestResult {
        let mut places: Vec<_> = (0..self.servers().len()).collect();
        rng.shuffle(&mut places);
        let Some(node) = places.into_iter().find_map(|place| self.try_take_for_fault(place)) else {
            return Ok(());
        };
        let (from, hold) = (self.now(), Duration::from_millis(rng.u64(200..2000)));
        let primary = self.primary();
        let injected = if node.place == primary || rng.bool() {
            self.disturb_any(&node, rng, hold).await
        } else {
            self.disturb_replica(&node, rng, hold).await
        };
        let kind = match injected {
            // A replica that was ahead of the new primary neither connects to it nor starts.
            Err(_) if self.primary() != primary && node.place != primary => {
                node.server.proxy().await?.pass().await?;
                self.rebuild(node.server).await?;
                "rebuilt after a promotion"
            }
            injected => injected?,
        };
        self.record(node.server, from, kind.to_owned());
        Ok(())
    }

    /// Injects a fault that a primary and a replica can have.
    async fn disturb_any(&self, node: &Node<'_>, rng: &mut Rng, hold: Duration) -> TestResult<&'static str> {
        let (server, proxy) = (node.server, node.server.proxy().await?);
        Ok(match rng.u32(..8) {
            0 => {
                server.kill().await?;
                sleep(hold).await;
                self.start(node).await?;
                "killed"
            }
            1 => {
                server.pause().await?;
                sleep(hold).await;
                server.resume().await?;
                "hung"
            }
            2 => {
                server.stop_immediate().await?;
                self.start(node).await?;
                "crashed"
            }
            3 => {
                // It may wait for a standby that hangs.
                if !timeout(FINDS, server.stop()).await.is_ok_and(|stopped| stopped.is_ok()) {
                    server.kill().await?;
                }
                self.start(node).await?;
                "restarted"
            }
            4 => {
                proxy.refuse().await?;
                proxy.reset().await?;
                sleep(hold).await;
                proxy.pass().await?;
                "network cut"
            }
            5 => {
                proxy.stall().await?;
                sleep(hold).await;
                proxy.pass().await?;
                "network stalled"
            }
            6 => {
                proxy.latency(Duration::from_millis(rng.u64(10..150))).await?;
                sleep(hold).await;
                proxy.pass().await?;
                "network slow"
            }
            _ => {
                proxy.cut_after(rng.u64(100..20_000)).await?;
                sleep(hold).await;
                proxy.pass().await?;
                "replies cut"
            }
        })
    }

    async fn disturb_replica(
        &self,
        node: &Node<'_>,
        rng: &mut Rng,
        hold: Duration,
    ) -> TestResult<&'static str> {
        let server = node.server;
        Ok(match rng.u32(..4) {
            0 => {
                server.pause_replay().await?;
                sleep(hold).await;
                server.resume_replay().await?;
                "replay paused"
            }
            1 => {
                server.set_replay_delay(Duration::from_millis(rng.u64(100..1000))).await?;
                sleep(hold).await;
                server.set_replay_delay(Duration::ZERO).await?;
                "replay delayed"
            }
            2 => {
                server.disconnect_from_primary().await?;
                sleep(hold).await;
                let _ = timeout(FINDS, server.reconnect_to_primary()).await;
                "disconnected"
            }
            _ => {
                self.rebuild(server).await?;
                "rebuilt"
            }
        })
    }

    /// Starts a server, or copies the primary if the server is a standby ahead of a fork, which cannot start.
    async fn start(&self, node: &Node<'_>) -> TestResult {
        match node.server.start().await {
            Err(TestkitError::NotStarted { .. }) if node.place != self.primary() => {
                self.rebuild(node.server).await
            }
            started => Ok(started?),
        }
    }

    /// Copies the primary that there is then.
    async fn rebuild(&self, server: &Server) -> TestResult {
        let deadline = Instant::now() + COPIED;
        loop {
            let primary = &self.servers()[self.primary()];
            match timeout(COPIED, server.rebuild(primary)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) if Instant::now() >= deadline => return Err(error.into()),
                _ => sleep(Duration::from_millis(100)).await,
            }
        }
    }
}
