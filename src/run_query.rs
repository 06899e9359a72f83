//! The methods that run a statement on a [`Conn`].

use std::future::Future;

use diesel::associations::HasTable;
use diesel::deserialize::FromSqlRow;
use diesel::expression::QueryMetadata;
use diesel::pg::Pg;
use diesel::query_builder::{AsChangeset, AsQuery, IntoUpdateTarget, QueryFragment, QueryId};
use diesel::query_dsl::CompatibleType;
use diesel::query_dsl::methods::LimitDsl;
use diesel::result::QueryResult;
use diesel_async::methods::{ExecuteDsl, LoadQuery};
use diesel_async::{AsyncConnectionCore, AsyncPgConnection};
use futures_util::{Stream, StreamExt};

use crate::{Conn, Intent, Permits, Writable};

/// Runs statements on a [`Conn`], as `diesel_async::RunQueryDsl` runs them on a bare connection.
///
/// The methods have the names and the meaning that they have there, so moving a program over is
/// one changed import. Two things differ. A statement must be one that the connection's intent
/// [`Permits`], or the call does not compile. And the connection is taken by shared reference: a
/// `&mut conn` coerces, and futures that are polled together on one `&conn` are pipelined.
///
/// The intent is a parameter of the trait, not of its methods, so that `load::<User>(conn)` has
/// one type parameter as it has in Diesel.
///
/// # Errors
///
/// Each method fails as its counterpart does: with Diesel's error, which includes
/// [`NotFound`](diesel::result::Error::NotFound) where one row is asked for and none is there. A
/// connection whose transaction was cancelled fails with
/// [`BrokenTransactionManager`](diesel::result::Error::BrokenTransactionManager).
///
/// # Cancel safety
///
/// A dropped future of a *read* loses its answer and nothing else; the pool drops a connection that still
/// owes one. A dropped future of a *write* may or may not have been carried out.
///
/// ```
/// use futures_util::try_join;
/// use pointsman::prelude::*;
///
/// diesel::table! { users (id) { id -> Integer, name -> Text, } }
///
/// async fn summary(conn: &Conn<Read>) -> QueryResult<(i64, Option<String>)> {
///     try_join!(
///         users::table.count().get_result::<i64>(conn),
///         async { users::table.select(users::name).first::<String>(conn).await.optional() },
///     )
/// }
/// ```
pub trait RunQueryDsl<I: Intent>: Sized {
    /// Runs a statement and counts the rows that it affected.
    fn execute<'conn, 'query>(
        self,
        conn: &'conn Conn<I>,
    ) -> impl Future<Output = QueryResult<usize>> + Send + 'conn
    where
        I: Permits<Self>,
        Self: ExecuteDsl<&'conn AsyncPgConnection> + Send + 'conn + 'query,
        'query: 'conn,
    {
        async move { ExecuteDsl::execute(self, &mut conn.usable()?).await }
    }

    /// Runs a statement and collects its rows.
    fn load<'conn, 'query, U>(
        self,
        conn: &'conn Conn<I>,
    ) -> impl Future<Output = QueryResult<Vec<U>>> + Send + 'conn
    where
        I: Permits<Self::Query>,
        Self: AsQuery + LoadQuery<'query, &'conn AsyncPgConnection, U> + Send + 'conn + 'query,
        U: Send + 'conn,
        'query: 'conn,
    {
        async move { diesel_async::RunQueryDsl::load(self, &mut conn.usable()?).await }
    }

    /// Runs a statement and hands out its rows as they come.
    ///
    /// A stream that is dropped before its end leaves rows on the wire; the pool then drops the connection.
    fn load_stream<'conn, U>(
        self,
        conn: &'conn Conn<I>,
    ) -> impl Future<Output = QueryResult<impl Stream<Item = QueryResult<U>> + Send + 'conn>> + Send + 'conn
    where
        I: Permits<Self::Query>,
        Self: AsQuery + Send + 'conn,
        Self::Query: QueryFragment<Pg> + QueryId + Send + 'conn,
        Self::SqlType: CompatibleType<U, Pg>,
        Pg: QueryMetadata<Self::SqlType>,
        U: FromSqlRow<<Self::SqlType as CompatibleType<U, Pg>>::SqlType, Pg> + Send + 'static,
    {
        async move {
            let rows = AsyncConnectionCore::load(&mut conn.usable()?, self).await?;
            Ok(rows.map(|row| U::build_from_row(&row?).map_err(diesel::result::Error::DeserializationError)))
        }
    }

    /// Runs a statement and takes its first row, without asking the server for just one.
    fn get_result<'conn, 'query, U>(
        self,
        conn: &'conn Conn<I>,
    ) -> impl Future<Output = QueryResult<U>> + Send + 'conn
    where
        I: Permits<Self::Query>,
        Self: AsQuery + LoadQuery<'query, &'conn AsyncPgConnection, U> + Send + 'conn + 'query,
        U: Send + 'conn,
        'query: 'conn,
    {
        async move { diesel_async::RunQueryDsl::get_result(self, &mut conn.usable()?).await }
    }

    /// Does what [`load`](Self::load) does; it reads better after `returning`.
    fn get_results<'conn, 'query, U>(
        self,
        conn: &'conn Conn<I>,
    ) -> impl Future<Output = QueryResult<Vec<U>>> + Send + 'conn
    where
        I: Permits<Self::Query>,
        Self: AsQuery + LoadQuery<'query, &'conn AsyncPgConnection, U> + Send + 'conn + 'query,
        U: Send + 'conn,
        'query: 'conn,
    {
        self.load(conn)
    }

    /// Adds `LIMIT 1` to a statement and takes its row.
    fn first<'conn, 'query, U>(
        self,
        conn: &'conn Conn<I>,
    ) -> impl Future<Output = QueryResult<U>> + Send + 'conn
    where
        Self: LimitDsl + Send + 'conn,
        I: Permits<<diesel::dsl::Limit<Self> as AsQuery>::Query>,
        diesel::dsl::Limit<Self>:
            AsQuery + LoadQuery<'query, &'conn AsyncPgConnection, U> + Send + 'conn + 'query,
        U: Send + 'conn,
        'query: 'conn,
    {
        let limited = LimitDsl::limit(self, 1);
        async move { diesel_async::RunQueryDsl::get_result(limited, &mut conn.usable()?).await }
    }
}

impl<T, I: Intent> RunQueryDsl<I> for T {}

/// Saves the changes of a record, as `diesel_async::SaveChangesDsl` does on a bare connection.
///
/// ```
/// use pointsman::prelude::*;
///
/// diesel::table! { users (id) { id -> Integer, name -> Text, } }
///
/// #[derive(Queryable, Selectable, Identifiable, AsChangeset)]
/// struct User {
///     id: i32,
///     name: String,
/// }
///
/// async fn rename(conn: &Conn<Write>, mut user: User, name: &str) -> QueryResult<User> {
///     user.name = name.to_owned();
///     user.save_changes(conn).await
/// }
/// ```
pub trait SaveChangesDsl<I: Intent>: Sized {
    /// Updates the record's row with all its fields, and reads the row back.
    ///
    /// # Errors
    ///
    /// Diesel's error; [`NotFound`](diesel::result::Error::NotFound) where there is no such row.
    fn save_changes<'conn, U>(
        self,
        conn: &'conn Conn<I>,
    ) -> impl Future<Output = QueryResult<U>> + Send + 'conn
    where
        I: Writable,
        Self: Copy + AsChangeset<Target = <Self as HasTable>::Table> + IntoUpdateTarget + HasTable + 'conn,
        diesel::dsl::Update<Self, Self>:
            AsQuery + LoadQuery<'conn, &'conn AsyncPgConnection, U> + Send + 'conn,
        U: Send + 'conn,
    {
        let update = diesel::update(self).set(self);
        async move { diesel_async::RunQueryDsl::get_result(update, &mut conn.usable()?).await }
    }
}

impl<T, I: Intent> SaveChangesDsl<I> for T where
    T: Copy + AsChangeset<Target = <T as HasTable>::Table> + IntoUpdateTarget
{
}
