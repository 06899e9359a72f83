//! A query type of your own that is not marked as reading.
//~ E0277
//~ says: this statement is not known to only read, so a `Conn<Read>` cannot run it
//~ says: check out a `Conn<Write>` with `ReplicaSet::write`
//~ says: write `impl ReadOnly for …` for a query type of your own
//~ fixed: Conn<Read> => Conn<Write>

use diesel::pg::Pg;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use fixture::users;
use pointsman::prelude::*;

#[derive(QueryId)]
struct Slow<Q>(Q);

impl<Q: Query> Query for Slow<Q> {
    type SqlType = Q::SqlType;
}

impl<Q: QueryFragment<Pg>> QueryFragment<Pg> for Slow<Q> {
    fn walk_ast<'b>(&'b self, pass: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        self.0.walk_ast(pass)
    }
}

pub async fn run(conn: &Conn<Read>) -> QueryResult<Vec<i32>> {
    Slow(users::table.select(users::id)).load(conn).await
}
