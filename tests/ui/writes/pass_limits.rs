//! Writes and locks that compile on a `Conn<Read>`: only the server or privileges refuse them.
//!
//! If a new Diesel can distinguish one of these, it becomes a fail case.

use diesel::sql_types::{BigInt, Bool, Integer, Oid, Text};
use pointsman::prelude::*;
use pointsman::assume_read_only;
use fixture::{posts, users};

diesel::define_sql_function! {
    fn nextval(sequence: Text) -> BigInt;
}

diesel::define_sql_function! {
    fn lo_unlink(large_object: Oid) -> Integer;
}

/// A function may do anything; its signature does not say what.
pub async fn function_that_writes(conn: &Conn<Read>) -> QueryResult<i64> {
    diesel::select(nextval("users_id_seq")).get_result(conn).await
}

/// A read-only session of a primary runs this one: only privileges refuse it.
pub async fn function_that_a_read_only_session_runs(conn: &Conn<Read>) -> QueryResult<i32> {
    diesel::select(lo_unlink(4242)).get_result(conn).await
}

/// The types of Diesel's expressions cannot be named from outside, so no trait can find a lock inside them.
pub async fn lock_in_a_subselect(conn: &Conn<Read>) -> QueryResult<Vec<i32>> {
    let locked = posts::table.select(posts::user_id).for_update();
    users::table.filter(users::id.eq_any(locked)).select(users::id).load(conn).await
}

/// The same in a set operation.
pub async fn lock_in_a_side(conn: &Conn<Read>) -> QueryResult<Vec<i32>> {
    let locked = posts::table.select(posts::user_id).for_update();
    let side = users::table.filter(users::id.eq_any(locked)).select(users::id);
    side.union(users::table.select(users::id)).load(conn).await
}

/// A fragment of SQL is text.
pub async fn lock_in_a_fragment(conn: &Conn<Read>) -> QueryResult<Vec<i32>> {
    users::table.select(users::id).filter(diesel::dsl::sql::<Bool>("true FOR UPDATE")).load(conn).await
}

pub async fn write_in_a_fragment(conn: &Conn<Read>) -> QueryResult<i64> {
    diesel::select(diesel::dsl::sql::<BigInt>("nextval('users_id_seq')")).get_result(conn).await
}

/// A false promise, but a reviewer can search for `assume_read_only`.
pub async fn false_promise(conn: &Conn<Read>) -> QueryResult<usize> {
    assume_read_only(diesel::delete(users::table)).execute(conn).await
}

/// The same promise, for a type of your own.
#[derive(diesel::query_builder::QueryId)]
pub struct Purge;

impl ReadOnly for Purge {}

impl diesel::query_builder::Query for Purge {
    type SqlType = Integer;
}

impl diesel::query_builder::QueryFragment<diesel::pg::Pg> for Purge {
    fn walk_ast<'b>(
        &'b self,
        mut out: diesel::query_builder::AstPass<'_, 'b, diesel::pg::Pg>,
    ) -> QueryResult<()> {
        out.push_sql("DELETE FROM users RETURNING id");
        Ok(())
    }
}

pub async fn false_promise_of_a_type(conn: &Conn<Read>) -> QueryResult<Vec<i32>> {
    Purge.load(conn).await
}
