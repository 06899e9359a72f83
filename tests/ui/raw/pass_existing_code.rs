//! Code that was written for diesel-async, called with a `Conn<Write>`.

use diesel::pg::Pg;
use diesel::prelude::*;
use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl, SimpleAsyncConnection};
use pointsman::{Conn, RawAccess, Write};
use fixture::{User, users};

pub async fn takes_the_connection(conn: &mut AsyncPgConnection) -> QueryResult<Vec<User>> {
    User::query().load(conn).await
}

pub async fn takes_any<C: AsyncConnection<Backend = Pg>>(conn: &mut C) -> QueryResult<()> {
    conn.batch_execute("SELECT 1").await
}

pub async fn called(conn: &mut Conn<Write>) -> QueryResult<Vec<User>> {
    takes_any(conn).await?;
    takes_any(&mut **conn).await?;
    takes_the_connection(conn).await
}

/// Only the type of the connection differs from a program that uses diesel-async.
pub async fn unchanged(conn: &mut Conn<Write>) -> QueryResult<usize> {
    let _: Vec<User> = users::table.select(User::as_select()).load(conn).await?;
    conn.batch_execute("SELECT 1").await?;
    conn.begin_test_transaction().await?;
    AsyncConnection::transaction(conn, async |conn| diesel::delete(users::table).execute(conn).await).await
}

pub async fn transactions(conn: &mut Conn<Write>) -> QueryResult<usize> {
    conn.transaction(async |tx| {
        takes_the_connection(tx).await?;
        diesel::delete(users::table).execute(tx).await
    })
    .await?;
    conn.build_transaction()
        .serializable()
        .deferrable()
        .read_write()
        .run(async |tx| diesel::delete(users::table).execute(tx).await)
        .await
}

/// A function that is generic over the intent and needs the bare connection.
pub async fn generic<I: RawAccess>(conn: &mut Conn<I>) -> QueryResult<Vec<User>> {
    takes_the_connection(conn).await
}
