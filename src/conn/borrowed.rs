//! A typed view of a connection that the caller opened.

use std::fmt;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use diesel::result::Error;
use diesel_async::AsyncPgConnection;

use super::source::Source;
use super::{AsyncFunc, Conn};
use crate::Intent;
use crate::wire::{WireState, placeholder};

impl<I: Intent> Conn<I> {
    /// Borrows a connection that the caller opened, for code that takes a `Conn`.
    ///
    /// It is for tests, workers, and closures of diesel-async's `transaction`: code that has an `AsyncPgConnection` and
    /// calls functions that take a `Conn`. An open transaction stays open. So in a test transaction everything is
    /// rolled back in the end, and [`transaction`](Self::transaction) is a savepoint.
    ///
    /// **Only the type is checked.** The session is used as it is. A write on a `Conn<Read>` does not compile, but the
    /// server would not reject a function that writes. Nor is a `Conn<Write>` known to lead to a primary.
    ///
    /// No set knows the connection, so [`node`](Self::node) and [`role`](Self::role) are `unmanaged`, and
    /// [`last_sqlstate`](Self::last_sqlstate) is `None`. A commit that did not wait for its synchronous standby is not
    /// noticed. Before its COMMIT, a transaction asks the server if a statement has failed, which takes a round trip.
    ///
    /// # Cancel safety
    ///
    /// While the guard lives, the caller's variable holds a connection on which everything fails. Dropping the guard,
    /// also by a panic or with a cancelled future, puts the connection back. There are three exceptions, after which
    /// the caller's variable keeps failing:
    ///
    /// * A transaction of the `Conn` was cancelled, so its session was ended and the server rolls back. Otherwise later
    ///   statements would run inside that transaction and never be committed.
    /// * The guard was leaked (`mem::forget`).
    /// * The `Conn` was exchanged for another one (`mem::swap`).
    ///
    /// A transaction of diesel-async around it then ends with
    /// [`BrokenTransactionManager`](diesel::result::Error::BrokenTransactionManager).
    ///
    /// ```no_run
    /// use diesel_async::{AsyncConnection, AsyncPgConnection};
    /// use pointsman::prelude::*;
    ///
    /// diesel::table! { users (id) { id -> Integer, name -> Text, } }
    ///
    /// async fn count(conn: &Conn<Read>) -> QueryResult<i64> {
    ///     users::table.count().get_result(conn).await
    /// }
    ///
    /// async fn add(conn: &Conn<Write>, name: &str) -> QueryResult<usize> {
    ///     diesel::insert_into(users::table).values(users::name.eq(name)).execute(conn).await
    /// }
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let mut conn = AsyncPgConnection::establish("postgres://localhost/test").await?;
    /// conn.begin_test_transaction().await?;
    /// add(&Conn::borrow_from(&mut conn), "Ada").await?;
    /// assert_eq!(count(&Conn::borrow_from(&mut conn)).await?, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn borrow_from(conn: &mut AsyncPgConnection) -> BorrowedConn<'_, I> {
        let source = Source::opened(mem::replace(conn, placeholder()));
        BorrowedConn { wire: Arc::clone(source.wire()), conn: Self::of(source), owner: conn }
    }

    /// Takes a caller's own connection, for code that takes a `Conn` by value.
    ///
    /// The connection ends with the `Conn`. The limits of [`borrow_from`](Self::borrow_from) apply here as well.
    ///
    /// ```no_run
    /// use diesel_async::{AsyncConnection, AsyncPgConnection};
    /// use futures_util::Stream;
    /// use pointsman::prelude::*;
    ///
    /// diesel::table! { users (id) { id -> Integer, name -> Text, } }
    ///
    /// fn names(conn: Conn<Read>) -> impl Stream<Item = QueryResult<String>> + Send + 'static {
    ///     users::table.select(users::name).into_stream(conn)
    /// }
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let conn = AsyncPgConnection::establish("postgres://localhost/test").await?;
    /// let names = names(Conn::from_connection(conn));
    /// # drop(names);
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_connection(conn: AsyncPgConnection) -> Self {
        Self::of(Source::opened(conn))
    }
}

/// A guard whose drop puts the connection of [`Conn::borrow_from`] back.
///
/// It dereferences to a [`Conn`], also exclusively. So `mem::swap` can exchange the connection for another one, which
/// is then not put back.
#[must_use = "the connection is put back when this is dropped"]
pub struct BorrowedConn<'a, I: Intent> {
    conn: Conn<I>,
    owner: &'a mut AsyncPgConnection,
    /// Identifies the connection that was borrowed.
    wire: Arc<WireState>,
}

impl<I: Intent> BorrowedConn<'_, I> {
    /// Runs a function in a transaction, as [`Conn::transaction`] does.
    ///
    /// It is defined here because an imported `diesel_async::AsyncConnection` would be found before the method of
    /// [`Conn`].
    ///
    /// # Errors
    ///
    /// As [`Conn::transaction`].
    ///
    /// # Cancel safety
    ///
    /// As [`Conn::transaction`].
    pub fn transaction<'a, 'conn, R, E, F>(
        &'conn mut self,
        function: F,
    ) -> impl Future<Output = Result<R, E>> + Send + 'conn
    where
        for<'r> F: AsyncFnOnce(&'r mut Conn<I>) -> Result<R, E>
            + AsyncFunc<&'r mut Conn<I>, Result<R, E>, Fut: Send>
            + Send
            + 'a,
        E: From<Error> + Send + 'a,
        R: Send + 'a,
        'a: 'conn,
    {
        self.conn.transaction(function)
    }
}

impl<I: Intent> Deref for BorrowedConn<'_, I> {
    type Target = Conn<I>;

    fn deref(&self) -> &Conn<I> {
        &self.conn
    }
}

impl<I: Intent> DerefMut for BorrowedConn<'_, I> {
    fn deref_mut(&mut self) -> &mut Conn<I> {
        &mut self.conn
    }
}

impl<I: Intent> Drop for BorrowedConn<'_, I> {
    fn drop(&mut self) {
        self.conn.inner.source.give_back(&self.wire, self.owner);
    }
}

impl<I: Intent> fmt::Debug for BorrowedConn<'_, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BorrowedConn").field(&self.conn).finish()
    }
}
