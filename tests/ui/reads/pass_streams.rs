//! Streams of rows.

use futures_util::{StreamExt, TryStreamExt};
use pointsman::prelude::*;
use fixture::{User, users};

pub async fn names(conn: &Conn<Read>) -> QueryResult<Vec<String>> {
    User::query().load_stream::<User>(conn).await?.map_ok(|user| user.name).try_collect().await
}

pub async fn first_of_many(conn: &mut Conn<Read>) -> QueryResult<Option<i32>> {
    let mut rows = users::table.select(users::id).load_stream(conn).await?;
    rows.next().await.transpose()
}

pub async fn inside_a_transaction(conn: &mut Conn<Read>) -> QueryResult<i32> {
    conn.transaction(async |tx| {
        let rows = users::table.select(users::id).load_stream::<i32>(tx).await?;
        rows.try_fold(0, async |sum, id| Ok(sum + id)).await
    })
    .await
}

/// The body of a response, which outlives its handler.
pub async fn body(conn: Conn<Read>) -> impl futures_util::Stream<Item = QueryResult<String>> + Send + 'static {
    User::query().into_stream::<User>(conn).map_ok(|user| user.name)
}
