//! Raw SQL without `assume_read_only`: its type does not show whether it only reads.
//~ E0277
//~ says: this statement is not known to only read, so a `Conn<Read>` cannot run it
//~ says: check out a `Conn<Write>` with `ReplicaSet::write`
//~ fixed: Conn<Read> => Conn<Write>

use diesel::sql_types::Integer;
use fixture::Count;
use pointsman::prelude::*;

//~ fail: `execute`
pub async fn execute(conn: &Conn<Read>) -> QueryResult<usize> {
    diesel::sql_query("DELETE FROM users").execute(conn).await
}

//~ fail: `load`
//~ says: `assume_read_only(…)` around raw SQL
pub async fn load(conn: &Conn<Read>) -> QueryResult<Vec<Count>> {
    diesel::sql_query("SELECT count(*) FROM users").load(conn).await
}

//~ fail: with a parameter
//~ says: put `assume_read_only(…)` around raw SQL
//~ never says: multiple different versions of crate `diesel`
pub async fn bind(conn: &Conn<Read>) -> QueryResult<usize> {
    diesel::sql_query("DELETE FROM users WHERE id = $1").bind::<Integer, _>(1).execute(conn).await
}

//~ fail: boxed
pub async fn boxed(conn: &Conn<Read>) -> QueryResult<usize> {
    diesel::sql_query("DELETE FROM users").into_boxed::<diesel::pg::Pg>().execute(conn).await
}

//~ fail: a SQL literal that is run as a statement
//~ says: `assume_read_only(…)` around raw SQL
pub async fn literal(conn: &Conn<Read>) -> QueryResult<Vec<i32>> {
    diesel::dsl::sql::<Integer>("DELETE FROM users RETURNING id").load(conn).await
}
