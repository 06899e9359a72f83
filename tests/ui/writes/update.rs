//! An `UPDATE` on a `Conn<Read>`.
//~ E0277
//~ says: this statement is not known to only read, so a `Conn<Read>` cannot run it
//~ says: check out a `Conn<Write>` with `ReplicaSet::write`
//~ fixed: Conn<Read> => Conn<Write>

use fixture::{User, users};
use pointsman::prelude::*;

//~ fail: one row
pub async fn one(conn: &Conn<Read>) -> QueryResult<usize> {
    diesel::update(users::table.find(1)).set(users::name.eq("a")).execute(conn).await
}

//~ fail: one row, with RETURNING
pub async fn returning(conn: &Conn<Read>) -> QueryResult<i32> {
    diesel::update(users::table.find(1)).set(users::name.eq("a")).returning(users::id).get_result(conn).await
}

//~ fail: all rows, with the RETURNING that Diesel adds
pub async fn get_results(conn: &Conn<Read>) -> QueryResult<Vec<User>> {
    diesel::update(users::table).set(users::name.eq("a")).get_results(conn).await
}

//~ fail: a stream of the updated rows
pub async fn stream(conn: &Conn<Read>) -> QueryResult<()> {
    let _rows = diesel::update(users::table).set(users::name.eq("a")).returning(users::id).load_stream::<i32>(conn).await?;
    Ok(())
}

//~ fail: a boxed statement
pub async fn boxed(conn: &Conn<Read>) -> QueryResult<usize> {
    let mut update = diesel::update(users::table).set(users::name.eq("a")).into_boxed();
    update = update.filter(users::id.eq(1));
    update.execute(conn).await
}
