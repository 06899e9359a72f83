//! The actions of Patroni on request, and the faults of its members.

use std::time::Duration;

use fastrand::Rng;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::cluster::{ETCD_PLACE, PatroniCluster, PatroniMember, failed};
use super::promotion::{Promotion, Watch};
use super::settings::{RETRY_TIMEOUT, TTL};
use crate::recorded::history::Outage;
use crate::recorded::run::Log;
use crate::test_error::TestResult;

/// An outage of etcd after which a leader without failsafe mode has given up.
const ETCD_LOST: Duration = Duration::from_secs(TTL + RETRY_TIMEOUT);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Switchover,
    LeaderKilled,
    LeaderHung,
    LeadersPostgresKilled,
    ReplicaKilled,
    Restarted,
    Reinitialised,
    EtcdLostBriefly,
    EtcdLost,
    EtcdLostInFailsafeMode,
    EtcdLostInPause,
}

/// A run of any length begins with these.
const FIRST: [Fault; 2] = [Fault::Switchover, Fault::LeaderKilled];

const ALL: [Fault; 11] = [
    Fault::Switchover,
    Fault::LeaderKilled,
    Fault::LeaderHung,
    Fault::LeadersPostgresKilled,
    Fault::ReplicaKilled,
    Fault::Restarted,
    Fault::Reinitialised,
    Fault::EtcdLostBriefly,
    Fault::EtcdLost,
    Fault::EtcdLostInFailsafeMode,
    Fault::EtcdLostInPause,
];

/// The faults of a run.
pub(super) struct Faults<'c> {
    cluster: &'c PatroniCluster,
    start: Instant,
    pub(super) log: Log,
    pub(super) outages: Vec<Outage>,
    pub(super) promotions: Vec<Promotion>,
}

impl<'c> Faults<'c> {
    pub(super) fn new(cluster: &'c PatroniCluster, start: Instant) -> Self {
        let (log, outages, promotions) = (Log::new(), Vec::new(), Vec::new());
        Self { cluster, start, log, outages, promotions }
    }

    /// Injects one fault after the other, each into a cluster that is well.
    pub(super) async fn inject(&mut self, length: Duration, rng: &mut Rng) -> TestResult {
        let end = Instant::now() + length;
        let mut first = FIRST.into_iter();
        let mut round = Vec::new();
        while first.len() > 0 || Instant::now() < end {
            sleep(Duration::from_millis(rng.u64(500..2000))).await;
            if round.is_empty() {
                // Each once before any comes again.
                let only = std::env::var("PATRONI_FAULT").ok();
                let is_wanted =
                    |fault: &Fault| only.as_ref().is_none_or(|name| *name == format!("{fault:?}"));
                round = ALL.into_iter().filter(is_wanted).collect();
                rng.shuffle(&mut round);
            }
            let Some(fault) = first.next().or_else(|| round.pop()) else { break };
            let from = self.start.elapsed();
            let node = self.inject_one(fault, rng).await?;
            self.cluster.until_healthy().await?;
            let until = self.start.elapsed();
            self.log.push((from, format!("{fault:?}: {node} for {:?}", until - from)));
            self.outages.push(Outage { kind: format!("{fault:?}"), node, from, until });
        }
        Ok(())
    }

    /// Injects a fault, and returns the name of the member that has it.
    async fn inject_one(&mut self, fault: Fault, rng: &mut Rng) -> TestResult<String> {
        let (cluster, leader) = (self.cluster, self.cluster.until_leader().await?.clone());
        let others: Vec<_> = cluster.members.iter().filter(|member| member.name != leader.name).collect();
        let replica = others[rng.usize(..others.len())];
        let hold = Duration::from_millis(rng.u64(500..3000));
        let folder = &cluster.folder;
        match fault {
            Fault::Switchover => {
                let watch = Watch::start(cluster, &leader).await?;
                let candidate = self.synchronous(&leader).await?;
                let body = json!({ "leader": leader.name, "candidate": candidate });
                let request = cluster.rest(&leader, Method::POST, "switchover", &body);
                let (answer, promotion) = tokio::join!(request, watch.promotion(fault));
                answer?;
                self.promotions.push(promotion?.since(self.start));
            }
            Fault::LeaderKilled => {
                let watch = Watch::start(cluster, &leader).await?;
                folder.kill(&leader.name).await?;
                self.promotions.push(watch.promotion(fault).await?.since(self.start));
                cluster.start_member(&leader)?;
            }
            Fault::LeaderHung => {
                let watch = Watch::start(cluster, &leader).await?;
                folder.pause(&leader.name).await?;
                self.promotions.push(watch.promotion(fault).await?.since(self.start));
                sleep(hold).await;
                folder.resume(&leader.name).await?;
            }
            Fault::LeadersPostgresKilled => folder.kill(&format!("{}/data", leader.name)).await?,
            Fault::ReplicaKilled => {
                folder.kill(&replica.name).await?;
                sleep(hold).await;
                cluster.start_member(replica)?;
                return Ok(replica.name.clone());
            }
            Fault::Restarted => {
                let member = &cluster.members[rng.usize(..cluster.members.len())];
                cluster.rest(member, Method::POST, "restart", &json!({})).await?;
                return Ok(member.name.clone());
            }
            Fault::Reinitialised => {
                cluster.rest(replica, Method::POST, "reinitialize", &json!({ "force": true })).await?;
                // It answers before it begins.
                sleep(hold).await;
                return Ok(replica.name.clone());
            }
            Fault::EtcdLostBriefly => {
                folder.pause(ETCD_PLACE).await?;
                sleep(Duration::from_millis(rng.u64(200..1500))).await;
                folder.resume(ETCD_PLACE).await?;
            }
            Fault::EtcdLost => self.lose_etcd(rng).await?,
            Fault::EtcdLostInFailsafeMode => {
                self.configure(&leader, "failsafe_mode", true).await?;
                self.lose_etcd(rng).await?;
                let leader = cluster.until_leader().await?.clone();
                self.configure(&leader, "failsafe_mode", false).await?;
            }
            Fault::EtcdLostInPause => {
                self.configure(&leader, "pause", true).await?;
                self.lose_etcd(rng).await?;
                self.configure(&leader, "pause", false).await?;
            }
        }
        Ok(leader.name)
    }

    /// Takes etcd away for so long that the leader key expires.
    async fn lose_etcd(&self, rng: &mut Rng) -> TestResult {
        let folder = &self.cluster.folder;
        if rng.bool() {
            folder.kill(ETCD_PLACE).await?;
            sleep(ETCD_LOST).await;
            self.cluster.start_etcd()?;
        } else {
            folder.pause(ETCD_PLACE).await?;
            sleep(ETCD_LOST).await;
            folder.resume(ETCD_PLACE).await?;
        }
        let leads = async || self.cluster.leader_key().await.is_ok_and(|leader| leader.is_some());
        Ok(pointsman::testkit::wait::until("there is a leader key", leads).await?)
    }

    /// Changes a setting of the cluster, and waits until all members have taken it up.
    async fn configure(&self, member: &PatroniMember, name: &str, on: bool) -> TestResult {
        let value = if on { Value::Bool(true) } else { Value::Null };
        self.cluster.rest(member, Method::PATCH, "config", &json!({ name: value })).await?;
        let has_it = async |member: &PatroniMember| -> TestResult<bool> {
            // Only `pause` shows in a member's report; the others read the configuration in the same cycle.
            let answer = self.cluster.rest(member, Method::GET, "config", &Value::Null).await?;
            let found: Value = serde_json::from_str(&answer)?;
            let report = self.cluster.rest(member, Method::GET, "patroni", &Value::Null).await?;
            let report: Value = serde_json::from_str(&report)?;
            let shows = name != "pause" || report["pause"].as_bool().unwrap_or(false) == on;
            Ok(found[name].as_bool().unwrap_or(false) == on && shows)
        };
        for member in &self.cluster.members {
            let condition = format!("{} has {name} = {on}", member.name);
            let until =
                pointsman::testkit::wait::until(&condition, async || has_it(member).await.unwrap_or(false));
            until.await?;
        }
        Ok(())
    }

    /// Returns the name of the synchronous standby, which may be promoted.
    async fn synchronous(&self, leader: &PatroniMember) -> TestResult<String> {
        let members = self.cluster.members_of(leader).await?;
        let found = members.iter().find(|member| member["role"] == "sync_standby");
        let name = found.and_then(|member| member["name"].as_str());
        Ok(name.ok_or_else(|| failed("there is no synchronous standby"))?.to_owned())
    }
}
