//! Queries whose type does not grow with each filter.

use diesel::pg::Pg;
use pointsman::prelude::*;
use fixture::{User, posts, users};

pub struct Filter {
    pub name: Option<String>,
    pub limit: Option<i64>,
}

pub async fn search(conn: &Conn<Read>, filter: Filter) -> QueryResult<Vec<User>> {
    let mut query = User::query().into_boxed();
    if let Some(name) = filter.name {
        query = query.filter(users::name.eq(name));
    }
    if let Some(limit) = filter.limit {
        query = query.limit(limit);
    }
    query.order(users::id).load(conn).await
}

pub async fn named_type(conn: &mut Conn<Read>) -> QueryResult<Option<(i32, String, Option<String>)>> {
    let query: users::BoxedQuery<'_, Pg> = users::table.into_boxed();
    query.first(conn).await.optional()
}

pub async fn boxed_condition(conn: &Conn<Read>, strict: bool) -> QueryResult<Vec<i32>> {
    type Condition = Box<dyn BoxableExpression<posts::table, Pg, SqlType = diesel::sql_types::Bool>>;
    let condition: Condition =
        if strict { Box::new(posts::score.gt(9)) } else { Box::new(posts::title.like("a%")) };
    posts::table.filter(condition).select(posts::id).load(conn).await
}

pub async fn boxed_join(conn: &Conn<Write>) -> QueryResult<Vec<String>> {
    users::table.inner_join(posts::table).select(posts::title).into_boxed().load(conn.as_read()).await
}
