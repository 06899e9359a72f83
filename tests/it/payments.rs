//! The payments repository on a real cluster.

mod callbacks;
mod lists;
mod settlements;
mod sums;
mod transactions;

use diesel::sql_types::{BigInt, Text};
use pointsman::payments::{
    AccountId, Asset, Kind, MIGRATIONS, NewTransaction, Status, Transaction, TransactionRepository,
};
use pointsman::prelude::*;
use pointsman::testkit::{Cluster, ClusterBuilder};
use pointsman::{ReplicaSet, migrate};

use crate::support::connect;

/// A cluster with the tables in it, and a set of its servers.
struct Fixture {
    // Before the cluster, so that the set has ended when the servers do.
    set: ReplicaSet,
    cluster: Cluster,
}

impl Fixture {
    async fn start() -> Self {
        Self::start_with(Cluster::builder()).await
    }

    async fn start_with(builder: ClusterBuilder) -> Self {
        let cluster = builder.start().await.expect("a cluster");
        let set = connect(&cluster).await;
        migrate::run(set.write().await.expect("the primary"), MIGRATIONS).await.expect("migrations");
        Self { set, cluster }
    }

    async fn write(&self) -> Conn<Write> {
        self.set.write().await.expect("the primary")
    }

    /// Queries the server directly, past all code under test.
    async fn count(&self, sql: &str) -> i64 {
        #[derive(QueryableByName)]
        struct Count {
            #[diesel(sql_type = BigInt)]
            count: i64,
        }
        let count: Count = diesel::sql_query(sql).get_result(&self.write().await).await.expect("a count");
        count.count
    }

    async fn text(&self, sql: &str) -> String {
        #[derive(QueryableByName)]
        struct Answer {
            #[diesel(sql_type = Text)]
            text: String,
        }
        let answer: Answer = diesel::sql_query(sql).get_result(&self.write().await).await.expect("a text");
        answer.text
    }
}

fn account(name: &str) -> AccountId {
    name.parse().expect("valid")
}

fn asset(name: &str) -> Asset {
    name.parse().expect("valid")
}

/// A completed deposit or withdrawal (with a minus in front) of `bank`.
fn completed(provider_id: &str, of: &str, amount: &str, what: &str) -> NewTransaction {
    let (kind, amount) = match amount.strip_prefix('-') {
        Some(amount) => (Kind::Withdrawal, amount),
        None => (Kind::Deposit, amount),
    };
    let provider = "bank".parse().expect("valid");
    let provider_id = provider_id.parse().expect("valid");
    NewTransaction::new(provider, provider_id, account(of), kind, amount.parse().expect("valid"), asset(what))
        .with_status(Status::Completed)
}

async fn record(conn: &Conn<Write>, new: NewTransaction) -> Transaction {
    conn.record_transaction(&new).await.expect("a transaction")
}
