//! Code with a bare connection calls functions that take a `Conn`.

use diesel_async::AsyncPgConnection;
use pointsman::prelude::*;
use pointsman::{BorrowedConn, ReplicaSet};
use fixture::{User, Users, users};

/// A module that still uses diesel-async, in one file with code that uses Pointsman.
pub mod old {
    use diesel::prelude::*;
    use diesel_async::{AsyncConnection, AsyncPgConnection, RunQueryDsl};
    use pointsman::Conn;
    use fixture::users;

    pub async fn names(conn: &mut AsyncPgConnection) -> QueryResult<Vec<String>> {
        users::table.select(users::name).load(conn).await
    }

    pub async fn rename_all(conn: &mut AsyncPgConnection) -> QueryResult<i64> {
        conn.transaction(async |conn| {
            for name in names(conn).await? {
                super::add(&Conn::borrow_from(conn), &name).await?;
            }
            super::add_two(&mut Conn::borrow_from(conn), ["a", "b"]).await?;
            super::count(&Conn::borrow_from(conn)).await
        })
        .await
    }

    /// A call of Pointsman's trait by its path, because diesel-async's is imported.
    pub async fn one(conn: &mut AsyncPgConnection) -> QueryResult<Vec<i32>> {
        let conn = Conn::<pointsman::Read>::borrow_from(conn);
        pointsman::RunQueryDsl::load(users::table.select(users::id), &conn).await
    }
}

pub async fn count(conn: &Conn<Read>) -> QueryResult<i64> {
    users::table.count().get_result(conn).await
}

pub async fn add(conn: &Conn<Write>, name: &str) -> QueryResult<usize> {
    diesel::insert_into(users::table).values(users::name.eq(name)).execute(conn).await
}

pub async fn add_two(conn: &mut Conn<Write>, names: [&'static str; 2]) -> QueryResult<()> {
    conn.transaction(async |tx| {
        add(tx, names[0]).await?;
        add(tx, names[1]).await.map(drop)
    })
    .await
}

pub async fn report(conn: &mut Conn<Read>) -> QueryResult<i64> {
    conn.build_transaction().repeatable_read().run(async |tx| count(tx).await).await
}

pub async fn by_value(conn: Conn<Read>) -> QueryResult<i64> {
    count(&conn).await
}

/// Repository methods, statements and functions on one guard.
pub async fn guard(conn: &mut AsyncPgConnection) -> QueryResult<Option<User>> {
    let mut writer: BorrowedConn<'_, Write> = Conn::borrow_from(conn);
    writer.rename(1, "a").await?;
    writer.find(1).await?;
    count(writer.as_read()).await?;
    writer.transaction(async |tx| tx.rename(2, "b").await).await?;
    diesel::delete(users::table).execute(&writer).await?;
    drop(writer);
    let mut reader = Conn::<Read>::borrow_from(conn);
    report(&mut reader).await?;
    users::table.select(users::id).load::<i32>(&reader).await?;
    reader.find(1).await
}

/// A `Conn<Write>` dereferences to a bare connection, which can be borrowed again.
pub async fn lent_on(set: &ReplicaSet, own: AsyncPgConnection) -> Result<(), pointsman::Error> {
    let mut conn = set.write().await?;
    old::rename_all(&mut conn).await?;
    count(&Conn::borrow_from(&mut conn)).await?;
    by_value(conn.into_read()).await?;
    by_value(Conn::from_connection(own)).await?;
    Ok(())
}

/// In a spawned task.
pub fn spawned(mut conn: AsyncPgConnection) -> tokio::task::JoinHandle<QueryResult<i64>> {
    tokio::spawn(async move {
        let conn = Conn::<Read>::borrow_from(&mut conn);
        count(&conn).await
    })
}
