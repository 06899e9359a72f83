//! An `INSERT` on a `Conn<Read>`.
//~ E0277
//~ says: this statement is not known to only read, so a `Conn<Read>` cannot run it
//~ says: check out a `Conn<Write>` with `ReplicaSet::write`
//~ fixed: Conn<Read> => Conn<Write>

use fixture::{NewUser, User, users};
use pointsman::prelude::*;

//~ fail: one row
pub async fn one(conn: &Conn<Read>) -> QueryResult<usize> {
    diesel::insert_into(users::table).values(NewUser { name: "a" }).execute(conn).await
}

//~ fail: one row, with RETURNING
pub async fn returning(conn: &Conn<Read>) -> QueryResult<User> {
    diesel::insert_into(users::table).values(NewUser { name: "a" }).returning(User::as_select()).get_result(conn).await
}

//~ fail: one row, with the RETURNING that Diesel adds
pub async fn get_result(conn: &Conn<Read>) -> QueryResult<User> {
    diesel::insert_into(users::table).values(NewUser { name: "a" }).get_result(conn).await
}

//~ fail: many rows
pub async fn batch(conn: &Conn<Read>) -> QueryResult<usize> {
    diesel::insert_into(users::table).values(vec![NewUser { name: "a" }]).execute(conn).await
}

//~ fail: many rows, with RETURNING
pub async fn batch_returning(conn: &Conn<Read>) -> QueryResult<Vec<i32>> {
    diesel::insert_into(users::table).values(vec![NewUser { name: "a" }]).returning(users::id).load(conn).await
}

//~ fail: a row of defaults
pub async fn default_values(conn: &Conn<Read>) -> QueryResult<usize> {
    diesel::insert_into(users::table).default_values().execute(conn).await
}

//~ fail: the rows of a SELECT
pub async fn from_select(conn: &Conn<Read>) -> QueryResult<usize> {
    users::table.select(users::name).insert_into(users::table).into_columns(users::name).execute(conn).await
}

//~ fail: a reference to the statement
pub async fn by_reference(conn: &Conn<Read>) -> QueryResult<i32> {
    let insert = diesel::insert_into(users::table).values(NewUser { name: "a" }).returning(users::id);
    (&insert).get_result(conn).await
}
