//! UNION, INTERSECT and EXCEPT, as Diesel's users write them.

use diesel::dsl::exists;
use pointsman::LoadQuery;
use pointsman::prelude::*;
use fixture::{posts, users};

pub async fn all_six(conn: &Conn<Read>) -> QueryResult<Vec<i32>> {
    let (a, b) = (users::table.select(users::id), posts::table.select(posts::user_id));
    a.union(b).load::<i32>(conn).await?;
    a.union_all(b).load::<i32>(conn).await?;
    a.intersect(b).load::<i32>(conn).await?;
    a.intersect_all(b).load::<i32>(conn).await?;
    a.except(b).load::<i32>(conn).await?;
    a.except_all(b).load(conn).await
}

pub async fn nested(conn: &mut Conn<Read>) -> QueryResult<Option<i32>> {
    let (a, b) = (users::table.select(users::id), posts::table.select(posts::user_id));
    let left = a.except(b).union(b);
    let right = a.intersect(a.union(b));
    left.union(right).positional_order_by(1).limit(10).offset(1).first(conn).await.optional()
}

pub async fn boxed_sides(conn: &Conn<Read>) -> QueryResult<Vec<i32>> {
    let ids = || users::table.select(users::id);
    ids().union(posts::table.select(posts::id).into_boxed()).load::<i32>(conn).await?;
    ids().into_boxed().union(ids()).load::<i32>(conn).await?;
    ids().into_boxed().union(ids().into_boxed()).limit(3).load(conn).await
}

pub async fn whole_tables(conn: &Conn<Read>) -> QueryResult<i64> {
    users::table.union(users::table).load::<(i32, String, Option<String>)>(conn).await?;
    users::table.filter(users::id.gt(1)).union(users::table).load::<(i32, String, Option<String>)>(conn).await?;
    users::table.count().get_result(conn).await
}

pub async fn as_a_subselect(conn: &Conn<Read>) -> QueryResult<Vec<i32>> {
    let (a, b) = (posts::table.select(posts::user_id), posts::table.select(posts::id));
    let both = a.intersect(b);
    users::table.filter(users::id.eq_any(both)).select(users::id).load::<i32>(conn).await?;
    users::table.filter(users::id.ne_all(a.union(b))).select(users::id).load::<i32>(conn).await?;
    users::table.filter(exists(both.into_subselect())).select(users::id).load(conn).await
}

/// `exists` and `single_value` take Diesel's own set operation, with its clauses.
pub async fn as_one_value(conn: &Conn<Read>) -> QueryResult<Vec<Option<i32>>> {
    let (a, b) = (posts::table.select(posts::user_id), posts::table.select(posts::id));
    let least = a.union_all(b).positional_order_by(1).limit(1).offset(1).into_subselect().single_value();
    users::table.select(least).load(conn).await
}

/// The type of a set operation is long, so a function names what it does.
pub fn ids() -> impl LoadQuery<i32, Query: ReadOnly> {
    users::table.select(users::id).union(posts::table.select(posts::user_id))
}

pub async fn returned(conn: &Conn<Read>) -> QueryResult<Vec<i32>> {
    ids().load(conn).await
}

pub async fn inserted(conn: &Conn<Write>) -> QueryResult<usize> {
    let names = users::table.select(users::name).union(posts::table.select(posts::title));
    diesel::insert_into(users::table).values(names).into_columns(users::name).execute(conn).await
}

/// A `Conn<Write>` may lock the rows of a side.
pub async fn locked_side(conn: &Conn<Write>) -> QueryResult<Vec<i32>> {
    let ids = users::table.select(users::id);
    ids.for_update().union(ids).load::<i32>(conn).await?;
    diesel::CombineDsl::union(ids, ids).load(conn).await
}
