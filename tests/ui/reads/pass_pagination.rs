//! The pagination type of Diesel's own guide, with `impl ReadOnly` added.

use diesel::pg::Pg;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::sql_types::BigInt;
use pointsman::prelude::*;
use fixture::{User, users};

#[derive(Debug, Clone, Copy, QueryId)]
pub struct Paginated<T> {
    query: T,
    page: i64,
}

impl<T: ReadOnly> ReadOnly for Paginated<T> {}

impl<T: Query> Query for Paginated<T> {
    type SqlType = (T::SqlType, BigInt);
}

impl<T: QueryFragment<Pg>> QueryFragment<Pg> for Paginated<T> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("SELECT *, COUNT(*) OVER () FROM (");
        self.query.walk_ast(out.reborrow())?;
        out.push_sql(") t LIMIT 10 OFFSET ");
        out.push_bind_param::<BigInt, _>(&self.page)
    }
}

pub async fn page(conn: &Conn<Read>, page: i64) -> QueryResult<Vec<(User, i64)>> {
    Paginated { query: users::table.select(User::as_select()), page }.load(conn).await
}

pub async fn page_of_boxed(conn: &mut Conn<Read>, page: i64) -> QueryResult<Vec<(i32, i64)>> {
    Paginated { query: users::table.select(users::id).into_boxed(), page }.load(conn).await
}

/// A `Conn<Write>` runs a page of any query.
pub async fn page_of_locked(conn: &Conn<Write>, page: i64) -> QueryResult<Vec<(i32, i64)>> {
    Paginated { query: users::table.select(users::id).for_update(), page }.load(conn).await
}
