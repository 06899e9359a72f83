//! A write in a function that is generic.
//~ E0277
//~ fixed: Conn<Read> => Conn<Write>

use diesel::pg::Pg;
use diesel::query_builder::{QueryFragment, QueryId};
use fixture::users;
use pointsman::Permits;
use pointsman::prelude::*;

//~ fail: generic over the intent
//~ says: a `Conn<I>` cannot run this statement
//~ says: run reads on `conn.as_read()`, and writes on `conn.as_write()` with the bound `Writable`
pub async fn any_intent<I: Intent>(conn: &Conn<I>) -> QueryResult<usize> { // fixed: pub async fn any_intent<I: Writable>(conn: &Conn<I>) -> QueryResult<usize> {
    diesel::delete(users::table).execute(conn).await // fixed: diesel::delete(users::table).execute(conn.as_write()).await
}

//~ fail: generic over the intent, in a transaction
//~ says: a `Conn<I>` cannot run this statement
//~ says: with the bound `Writable`
pub async fn in_a_transaction<I: Intent>(conn: &mut Conn<I>) -> QueryResult<usize> { // fixed: pub async fn in_a_transaction<I: Writable>(conn: &mut Conn<I>) -> QueryResult<usize> {
    conn.transaction(async |tx| diesel::delete(users::table).execute(tx).await).await // fixed: conn.transaction(async |tx| diesel::delete(users::table).execute(tx.as_write()).await).await
}

//~ fail: generic over the query, called with a write for a `Conn<Read>`
//~ says: this statement is not known to only read, so a `Conn<Read>` cannot run it
pub async fn run_any<I, Q>(conn: &Conn<I>, query: Q) -> QueryResult<usize>
where
    I: Permits<Q>,
    Q: QueryFragment<Pg> + QueryId + Send,
{
    query.execute(conn).await
}

pub async fn any_query(conn: &Conn<Read>) -> QueryResult<usize> {
    run_any(conn, diesel::delete(users::table)).await
}
