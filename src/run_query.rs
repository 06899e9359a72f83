//! The methods that run a statement on a [`Conn`].

use std::future::ready;

use diesel::associations::HasTable;
use diesel::deserialize::FromSqlRow;
use diesel::dsl::{Limit, Update};
use diesel::expression::QueryMetadata;
use diesel::pg::Pg;
use diesel::query_builder::{AsChangeset, AsQuery, IntoUpdateTarget, QueryFragment, QueryId};
use diesel::query_dsl::CompatibleType;
use diesel::query_dsl::methods::LimitDsl;
use diesel::result::{Error, QueryResult};
use diesel_async::AsyncConnectionCore;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, Stream, StreamExt, TryFutureExt, TryStreamExt, pin_mut, stream};

use self::sealed::Rows as _;
use crate::{Conn, Intent, IntentKind, Permits, Writable};

/// Runs statements on a [`Conn`].
///
/// `diesel_async::RunQueryDsl` does the same on a bare connection.
///
/// The methods have the same names and meaning, so one changed import migrates a program. Two things differ. The
/// connection's intent must [permit](Permits) the statement, or the call does not compile. And the connection is taken
/// by shared reference: a `&mut conn` coerces, and futures that are polled together on one `&conn` are pipelined.
///
/// They return boxed futures, because the compiler reports the bounds of a method once for each use of an opaque return
/// type. One rejected call would then be three errors.
///
/// The intent is a parameter of the trait, not of its methods, so that `load::<User>(conn)` has one type parameter as
/// in Diesel.
///
/// # Errors
///
/// Each method returns Diesel's error, as its counterpart does. That includes
/// [`NotFound`](diesel::result::Error::NotFound) if one row is requested and there is none. A connection whose
/// transaction was cancelled fails with [`BrokenTransactionManager`](diesel::result::Error::BrokenTransactionManager).
/// A statement outside a transaction that the server committed without its synchronous standby fails with
/// [`OutcomeUnknown`](crate::OutcomeUnknown): see [`committed_locally`](crate::OutcomeUnknown::committed_locally).
///
/// # Cancel safety
///
/// If the future of a *read* is dropped, only its answer is lost. The pool waits for a pending answer in the background,
/// or cancels the statement and ends the connection. If the future of a *write* is dropped, the write may or may not
/// have been applied.
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
    /// Runs a statement and collects its rows.
    fn load<'conn, U>(self, conn: &'conn Conn<I>) -> BoxFuture<'conn, QueryResult<Vec<U>>>
    where
        I: Permits<Self::Query>,
        Self: LoadQuery<U> + 'conn,
        U: Send + 'static,
    {
        let collected = self.rows(conn).and_then(TryStreamExt::try_collect::<Vec<U>>);
        collected.and_then(|rows| conn.complete(rows)).boxed()
    }

    /// Runs a statement and returns its rows as a stream.
    ///
    /// A stream that is dropped before its end leaves rows on the wire. The pool waits a moment for the rest of them,
    /// or cancels the statement and ends the connection. No other user gets the connection before that.
    fn load_stream<'conn, U>(
        self,
        conn: &'conn Conn<I>,
    ) -> BoxFuture<'conn, QueryResult<BoxStream<'conn, QueryResult<U>>>>
    where
        I: Permits<Self::Query>,
        Self: LoadQuery<U> + 'conn,
        U: Send + 'static,
    {
        self.rows(conn).map_ok(StreamExt::boxed).boxed()
    }

    /// Runs a statement and returns its first row, without a `LIMIT`.
    fn get_result<'conn, U>(self, conn: &'conn Conn<I>) -> BoxFuture<'conn, QueryResult<U>>
    where
        I: Permits<Self::Query>,
        Self: LoadQuery<U> + 'conn,
        U: Send + 'static,
    {
        let first = self.rows(conn).and_then(first_row);
        first.and_then(|row| conn.complete(row)).boxed()
    }

    /// Does the same as [`load`](Self::load), and reads better after `returning`.
    fn get_results<'conn, U>(self, conn: &'conn Conn<I>) -> BoxFuture<'conn, QueryResult<Vec<U>>>
    where
        I: Permits<Self::Query>,
        Self: LoadQuery<U> + 'conn,
        U: Send + 'static,
    {
        self.load(conn)
    }

    /// Adds `LIMIT 1` to a statement and returns its row.
    ///
    /// Raw SQL, and a statement that writes, take no `LIMIT`: use [`get_result`](Self::get_result).
    fn first<'conn, U>(self, conn: &'conn Conn<I>) -> BoxFuture<'conn, QueryResult<U>>
    where
        Self: AsQuery<Query: LimitDsl<Output: LoadQuery<U> + 'conn>>,
        I: Permits<<Limit<Self::Query> as AsQuery>::Query>,
        U: Send + 'static,
    {
        self.as_query().limit(1).get_result(conn)
    }

    /// Runs a statement on an owned connection and returns its rows as a stream.
    ///
    /// The stream owns the connection, so it can be the body of a response. The connection returns to its pool when the
    /// stream is dropped.
    ///
    /// # Cancel safety
    ///
    /// As [`load_stream`](Self::load_stream).
    ///
    /// ```
    /// use futures_util::Stream;
    /// use pointsman::prelude::*;
    ///
    /// diesel::table! { users (id) { id -> Integer, name -> Text, } }
    ///
    /// fn names(conn: Conn<Read>) -> impl Stream<Item = QueryResult<String>> + Send + 'static {
    ///     users::table.select(users::name).into_stream(conn)
    /// }
    /// ```
    fn into_stream<U>(self, conn: Conn<I>) -> BoxStream<'static, QueryResult<U>>
    where
        I: Permits<Self::Query>,
        Self: LoadQuery<U> + 'static,
        U: Send + 'static,
    {
        let rows = async move {
            let rows = self.rows(&conn).await?;
            // The stream holds the connection as long as its rows arrive over it.
            QueryResult::Ok(rows.inspect(move |_| _ = &conn))
        };
        stream::once(rows).try_flatten().boxed()
    }
}

// Bounded, so that method resolution does not confuse these with `first` and `load` of a `Vec`, an iterator or an
// atomic.
impl<T: AsQuery, I: Intent> RunQueryDsl<I> for T {}

/// Runs statements whose rows do not matter.
///
/// `execute` is separate from [`RunQueryDsl`] because an `INSERT` without `RETURNING` has no rows to load.
///
/// ```
/// use pointsman::prelude::*;
///
/// diesel::table! { users (id) { id -> Integer, name -> Text, } }
///
/// async fn rename(conn: &Conn<Write>, id: i32, name: &str) -> QueryResult<usize> {
///     diesel::update(users::table.find(id)).set(users::name.eq(name)).execute(conn).await
/// }
/// ```
pub trait RunExecuteDsl<I: Intent>: Sized {
    /// Runs a statement and returns the number of affected rows.
    fn execute<'conn>(self, conn: &'conn Conn<I>) -> BoxFuture<'conn, QueryResult<usize>>
    where
        I: Permits<Self>,
        Self: QueryFragment<Pg> + QueryId + Send + 'conn,
    {
        match conn.connection() {
            Ok(mut connection) => {
                let executed = connection.bare.execute_returning_count(self);
                async move {
                    let _connection = connection;
                    let count = executed.await?;
                    conn.position_recorded().await;
                    // A read commits nothing.
                    if I::KIND == IntentKind::Read { Ok(count) } else { conn.replicated(count) }
                }
                .boxed()
            }
            Err(error) => ready(Err(error)).boxed(),
        }
    }
}

impl<T: QueryFragment<Pg> + QueryId, I: Intent> RunExecuteDsl<I> for T {}

/// A statement whose rows can be loaded as values of type `U`.
///
/// A function that is generic over the query needs only this bound. Add `Query: ReadOnly` for a `Conn<Read>`. The trait
/// is sealed, and applies to every statement and every `U` that fit.
///
/// ```
/// use pointsman::prelude::*;
/// use pointsman::LoadQuery;
///
/// async fn logged<Q, U: Send + 'static>(query: Q, conn: &Conn<Read>) -> QueryResult<Vec<U>>
/// where
///     Q: LoadQuery<U, Query: ReadOnly>,
/// {
///     let rows = query.load(conn).await?;
///     println!("{} rows from {}", rows.len(), conn.node());
///     Ok(rows)
/// }
/// ```
pub trait LoadQuery<U>: sealed::Rows<U> {}

impl<Q: sealed::Rows<U>, U> LoadQuery<U> for Q {}

#[expect(unnameable_types, reason = "it seals the trait, so no other crate may name it")]
mod sealed {
    use super::*;

    /// Keeps [`LoadQuery`] closed.
    ///
    /// `diesel_async::methods::LoadQuery` is open: any crate may implement it for its types, and would get the bare
    /// connection of a `Conn<Read>`.
    pub trait Rows<U>: AsQuery + Send {
        /// Sends a statement and converts its rows into values.
        fn rows<I>(
            self,
            conn: &Conn<I>,
        ) -> impl Future<Output = QueryResult<impl Stream<Item = QueryResult<U>> + Send + use<I, Self, U>>> + Send
        where
            I: Permits<Self::Query>;
    }

    impl<Q, U> Rows<U> for Q
    where
        Q: AsQuery + Send,
        Q::Query: QueryFragment<Pg> + QueryId + Send,
        Q::SqlType: CompatibleType<U, Pg>,
        Pg: QueryMetadata<Q::SqlType>,
        U: FromSqlRow<<Q::SqlType as CompatibleType<U, Pg>>::SqlType, Pg> + Send + 'static,
    {
        async fn rows<I>(
            self,
            conn: &Conn<I>,
        ) -> QueryResult<impl Stream<Item = QueryResult<U>> + Send + use<I, Q, U>>
        where
            I: Permits<Q::Query>,
        {
            let mut connection = conn.connection()?;
            let rows = AsyncConnectionCore::load(&mut connection.bare, self).await?;
            Ok(rows.map(|row| U::build_from_row(&row?).map_err(Error::DeserializationError)))
        }
    }
}

async fn first_row<U>(rows: impl Stream<Item = QueryResult<U>> + Send) -> QueryResult<U> {
    pin_mut!(rows);
    rows.try_next().await?.ok_or(Error::NotFound)
}

/// Saves the changes of a record.
///
/// `diesel_async::SaveChangesDsl` does the same on a bare connection.
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
    /// Diesel's error; [`NotFound`](diesel::result::Error::NotFound) if there is no such row.
    fn save_changes<'conn, U>(self, conn: &'conn Conn<I>) -> BoxFuture<'conn, QueryResult<U>>
    where
        I: Writable,
        Self: Copy + AsChangeset<Target = <Self as HasTable>::Table> + IntoUpdateTarget + HasTable + 'conn,
        Update<Self, Self>: AsQuery + Send + 'conn,
        <Update<Self, Self> as AsQuery>::Query: QueryFragment<Pg> + QueryId + Send + 'conn,
        <Update<Self, Self> as AsQuery>::SqlType: CompatibleType<U, Pg>,
        Pg: QueryMetadata<<Update<Self, Self> as AsQuery>::SqlType>,
        U: FromSqlRow<<<Update<Self, Self> as AsQuery>::SqlType as CompatibleType<U, Pg>>::SqlType, Pg>
            + Send
            + 'static,
    {
        let saved = diesel::update(self).set(self).rows(conn.as_write()).and_then(first_row);
        saved.and_then(|row| ready(conn.replicated(row))).boxed()
    }
}

impl<T, I: Intent> SaveChangesDsl<I> for T where
    T: Copy + AsChangeset<Target = <T as HasTable>::Table> + IntoUpdateTarget
{
}
