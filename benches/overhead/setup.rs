//! The servers, the table and the pools that the benchmarks run on.

use diesel::prelude::*;
use diesel_async::AsyncPgConnection;
use diesel_async::pooled_connection::bb8::Pool;
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod};
use pointsman::testkit::Cluster;
use pointsman::{Config, ReplicaSet, Role};

pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;
pub(crate) type Bb8 = Pool<AsyncPgConnection>;

/// Connections of every pool; it is the default of both crates.
pub(crate) const POOL: u32 = 10;

/// Number of rows in the table.
pub(crate) const ROWS: i32 = 1000;

diesel::table! { users (id) { id -> Integer, name -> Text, } }

#[derive(Queryable)]
#[expect(dead_code, reason = "what counts is that the row was made into it")]
pub(crate) struct User {
    pub(crate) id: i32,
    pub(crate) name: String,
}

/// A primary and two replicas that hold the table.
pub(crate) async fn cluster() -> Result<Cluster> {
    let cluster = Cluster::builder().replicas(2).start().await?;
    let primary = cluster.primary();
    primary.execute("CREATE TABLE users (id integer PRIMARY KEY, name text NOT NULL)").await?;
    let insert = format!("INSERT INTO users SELECT i, 'user ' || i FROM generate_series(1, {ROWS}) AS i");
    primary.execute(&insert).await?;
    primary.execute("VACUUM ANALYZE users").await?;
    cluster.wait_caught_up().await?;
    Ok(cluster)
}

/// A set of the primary and the first replicas; its reads are served by the replicas.
pub(crate) async fn set(cluster: &Cluster, replicas: usize) -> Result<ReplicaSet> {
    let urls = cluster.urls();
    let config = urls[1..=replicas]
        .iter()
        .fold(Config::builder().primary(&urls[0]), |config, url| config.replica(url));
    let set = ReplicaSet::connect(config.build()?).await?;
    assert_eq!(set.config().pool().max_size, POOL);
    assert_eq!(set.read().await?.role(), Role::Replica, "the reads are to be compared on a replica");
    Ok(set)
}

/// diesel-async's own pool over one server.
pub(crate) async fn bb8(url: &str, recycling: RecyclingMethod<AsyncPgConnection>) -> Result<Bb8> {
    let mut config = ManagerConfig::default();
    config.recycling_method = recycling;
    let manager = AsyncDieselConnectionManager::new_with_config(url, config);
    Ok(Pool::builder().max_size(POOL).build(manager).await?)
}
