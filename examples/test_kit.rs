//! Tests with the test kit: one whose work is rolled back, and one that breaks the primary.
//!
//! ```sh
//! cargo test --features testkit --example test_kit
//! ```
//!
//! The kit starts real PostgreSQL servers and leaves nothing behind. It needs PostgreSQL's server programs.

#![expect(missing_docs, reason = "`table!` makes items that need no documentation in an example")]

use pointsman::prelude::*;
use pointsman::{Error, ReplicaSet};

diesel::table! { seats (number) { number -> Integer, passenger -> Nullable<Text>, } }

/// Books a seat. Returns `false` if it is taken.
async fn book(set: &ReplicaSet, number: i32, passenger: &str) -> Result<bool, Error> {
    set.run_write(async |tx| -> Result<bool, Error> {
        let free = seats::table.find(number).filter(seats::passenger.is_null());
        Ok(diesel::update(free).set(seats::passenger.eq(passenger)).execute(tx).await? == 1)
    })
    .await
}

/// Counts the seats that are free. A replica can serve it.
async fn free(set: &ReplicaSet) -> Result<i64, Error> {
    set.run_read(async |conn| -> Result<i64, Error> {
        Ok(seats::table.filter(seats::passenger.is_null()).count().get_result(conn).await?)
    })
    .await
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let set = ReplicaSet::connect(pointsman::Config::from_env()?).await?;
    let booked = book(&set, 1, "Ada").await?;
    println!("booked: {booked}, {} seats are free", free(&set).await?);
    set.close().await
}

#[cfg(test)]
mod tests {
    use std::error::Error as StdError;

    use pointsman::Config;
    use pointsman::testkit::{Cluster, RollbackSet};

    use super::*;

    const TABLE: &str =
        "CREATE TABLE seats (number int PRIMARY KEY, passenger text); INSERT INTO seats VALUES (1), (2)";

    #[tokio::test]
    async fn a_seat_is_booked_once() -> Result<(), Box<dyn StdError>> {
        // Tests that break nothing can share a database: the work of each is rolled back.
        let cluster = Cluster::builder().start().await?;
        cluster.primary().execute(TABLE).await?;
        let config = Config::builder().primary(cluster.primary().url()).build()?;

        let set = RollbackSet::connect(config.clone()).await?;
        assert!(book(&set, 1, "Ada").await?);
        assert!(!book(&set, 1, "Grace").await?);
        assert_eq!(free(&set).await?, 1);
        drop(set);

        let set = RollbackSet::connect(config).await?;
        assert_eq!(free(&set).await?, 2);
        Ok(())
    }

    #[tokio::test]
    async fn booking_goes_on_after_a_failover() -> Result<(), Box<dyn StdError>> {
        let cluster = Cluster::builder().replicas(1).start().await?;
        cluster.primary().execute(TABLE).await?;
        cluster.wait_caught_up().await?;
        let (primary, replica) = (cluster.primary(), cluster.replica(0));
        let set =
            ReplicaSet::connect(Config::builder().primary(primary.url()).replica(replica.url()).build()?)
                .await?;

        // Break.
        primary.kill().await?;
        assert_eq!(free(&set).await?, 2, "reads go on");

        // Restore. The booking waits until the set has found the new primary.
        replica.promote().await?;
        assert!(book(&set, 2, "Ada").await?);
        Ok(())
    }
}
