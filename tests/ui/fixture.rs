//! The tables, records and the repository that the files under `tests/ui` share.
#![allow(missing_docs, reason = "names say it all")]

use pointsman::prelude::*;

diesel::table! {
    users (id) {
        id -> Integer,
        name -> Text,
        city -> Nullable<Text>,
    }
}

diesel::table! {
    posts (id) {
        id -> Integer,
        user_id -> Integer,
        title -> Text,
        score -> Integer,
    }
}

diesel::joinable!(posts -> users (user_id));
diesel::allow_tables_to_appear_in_same_query!(users, posts);

#[derive(Debug, Clone, HasQuery, Identifiable, AsChangeset)]
pub struct User {
    pub id: i32,
    pub name: String,
    pub city: Option<String>,
}

#[derive(Debug, Clone, HasQuery, Identifiable, Associations)]
#[diesel(belongs_to(User))]
pub struct Post {
    pub id: i32,
    pub user_id: i32,
    pub title: String,
    pub score: i32,
}

#[derive(Debug, Clone, Insertable)]
#[diesel(table_name = users)]
pub struct NewUser<'a> {
    pub name: &'a str,
}

#[derive(Debug, Clone, QueryableByName)]
pub struct Count {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    pub count: i64,
}

/// Stands for `ReplicaSet::read`, for files without a set.
pub async fn read() -> Conn<Read> {
    std::future::pending().await
}

/// Stands for `ReplicaSet::write`, for files without a set.
pub async fn write() -> Conn<Write> {
    std::future::pending().await
}

/// A repository as the documentation recommends it: generic over the intent, writes bounded on the method.
pub trait Users<I: Intent> {
    fn find(&self, id: i32) -> impl Future<Output = QueryResult<Option<User>>> + Send;

    fn rename(&self, id: i32, name: &str) -> impl Future<Output = QueryResult<usize>> + Send
    where
        I: Writable;
}

impl<I: Intent> Users<I> for Conn<I> {
    async fn find(&self, id: i32) -> QueryResult<Option<User>> {
        User::query().find(id).first(self.as_read()).await.optional()
    }

    async fn rename(&self, id: i32, name: &str) -> QueryResult<usize>
    where
        I: Writable,
    {
        diesel::update(users::table.find(id)).set(users::name.eq(name)).execute(self.as_write()).await
    }
}
