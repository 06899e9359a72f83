//! A function that takes what the intent permits, given a write to run on a replica.
//~ E0277
//~ says: this statement is not known to only read, so a `Conn<Read>` cannot run it

use diesel::query_builder::{QueryFragment, QueryId};
use diesel::pg::Pg;
use pointsman::Permits;
use pointsman::prelude::*;
use ui::users;

pub async fn run_any<I, Q>(conn: &Conn<I>, query: Q) -> QueryResult<usize>
where
    I: Permits<Q>,
    Q: QueryFragment<Pg> + QueryId + Send,
{
    query.execute(conn).await
}

pub async fn run(
    conn: &Conn<Read>, // twin: conn: &Conn<Write>,
) -> QueryResult<usize> {
    run_any(conn, diesel::delete(users::table)).await
}
