//! Joins, associations, aliases, groups and subselects.

use diesel::dsl::{count, count_star, exists};
use pointsman::prelude::*;
use fixture::{Post, User, posts, users};

pub async fn inner(conn: &Conn<Read>) -> QueryResult<Vec<(User, Post)>> {
    users::table.inner_join(posts::table).select((User::as_select(), Post::as_select())).load(conn).await
}

pub async fn left(conn: &Conn<Read>) -> QueryResult<Vec<(User, Option<Post>)>> {
    users::table
        .left_join(posts::table.on(posts::user_id.eq(users::id).and(posts::score.gt(3))))
        .select((User::as_select(), Option::<Post>::as_select()))
        .load(conn)
        .await
}

pub async fn belonging_to(conn: &Conn<Read>) -> QueryResult<Vec<(User, Vec<Post>)>> {
    let users = User::query().load(conn).await?;
    let posts = Post::belonging_to(&users).select(Post::as_select()).load(conn).await?.grouped_by(&users);
    Ok(users.into_iter().zip(posts).collect())
}

pub async fn belonging_to_one(conn: &Conn<Read>, user: &User) -> QueryResult<Vec<Post>> {
    Post::belonging_to(user).order(posts::id).select(Post::as_select()).load(conn).await
}

pub async fn grouped(conn: &Conn<Read>) -> QueryResult<Vec<(i32, i64)>> {
    posts::table
        .group_by(posts::user_id)
        .having(count(posts::id).gt(2))
        .select((posts::user_id, count_star()))
        .order(count_star().desc())
        .load(conn)
        .await
}

pub async fn grouped_join(conn: &Conn<Read>) -> QueryResult<Vec<(String, i64)>> {
    users::table
        .inner_join(posts::table)
        .group_by(users::id)
        .select((users::name, count(posts::id)))
        .load(conn)
        .await
}

pub async fn subselects(conn: &Conn<Read>) -> QueryResult<Vec<(String, Option<i32>)>> {
    let best = posts::table
        .filter(posts::user_id.eq(users::id))
        .select(diesel::dsl::max(posts::score))
        .single_value();
    users::table
        .filter(users::id.eq_any(posts::table.select(posts::user_id)))
        .filter(exists(posts::table.filter(posts::user_id.eq(users::id))))
        .filter(diesel::dsl::not(users::id.eq_any([7, 8])))
        .select((users::name, best))
        .load(conn)
        .await
}

pub async fn aliased(conn: &Conn<Read>) -> QueryResult<Vec<(String, String)>> {
    let (left, right) = diesel::alias!(users as left_users, users as right_users);
    left.inner_join(right.on(left.field(users::city).eq(right.field(users::city))))
        .select((left.field(users::name), right.field(users::name)))
        .load(conn)
        .await
}
