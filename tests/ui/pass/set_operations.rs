//! UNION, INTERSECT and EXCEPT.

use pointsman::SetOperation;
use pointsman::prelude::*;
use ui::{posts, users};

pub async fn all_six(conn: &Conn<Read>) -> QueryResult<Vec<i32>> {
    let (a, b) = (users::table.select(users::id), posts::table.select(posts::user_id));
    SetOperation::union(a, b).load::<i32>(conn).await?;
    SetOperation::union_all(a, b).load::<i32>(conn).await?;
    SetOperation::intersect(a, b).load::<i32>(conn).await?;
    SetOperation::intersect_all(a, b).load::<i32>(conn).await?;
    SetOperation::except(a, b).load::<i32>(conn).await?;
    SetOperation::except_all(a, b).load(conn).await
}

pub async fn nested(conn: &mut Conn<Read>) -> QueryResult<Option<i32>> {
    let (a, b) = (users::table.select(users::id), posts::table.select(posts::user_id));
    let left = SetOperation::union(SetOperation::except(a, b), b);
    let right = SetOperation::intersect(a, SetOperation::union(a, b));
    SetOperation::union(left, right).limit(10).offset(1).first(conn).await.optional()
}

pub async fn boxed_side(conn: &Conn<Read>) -> QueryResult<Vec<i32>> {
    SetOperation::union(users::table.select(users::id), posts::table.select(posts::id).into_boxed())
        .load(conn)
        .await
}

/// A connection that writes runs Diesel's own, and the adapter as well.
pub async fn writer(conn: &Conn<Write>) -> QueryResult<Vec<i32>> {
    let ids = users::table.select(users::id);
    SetOperation::union(ids, ids).load::<i32>(conn).await?;
    ids.union(ids).load(conn).await
}
