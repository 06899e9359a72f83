//! Common reads, on each kind of reference to a connection.

use diesel::dsl::{count, exists, max, now, sum};
use pointsman::prelude::*;
use fixture::{User, posts, users};

pub async fn shared(conn: &Conn<Read>) -> QueryResult<Vec<User>> {
    users::table.select(User::as_select()).load(conn).await
}

pub async fn exclusive(conn: &mut Conn<Read>) -> QueryResult<Vec<User>> {
    users::table.select(User::as_select()).load(conn).await?;
    User::query().load(conn).await
}

pub async fn writer(conn: &Conn<Write>) -> QueryResult<Vec<User>> {
    User::query().load(conn).await
}

pub async fn exclusive_writer(conn: &mut Conn<Write>) -> QueryResult<Vec<User>> {
    User::query().load(conn).await
}

pub async fn owned(conn: Conn<Read>) -> QueryResult<Vec<User>> {
    User::query().load(&conn).await
}

pub async fn view(conn: &Conn<Write>) -> QueryResult<Vec<User>> {
    User::query().load(conn.as_read()).await
}

pub async fn generic<I: Intent>(conn: &Conn<I>) -> QueryResult<Vec<User>> {
    User::query().load(conn.as_read()).await
}

pub async fn turbofish(conn: &Conn<Read>) -> QueryResult<Vec<(i32, String)>> {
    users::table.select((users::id, users::name)).load::<(i32, String)>(conn).await
}

pub async fn one(conn: &Conn<Read>) -> QueryResult<Option<User>> {
    User::query().find(1).first(conn).await.optional()?;
    User::query().filter(users::name.eq("a")).get_result(conn).await.optional()
}

pub async fn whole_table(conn: &Conn<Read>) -> QueryResult<Vec<(i32, String, Option<String>)>> {
    let _: (i32, String, Option<String>) = users::table.first(conn).await?;
    users::table.load(conn).await
}

pub async fn ordered(conn: &Conn<Read>) -> QueryResult<Vec<String>> {
    users::table
        .filter(users::city.is_null().or(users::name.ilike("a%")).and(users::id.between(1, 9)))
        .order((users::name.desc(), users::id.asc()))
        .limit(10)
        .offset(20)
        .select(users::name)
        .load(conn)
        .await
}

pub async fn counted(conn: &Conn<Read>) -> QueryResult<i64> {
    users::table.count().get_result(conn).await
}

pub async fn existing(conn: &Conn<Read>) -> QueryResult<bool> {
    diesel::select(exists(users::table.filter(users::id.eq(1)))).get_result(conn).await
}

pub async fn without_table(conn: &Conn<Read>) -> QueryResult<bool> {
    diesel::select(now.is_not_null()).get_result(conn).await
}

pub async fn aggregates(conn: &Conn<Read>) -> QueryResult<(i64, Option<i32>, Option<i64>)> {
    posts::table.select((count(posts::id), max(posts::score), sum(posts::score))).get_result(conn).await
}

pub async fn distinct(conn: &Conn<Read>) -> QueryResult<Vec<Option<String>>> {
    users::table.select(users::city).distinct().load(conn).await
}

pub async fn distinct_on(conn: &Conn<Read>) -> QueryResult<Vec<(i32, String)>> {
    posts::table
        .distinct_on(posts::user_id)
        .order((posts::user_id, posts::score.desc()))
        .select((posts::user_id, posts::title))
        .load(conn)
        .await
}

pub async fn executed(conn: &Conn<Read>) -> QueryResult<usize> {
    users::table.select(users::id).execute(conn).await
}

pub async fn by_reference(conn: &Conn<Read>) -> QueryResult<(Vec<i32>, Vec<i32>)> {
    let ids = users::table.select(users::id);
    Ok(((&ids).load(conn).await?, ids.get_results(conn).await?))
}
