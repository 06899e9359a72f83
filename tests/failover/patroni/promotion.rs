//! A promotion by Patroni, as etcd and the servers show it.

use std::fmt;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::Client;

use super::cluster::{PatroniCluster, PatroniMember, failed};
use super::faults::Fault;
use crate::test_error::TestResult;

/// Time between two questions, to etcd and to each server. The instants are late by this at most.
const INTERVAL: Duration = Duration::from_millis(2);

/// Time for Patroni to promote.
const LIMIT: Duration = Duration::from_secs(45);

/// A look at the leader key and at the standbys, which begins before the fault.
pub(super) struct Watch<'c> {
    cluster: &'c PatroniCluster,
    leader: String,
    standbys: Vec<Client>,
}

/// A promotion that happened.
pub(super) struct Promotion<T = Duration> {
    pub(super) fault: Fault,
    /// The leader key had its new holder.
    pub(super) key_moved: T,
    /// The new primary was out of recovery.
    pub(super) promoted: T,
}

impl<'c> Watch<'c> {
    pub(super) async fn start(cluster: &'c PatroniCluster, leader: &PatroniMember) -> TestResult<Self> {
        let mut standbys = Vec::new();
        for member in cluster.members.iter().filter(|member| member.name != leader.name) {
            standbys.push(cluster.session(member, "postgres").await?);
        }
        Ok(Self { cluster, leader: leader.name.clone(), standbys })
    }

    /// Waits until the leader key has moved and a standby was promoted.
    pub(super) async fn promotion(self, fault: Fault) -> TestResult<Promotion<Instant>> {
        let [one, other] = &self.standbys[..] else { return Err(failed("there are two standbys").into()) };
        let promoted = async {
            tokio::select! {
                at = is_promoted(one) => at,
                at = is_promoted(other) => at,
            }
        };
        let both = async { tokio::join!(self.key_moved(), promoted) };
        let (key_moved, promoted) = timeout(LIMIT, both).await?;
        Ok(Promotion { fault, key_moved, promoted })
    }

    async fn key_moved(&self) -> Instant {
        loop {
            match self.cluster.leader_key().await {
                Ok(Some(leader)) if leader != self.leader => return Instant::now(),
                _ => sleep(INTERVAL).await,
            }
        }
    }
}

/// Returns the instant at which a standby is out of recovery; never if its session ends before.
async fn is_promoted(standby: &Client) -> Instant {
    loop {
        match standby.query_one("SELECT pg_is_in_recovery()", &[]).await {
            Ok(row) if !row.get::<_, bool>(0) => return Instant::now(),
            Ok(_) => sleep(INTERVAL).await,
            Err(_) => return std::future::pending().await,
        }
    }
}

impl Promotion<Instant> {
    /// Returns the promotion with times since the start of the run.
    pub(super) fn since(self, start: Instant) -> Promotion {
        let Self { fault, key_moved, promoted } = self;
        let since = |at: Instant| at.duration_since(start);
        Promotion { fault, key_moved: since(key_moved), promoted: since(promoted) }
    }
}

impl fmt::Display for Promotion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?}: promoted {:?} after the leader key moved",
            self.fault,
            self.promoted.saturating_sub(self.key_moved)
        )
    }
}
