//! A program that writes a row to the primary and reads it from a replica.
//!
//! ```sh
//! DATABASE_URL=postgres://app:secret@db-1/app DATABASE_REPLICA_URL=postgres://app:secret@db-2/app \
//!     cargo run --example minimal
//! ```

#![expect(missing_docs, reason = "`table!` makes items that need no documentation in an example")]

use pointsman::prelude::*;
use pointsman::{Config, Error, ReplicaSet};

diesel::table! { visits (id) { id -> BigInt, at -> Timestamptz, } }

async fn count(conn: &Conn<Read>) -> QueryResult<i64> {
    visits::table.count().get_result(conn).await
}

async fn record(conn: &Conn<Write>) -> QueryResult<usize> {
    diesel::insert_into(visits::table).values(visits::at.eq(diesel::dsl::now)).execute(conn).await
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let set = ReplicaSet::connect(Config::from_env()?).await?;

    let writer = set.write().await?;
    let table = "CREATE TABLE IF NOT EXISTS visits \
                 (id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, at timestamptz NOT NULL)";
    diesel::sql_query(table).execute(&writer).await?;
    record(&writer).await?;
    // This read must see the write, so it runs on the same connection. `record(writer.as_read())` does not compile.
    println!("{} visits on {}, the {}", count(writer.as_read()).await?, writer.node(), writer.role());
    drop(writer);

    // A replica serves this read, and it may be a moment behind. If its node fails, it runs again on another one.
    let (visits, node) = set
        .run_read(async |conn| -> Result<_, Error> { Ok((count(conn).await?, conn.node().to_owned())) })
        .await?;
    println!("{visits} visits on {node}");

    set.close().await
}
