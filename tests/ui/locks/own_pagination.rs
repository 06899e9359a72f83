//! A pagination type of your own around a lock; it only reads if the query inside does.
//~ E0277
//~ says: this statement is not known to only read, so a `Conn<Read>` cannot run it

use diesel::pg::Pg;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use fixture::users;
use pointsman::prelude::*;

#[derive(QueryId)]
struct Page<Q>(Q);

impl<Q: ReadOnly> ReadOnly for Page<Q> {}

impl<Q: Query> Query for Page<Q> {
    type SqlType = Q::SqlType;
}

impl<Q: QueryFragment<Pg>> QueryFragment<Pg> for Page<Q> {
    fn walk_ast<'b>(&'b self, pass: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        self.0.walk_ast(pass)
    }
}

pub async fn run(conn: &Conn<Read>) -> QueryResult<Vec<i32>> {
    let query = users::table.select(users::id).for_update(); // fixed: let query = users::table.select(users::id);
    Page(query).load(conn).await
}
