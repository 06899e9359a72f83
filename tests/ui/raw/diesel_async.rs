//! diesel-async's other methods on a `Conn<Read>`.
//~ fixed: Conn<Read> => Conn<Write>

use std::ops::Deref;
use diesel_async::{AsyncConnection, SimpleAsyncConnection};
use fixture::{User, users};
use pointsman::prelude::*;

//~ fail: `load` of a write with RETURNING
//~ E0277
//~ says: a `Conn<Read>` does not lend its bare connection
pub async fn load(conn: &mut Conn<Read>) -> QueryResult<Vec<i32>> {
    diesel_async::RunQueryDsl::load(diesel::delete(users::table).returning(users::id), conn).await
}

//~ fail: `save_changes`
//~ E0277
//~ says: a `Conn<Read>` does not lend its bare connection
pub async fn save_changes(conn: &mut Conn<Read>, user: &User) -> QueryResult<User> {
    diesel_async::SaveChangesDsl::save_changes(user, conn).await
}

//~ fail: `batch_execute`, a batch of raw SQL
//~ E0277
//~ says: a `Conn<Read>` does not lend its bare connection
pub async fn batch_execute(conn: &mut Conn<Read>) -> QueryResult<()> {
    SimpleAsyncConnection::batch_execute(conn, "DELETE FROM users").await
}

//~ fail: `batch_execute`, called as a method
//~ E0599
//~ says: `batch_execute`
pub async fn batch_execute_method(conn: &mut Conn<Read>) -> QueryResult<()> {
    conn.batch_execute("DELETE FROM users").await
}

//~ fail: `batch_execute`, on a shared reference
//~ E0277
//~ says: a `Conn<Read>` does not lend its bare connection
pub async fn batch_execute_shared(conn: &Conn<Read>) -> QueryResult<()> {
    (&mut Deref::deref(conn)).batch_execute("DELETE FROM users").await
}

//~ fail: `transaction`
//~ E0277
//~ says: a `Conn<Read>` does not lend its bare connection
pub async fn transaction(conn: &mut Conn<Read>) -> QueryResult<()> {
    AsyncConnection::transaction(conn, async |_| Ok(())).await
}

//~ fail: `begin_test_transaction`
//~ E0277
//~ says: a `Conn<Read>` does not lend its bare connection
pub async fn begin_test_transaction(conn: &mut Conn<Read>) -> QueryResult<()> {
    AsyncConnection::begin_test_transaction(conn).await
}

//~ fail: `begin_test_transaction`, called as a method
//~ E0599
//~ says: `begin_test_transaction`
pub async fn begin_test_transaction_method(conn: &mut Conn<Read>) -> QueryResult<()> {
    conn.begin_test_transaction().await
}
