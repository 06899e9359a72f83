//! Three members of Patroni and their etcd, on loopback.

use std::time::Duration;

use pointsman::ReplicaSet;
use pointsman::config::{ConfigBuilder, NodeConfig};
use pointsman::testkit::ProgramFolder;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_postgres::{Client, NoTls};

use super::settings::Member;
use crate::recorded::client::CREATE_ENTRIES;
use crate::test_error::TestResult;

const PATRONI: &str = "patroni";
const ETCD: &str = "etcd";

/// Time limit for the cluster to be well. A new member is copied meanwhile, and an old leader rewound.
const LIMIT: Duration = Duration::from_secs(120);

/// Time between two looks at the cluster, which leave the processor to its members.
const INTERVAL: Duration = Duration::from_millis(200);

/// The place of etcd in the folder. A member's place has its name.
pub(super) const ETCD_PLACE: &str = "etcd";

/// The password `open-sesame` of the role `app`, hashed once instead of 4096 times, which would cost a debug build
/// a tenth of a second per connection.
const APP_VERIFIER: &str = "SCRAM-SHA-256$1:cG9pbnRzbWFuLWtpdC0xNg==$lGg8Eb18jK42sEaWdZ1J07rhZL9m1WsXQqTn705uBqc=:\
    OzTIgEguebPb1mit8bY7lfx6/ArhWPM3yPYT3OASoLQ=";

pub(super) struct PatroniCluster {
    pub(super) folder: ProgramFolder,
    pub(super) members: Vec<PatroniMember>,
    etcd_port: u16,
    etcd_peer_port: u16,
    password: String,
    pub(super) http: reqwest::Client,
}

/// A server and the Patroni that runs it.
#[derive(Debug, Clone)]
pub(super) struct PatroniMember {
    pub(super) name: String,
    port: u16,
    rest_port: u16,
}

impl PatroniCluster {
    /// Starts etcd and three members, and returns once two of them stream from the third.
    pub(super) async fn start() -> TestResult<Self> {
        let folder = ProgramFolder::create().await?;
        let member = |number| -> TestResult<_> {
            let (port, rest_port) = (folder.reserve_port()?, folder.reserve_port()?);
            Ok(PatroniMember { name: format!("node-{number}"), port, rest_port })
        };
        let members = (1..=3).map(member).collect::<TestResult<Vec<_>>>()?;
        let (etcd_port, etcd_peer_port) = (folder.reserve_port()?, folder.reserve_port()?);
        let password = format!("{:032x}", fastrand::u128(..));
        let http = reqwest::Client::builder().timeout(Duration::from_secs(30)).no_proxy().build()?;
        let cluster = Self { folder, members, etcd_port, etcd_peer_port, password, http };
        cluster.start_etcd()?;
        for member in &cluster.members {
            cluster.start_member(member)?;
        }
        if let Err(error) = cluster.until_healthy().await {
            cluster.print_logs();
            return Err(error);
        }
        let leader = cluster.until_leader().await?;
        let admin = cluster.session(leader, "postgres").await?;
        let role = format!("CREATE ROLE app LOGIN PASSWORD '{APP_VERIFIER}'");
        admin.batch_execute(&role).await?;
        admin.batch_execute("CREATE DATABASE app OWNER app").await?;
        cluster.session(leader, "app").await?.batch_execute(CREATE_ENTRIES).await?;
        Ok(cluster)
    }

    pub(super) fn start_etcd(&self) -> TestResult {
        let client = format!("http://127.0.0.1:{}", self.etcd_port);
        let peer = format!("http://127.0.0.1:{}", self.etcd_peer_port);
        let (data, members) = (self.folder.path().join("etcd-data"), format!("one={peer}"));
        let data = data.display().to_string();
        let arguments = [
            ["--name", "one"],
            ["--enable-v2=true", "--logger=zap"],
            ["--data-dir", &data],
            ["--listen-client-urls", &client],
            ["--advertise-client-urls", &client],
            ["--listen-peer-urls", &peer],
            ["--initial-advertise-peer-urls", &peer],
            ["--initial-cluster", &members],
        ];
        Ok(self.folder.start(ETCD_PLACE, ETCD, arguments.as_flattened())?)
    }

    pub(super) fn start_member(&self, member: &PatroniMember) -> TestResult {
        let place = self.folder.path().join(&member.name);
        let settings = Member {
            name: &member.name,
            port: member.port,
            rest_port: member.rest_port,
            etcd_port: self.etcd_port,
            password: &self.password,
        };
        let text = settings.render(&place, &self.folder.server_programs());
        let file = self.folder.write(&format!("{}.yml", member.name), &text)?;
        Ok(self.folder.start(&member.name, PATRONI, &[&file.display().to_string()])?)
    }

    /// Returns a configuration with the members' own addresses.
    pub(super) fn config(&self) -> TestResult<ConfigBuilder> {
        let mut config = pointsman::Config::builder();
        for (i, member) in self.members.iter().enumerate() {
            let url = format!("postgres://app:open-sesame@127.0.0.1:{}/app", member.port);
            let node = if i == 0 { NodeConfig::primary(url) } else { NodeConfig::replica(url) };
            config = config.node(node?.with_name(&member.name));
        }
        Ok(config)
    }

    /// Opens a superuser's session.
    pub(super) async fn session(&self, member: &PatroniMember, database: &str) -> TestResult<Client> {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(member.port).user("postgres").password(&self.password);
        config.dbname(database).connect_timeout(Duration::from_secs(5));
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Waits until Patroni reports a leader, and two running members, one of them synchronous, that stream from it.
    pub(super) async fn until_healthy(&self) -> TestResult {
        let deadline = Instant::now() + LIMIT;
        loop {
            match timeout_at(deadline, self.is_healthy()).await {
                Ok(Ok(true)) => return Ok(()),
                Ok(_) if Instant::now() < deadline => sleep(INTERVAL).await,
                _ => return Err(failed("one synchronous standby and one replica do not stream").into()),
            }
        }
    }

    async fn is_healthy(&self) -> TestResult<bool> {
        let leader = self.leader().await?;
        let members = self.members_of(leader).await?;
        let mut roles: Vec<_> = members.iter().filter_map(|member| member["role"].as_str()).collect();
        roles.sort_unstable();
        let runs = |member: &Value| matches!(member["state"].as_str(), Some("running" | "streaming"));
        let is_well = roles == ["leader", "replica", "sync_standby"]
            && members.iter().all(|member| runs(member) && member["timeline"] == members[0]["timeline"]);
        if !is_well {
            return Ok(false);
        }
        let query = "SELECT count(*) FROM pg_stat_replication \
            WHERE state = 'streaming' AND application_name LIKE 'node-%' AND NOT pg_is_in_recovery()";
        let streaming: i64 = self.session(leader, "postgres").await?.query_one(query, &[]).await?.get(0);
        Ok(streaming == 2)
    }

    /// Returns the holder of the leader key, as soon as there is one.
    pub(super) async fn until_leader(&self) -> TestResult<&PatroniMember> {
        let deadline = Instant::now() + LIMIT;
        loop {
            match timeout_at(deadline, self.leader()).await {
                Ok(Err(_)) if Instant::now() < deadline => sleep(INTERVAL).await,
                found => return found?,
            }
        }
    }

    /// Returns the holder of the leader key.
    async fn leader(&self) -> TestResult<&PatroniMember> {
        let name = self.leader_key().await?.ok_or_else(|| failed("there is no leader"))?;
        Ok(self
            .members
            .iter()
            .find(|member| member.name == name)
            .ok_or_else(|| failed("a stranger leads"))?)
    }

    /// Returns the value of the leader key, straight from etcd.
    pub(super) async fn leader_key(&self) -> TestResult<Option<String>> {
        let url = format!("http://127.0.0.1:{}/v2/keys/service/pointsman/leader", self.etcd_port);
        let answer = self.http.get(url).send().await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let answer: Value = answer.error_for_status()?.json().await?;
        Ok(answer["node"]["value"].as_str().map(str::to_owned))
    }

    /// Returns what a member reports of all members.
    pub(super) async fn members_of(&self, member: &PatroniMember) -> TestResult<Vec<Value>> {
        let answer = self.rest(member, Method::GET, "cluster", &Value::Null).await?;
        let answer: Value = serde_json::from_str(&answer)?;
        Ok(answer["members"].as_array().cloned().unwrap_or_default())
    }

    /// Sends a request to a member's REST API.
    pub(super) async fn rest(
        &self,
        member: &PatroniMember,
        method: Method,
        path: &str,
        body: &Value,
    ) -> TestResult<String> {
        let url = format!("http://127.0.0.1:{}/{path}", member.rest_port);
        let mut request = self.http.request(method, url);
        if !body.is_null() {
            request = request.json(body);
        }
        let answer = request.send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        if status.is_success() { Ok(text) } else { Err(failed(format!("{path}: {status}: {text}")).into()) }
    }

    pub(super) fn print_logs(&self) {
        for place in self.members.iter().map(|member| member.name.as_str()).chain([ETCD_PLACE]) {
            let log = self.folder.log(place);
            let lines: Vec<_> = log.lines().collect();
            println!("{place}:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
    }
}

/// A set of all members.
pub(super) async fn connect(cluster: &PatroniCluster) -> TestResult<ReplicaSet> {
    crate::fixture::connect(cluster.config()?).await
}

/// Returns an error that says what failed.
pub(super) fn failed(what: impl Into<String>) -> std::io::Error {
    std::io::Error::other(what.into())
}
