//! Functions that are generic over the query.

use diesel::query_builder::AsQuery;
use diesel::sql_types::Integer;
use pointsman::prelude::*;
use pointsman::{LoadQuery, assume_read_only};
use fixture::users;

pub async fn rows<Q, U: Send + 'static>(query: Q, conn: &Conn<Read>) -> QueryResult<Vec<U>>
where
    Q: LoadQuery<U, Query: ReadOnly>,
{
    query.load(conn).await
}

pub async fn called(conn: &Conn<Read>) -> QueryResult<Vec<i32>> {
    let _: Vec<String> = rows(users::table.select(users::name).into_boxed(), conn).await?;
    rows(users::table.select(users::id).filter(users::id.gt(3)), conn).await
}

/// A type that implements only `AsQuery`.
pub struct Ids;

impl AsQuery for Ids {
    type SqlType = Integer;
    type Query = diesel::dsl::Select<users::table, users::id>;

    fn as_query(self) -> Self::Query {
        users::table.select(users::id)
    }
}

pub async fn first_of_each(conn: &Conn<Read>) -> QueryResult<(i32, i32, i32)> {
    let assumed = assume_read_only(users::table.select(users::id)).first(conn).await?;
    let boxed = assume_read_only(users::table.select(users::id).into_boxed()).first(conn).await?;
    Ok((assumed, boxed, Ids.first(conn).await?))
}
