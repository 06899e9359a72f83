//! `first` on statements that take no `LIMIT`; the words are those of Diesel and rustc.
//~ E0275
//~ E0277
//~ says: overflow evaluating the requirement

use diesel::sql_types::Integer;
use fixture::{Count, users};
use pointsman::assume_read_only;
use pointsman::prelude::*;

//~ fail: raw SQL with a parameter
pub async fn raw(conn: &Conn<Read>) -> QueryResult<Count> {
    let query = diesel::sql_query("SELECT $1 AS count").bind::<Integer, _>(1);
    query.first(conn).await // fixed: assume_read_only(query).get_result(conn).await
}

//~ fail: a write that returns its rows
pub async fn returning(conn: &Conn<Write>) -> QueryResult<i32> {
    diesel::delete(users::table).returning(users::id).first(conn).await // fixed: diesel::delete(users::table).returning(users::id).get_result(conn).await
}
