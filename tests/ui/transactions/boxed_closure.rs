//! The closure that transactions of older diesel-async versions take.
//~ E0631
//~ says: type mismatch in closure arguments

use fixture::users;
use pointsman::prelude::*;

pub async fn run(conn: &mut Conn<Write>) -> QueryResult<Vec<i32>> {
    conn.transaction(
        |tx| Box::pin(async move { users::table.select(users::id).load::<i32>(tx).await }), // fixed: async |tx| users::table.select(users::id).load::<i32>(tx).await,
    )
    .await
}
