//! Repositories that are generic over the intent.

use pointsman::Permits;
use pointsman::prelude::*;
use fixture::{User, Users, users};

pub async fn reads_anywhere<I: Intent>(users: &impl Users<I>, id: i32) -> QueryResult<Option<User>> {
    users.find(id).await
}

pub async fn writes_where_it_may<I: Writable>(users: &impl Users<I>, id: i32) -> QueryResult<usize> {
    users.find(id).await?;
    users.rename(id, "a").await
}

pub async fn called(reader: &Conn<Read>, writer: &Conn<Write>) -> QueryResult<usize> {
    reads_anywhere(reader, 1).await?;
    reads_anywhere(writer, 1).await?;
    reads_anywhere(writer.as_read(), 1).await?;
    reader.find(1).await?;
    writer.find(1).await?;
    writer.rename(1, "a").await?;
    writes_where_it_may(writer, 1).await
}

pub fn is_send<T: Send>(value: T) -> T {
    value
}

pub async fn sent<I: Intent, U: Users<I> + Sync>(users: &U) -> QueryResult<Option<User>> {
    is_send(users.find(1)).await
}

pub fn spawned<I: Intent>(conn: Conn<I>) -> tokio::task::JoinHandle<QueryResult<Option<User>>> {
    tokio::spawn(async move { conn.find(1).await })
}

pub fn spawned_writer<I: Writable>(conn: Conn<I>) -> tokio::task::JoinHandle<QueryResult<usize>> {
    tokio::spawn(async move { conn.rename(1, "a").await })
}

/// A trait with plain `async fn`s, and a repository that borrows its connection.
pub struct Directory<'c, I: Intent>(pub &'c Conn<I>);

impl<I: Intent> Directory<'_, I> {
    pub async fn names(&self) -> QueryResult<Vec<String>> {
        users::table.select(users::name).load(self.0.as_read()).await
    }

    pub async fn clear(&self) -> QueryResult<usize>
    where
        I: Writable,
    {
        diesel::delete(users::table).execute(self.0.as_write()).await
    }
}

pub async fn directory(conn: &Conn<Write>) -> QueryResult<usize> {
    Directory(conn.as_read()).names().await?;
    Directory(conn).names().await?;
    Directory(conn).clear().await
}

/// A function that runs any statement that the intent permits.
pub async fn permitted<I, Q>(conn: &Conn<I>, query: Q) -> QueryResult<usize>
where
    I: Permits<Q>,
    Q: diesel::query_builder::QueryFragment<diesel::pg::Pg> + diesel::query_builder::QueryId + Send,
{
    query.execute(conn).await
}

pub async fn permits(reader: &Conn<Read>, writer: &Conn<Write>) -> QueryResult<usize> {
    permitted(reader, users::table.select(users::id)).await?;
    permitted(writer, diesel::delete(users::table)).await
}
