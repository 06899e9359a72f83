//! A `LoadQuery` of your own, which takes the bare connection.
//~ E0277
//~ says: the trait bound `Nothing: LoadQuery<_>` is not satisfied

use diesel::pg::Pg;
use diesel::query_builder::{AstPass, Query, QueryFragment};
use diesel::sql_types::Integer;
use diesel_async::AsyncPgConnection;
use diesel_async::methods::LoadQuery;
use fixture::users;
use futures_util::future::{Ready, ready};
use futures_util::stream::{Empty, empty};
use pointsman::prelude::*;

pub struct Nothing;

impl ReadOnly for Nothing {}

impl Query for Nothing {
    type SqlType = Integer;
}

impl QueryFragment<Pg> for Nothing {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("SELECT 1");
        Ok(())
    }
}

// Allowed, because `Nothing` is not `QueryId`: it does not overlap with diesel-async's own implementation.
impl<'q, 'c> LoadQuery<'q, &'c AsyncPgConnection, i32> for Nothing {
    type LoadFuture<'conn>
        = Ready<QueryResult<Empty<QueryResult<i32>>>>
    where
        &'c AsyncPgConnection: 'conn;
    type Stream<'conn>
        = Empty<QueryResult<i32>>
    where
        &'c AsyncPgConnection: 'conn;

    fn internal_load<'conn>(self, conn: &'conn mut &'c AsyncPgConnection) -> Self::LoadFuture<'conn> {
        // Nothing checks that this statement only reads.
        drop(diesel_async::RunQueryDsl::execute(diesel::delete(users::table), conn));
        ready(Ok(empty()))
    }
}

pub async fn run(conn: &Conn<Read>) -> QueryResult<i32> {
    Nothing.get_result(conn).await // fixed: users::table.select(users::id).get_result(conn).await
}
