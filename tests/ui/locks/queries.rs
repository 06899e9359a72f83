//! A `SELECT … FOR UPDATE` in other kinds of queries.
//~ E0277
//~ says: this statement is not known to only read, so a `Conn<Read>` cannot run it
//~ says: check out a `Conn<Write>` with `ReplicaSet::write`
//~ fixed: Conn<Read> => Conn<Write>

use fixture::{posts, users};
use pointsman::prelude::*;

//~ fail: the first row; `first` adds a `LIMIT`
pub async fn first(conn: &Conn<Read>) -> QueryResult<i32> {
    users::table.select(users::id).for_update().first(conn).await
}

//~ fail: clauses that come after the lock
pub async fn limit(conn: &Conn<Read>) -> QueryResult<Vec<i32>> {
    users::table.for_update().select(users::id).filter(users::id.gt(1)).order(users::id).limit(10).load(conn).await
}

//~ fail: a join
pub async fn join(conn: &Conn<Read>) -> QueryResult<Vec<i32>> {
    users::table.inner_join(posts::table).select(users::id).for_update().load(conn).await
}

//~ fail: a stream of rows
pub async fn stream(conn: &Conn<Read>) -> QueryResult<()> {
    let _rows = users::table.select(users::id).for_update().load_stream::<i32>(conn).await?;
    Ok(())
}

//~ fail: a reference to the statement
pub async fn by_reference(conn: &Conn<Read>) -> QueryResult<Vec<i32>> {
    let locked = users::table.select(users::id).for_update();
    (&locked).load(conn).await
}
