//! Transactions: plain, nested, with an isolation level, with an error type of your own.

use futures_util::try_join;
use pointsman::prelude::*;
use fixture::{User, Users, posts, users};

#[derive(Debug)]
pub enum Fault {
    Database(diesel::result::Error),
    Missing,
}

impl From<diesel::result::Error> for Fault {
    fn from(error: diesel::result::Error) -> Self {
        Self::Database(error)
    }
}

pub async fn read(conn: &mut Conn<Read>, id: i32) -> QueryResult<(User, i64)> {
    conn.transaction(async |tx| {
        let user = User::query().find(id).first(tx).await?;
        let posts = posts::table.filter(posts::user_id.eq(id)).count().get_result(tx).await?;
        Ok((user, posts))
    })
    .await
}

pub async fn own_error(conn: &mut Conn<Read>, id: i32) -> Result<User, Fault> {
    conn.transaction(async |tx| tx.find(id).await?.ok_or(Fault::Missing)).await
}

pub async fn nested(conn: &mut Conn<Write>) -> QueryResult<usize> {
    conn.transaction(async |tx| {
        let closed = tx
            .transaction(async |tx| diesel::update(users::table).set(users::name.eq("a")).execute(tx).await)
            .await?;
        let left: i64 = users::table.count().get_result(tx.as_read()).await?;
        diesel::delete(users::table.filter(users::id.gt(left as i32))).execute(tx).await?;
        Ok(closed)
    })
    .await
}

pub async fn one_snapshot(conn: &mut Conn<Read>) -> QueryResult<(i64, i64)> {
    conn.build_transaction()
        .repeatable_read()
        .read_only()
        .run(async |tx| try_join!(users::table.count().get_result(tx), posts::table.count().get_result(tx)))
        .await
}

pub async fn serializable(conn: &mut Conn<Write>) -> QueryResult<usize> {
    conn.build_transaction()
        .serializable()
        .read_write()
        .run(async |tx| diesel::delete(users::table).execute(tx).await)
        .await
}

pub async fn generic<I: Intent>(conn: &mut Conn<I>) -> QueryResult<i64> {
    conn.transaction(async |tx| users::table.count().get_result(tx.as_read()).await).await
}

pub async fn generic_writer<I: Writable>(conn: &mut Conn<I>) -> QueryResult<usize> {
    conn.as_write_mut().transaction(async |tx| diesel::delete(users::table).execute(tx).await).await
}

pub async fn generic_serializable<I: Writable>(conn: &mut Conn<I>) -> QueryResult<i64> {
    conn.build_transaction()
        .serializable()
        .run(async |tx| users::table.count().get_result(tx.as_read()).await)
        .await
}

pub async fn captures(conn: &mut Conn<Write>, names: &[String]) -> QueryResult<usize> {
    let mut done = 0;
    conn.transaction(async |tx| {
        for name in names {
            done += diesel::insert_into(users::table).values(users::name.eq(name)).execute(tx).await?;
        }
        Ok::<_, diesel::result::Error>(())
    })
    .await?;
    Ok(done)
}
