//! A session that reads its own writes, and whose reads never go backwards.

use std::fmt;
use std::sync::Arc;

use tokio::time::Instant;

use crate::conn::{AsyncFunc, Conn};
use crate::error::{CausalError, CheckoutError};
use crate::lsn::{PositionLog, SharedLog};
use crate::options::{ReadOptions, WriteOptions};
use crate::replica_set::ReplicaSet;
use crate::token::CausalToken;
use crate::{Read, Write};

/// A session, whose reads see its writes and never go backwards.
///
/// That holds on any node.
///
/// A session records how far in the cluster's history it has seen, by its writes and by its reads. The position comes in
/// the same flight as the answer, so it costs no round trip. Each read then goes to a node that is at least as far. The
/// [guide](crate::guide::consistency) says what that promises, and what it does not.
///
/// A session is for one user or one request. It is cheap, and clones share what they have seen. Between requests, and
/// between services, [`token`](Self::token) carries it.
///
/// ```no_run
/// use pointsman::prelude::*;
/// use pointsman::{Error, ReplicaSet};
///
/// diesel::table! { users (id) { id -> Integer, name -> Text, } }
///
/// async fn rename(set: &ReplicaSet, id: i32, name: &str) -> Result<String, Error> {
///     let session = set.session();
///     session
///         .run_write(async |tx| {
///             let user = diesel::update(users::table.find(id));
///             Ok::<_, Error>(user.set(users::name.eq(name)).execute(tx).await?)
///         })
///         .await?;
///     // A replica serves this, and it has the new name.
///     session.run_read(async |conn| Ok(users::table.find(id).select(users::name).first(conn).await?)).await
/// }
/// ```
#[derive(Clone)]
pub struct Session {
    set: ReplicaSet,
    log: Arc<PositionLog>,
}

impl ReplicaSet {
    /// Begins a session that has seen nothing yet.
    ///
    /// ```no_run
    /// # fn example(set: pointsman::ReplicaSet) {
    /// let session = set.session();
    /// assert_eq!(session.token(), None);
    /// # }
    /// ```
    pub fn session(&self) -> Session {
        Session { set: self.clone(), log: Arc::default() }
    }

    /// Continues a session that has seen everything that a token covers.
    ///
    /// The token is checked when the session reads or writes: see [`CausalError`].
    ///
    /// ```no_run
    /// # fn example(set: pointsman::ReplicaSet, token: pointsman::CausalToken) {
    /// let session = set.session_from(&token);
    /// assert_eq!(session.token(), Some(token));
    /// # }
    /// ```
    pub fn session_from(&self, token: &CausalToken) -> Session {
        let log = PositionLog::new(token.system_identifier(), *token.positions());
        Session { set: self.clone(), log: Arc::new(log) }
    }
}

impl Session {
    /// Returns the token of what the session has seen; `None` if it has seen nothing.
    ///
    /// It covers each statement and transaction from the moment that its future completes. A statement that runs on the
    /// bare connection of a `Conn<Write>`, and a stream, are covered a moment later: once their answer has arrived.
    ///
    /// ```no_run
    /// # async fn example(session: &pointsman::Session) -> Result<(), pointsman::Error> {
    /// use pointsman::prelude::*;
    ///
    /// session.run_write(async |tx| diesel::sql_query("UPDATE users SET name = 'Ada'").execute(tx).await).await?;
    /// let header = session.token().map(|token| token.to_string());
    /// # Ok(())
    /// # }
    /// ```
    pub fn token(&self) -> Option<CausalToken> {
        self.set.snapshot().token(&self.log)
    }

    /// Adds what a token covers to what the session has seen.
    ///
    /// Returns `false`, and adds nothing, if the token belongs to another cluster than the session.
    ///
    /// ```no_run
    /// # fn example(session: pointsman::Session, token: pointsman::CausalToken) {
    /// assert!(session.observe(&token));
    /// # }
    /// ```
    pub fn observe(&self, token: &CausalToken) -> bool {
        let own = self.set.snapshot().system_identifier;
        self.log.merge(token.system_identifier(), token.positions(), own)
    }

    /// Forgets everything that the session has seen.
    ///
    /// It is for a caller that was told [`CausalError::Lost`], and has found out what is missing. After
    /// [`CausalError::Foreign`] or [`CausalError::NoPosition`] a session goes on as well, once the cause is gone.
    ///
    /// ```no_run
    /// # async fn example(session: &pointsman::Session) {
    /// use pointsman::{CausalError, CheckoutError};
    ///
    /// if let Err(CheckoutError::Causal(CausalError::Lost { .. })) = session.read().await {
    ///     session.forget();
    /// }
    /// # }
    /// ```
    pub fn forget(&self) {
        self.log.forget();
    }

    /// Checks out a connection to read, from a node that has what the session saw.
    ///
    /// If no replica is known to be that far, this asks one, which takes a round trip.
    /// [`run_read`](Self::run_read) asks in the same flight as the read.
    ///
    /// # Errors
    ///
    /// As [`ReplicaSet::read`], and [`CheckoutError::Causal`].
    ///
    /// # Cancel safety
    ///
    /// As [`ReplicaSet::read`].
    ///
    /// ```no_run
    /// # async fn example(session: &pointsman::Session) -> Result<(), pointsman::CheckoutError> {
    /// let conn = session.read().await?;
    /// println!("served by {}", conn.node());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn read(&self) -> Result<Conn<Read>, CheckoutError> {
        self.read_with(&ReadOptions::new()).await
    }

    /// Checks out a connection to read, with options for this call.
    ///
    /// The read follows the session and [`ReadOptions::after`], if both are set.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    ///
    /// # Cancel safety
    ///
    /// As [`read`](Self::read).
    pub fn read_with<'s>(
        &'s self,
        options: &ReadOptions,
    ) -> impl Future<Output = Result<Conn<Read>, CheckoutError>> + Send + use<'s> {
        let options = options.clone();
        async move { self.set.read_with(&self.follow(options).await?).await }
    }

    /// Runs a function that only reads, on a node that has what the session saw.
    ///
    /// If no replica is known to be that far, one is asked in the same flight as the read. The result counts only if the
    /// replica was that far; otherwise the function runs again elsewhere.
    ///
    /// # Errors
    ///
    /// As [`ReplicaSet::run_read`], and [`CheckoutError::Causal`].
    ///
    /// # Cancel safety
    ///
    /// As [`ReplicaSet::run_read`].
    pub fn run_read<'a, 's, R, E, F>(&'s self, function: F) -> impl Future<Output = Result<R, E>> + Send + 's
    where
        for<'r> F: AsyncFnOnce(&'r mut Conn<Read>) -> Result<R, E>
            + AsyncFunc<&'r mut Conn<Read>, Result<R, E>, Fut: Send>
            + Clone
            + Send
            + 'a,
        E: From<CheckoutError> + Send + 'a,
        R: Send + 'a,
        'a: 's,
    {
        self.run_read_with(&ReadOptions::new(), function)
    }

    /// Runs a function that only reads, with options for this call.
    ///
    /// # Errors
    ///
    /// As [`run_read`](Self::run_read).
    ///
    /// # Cancel safety
    ///
    /// As [`ReplicaSet::run_read`].
    pub fn run_read_with<'a, 's, R, E, F>(
        &'s self,
        options: &ReadOptions,
        function: F,
    ) -> impl Future<Output = Result<R, E>> + Send + 's + use<'a, 's, R, E, F>
    where
        for<'r> F: AsyncFnOnce(&'r mut Conn<Read>) -> Result<R, E>
            + AsyncFunc<&'r mut Conn<Read>, Result<R, E>, Fut: Send>
            + Clone
            + Send
            + 'a,
        E: From<CheckoutError> + Send + 'a,
        R: Send + 'a,
        'a: 's,
    {
        let options = options.clone();
        async move { self.set.run_read_with(&self.follow(options).await?, function).await }
    }

    /// Checks out a connection to write, on a primary that has what the session saw.
    ///
    /// The session sees each statement and transaction that runs on the connection.
    ///
    /// # Errors
    ///
    /// As [`ReplicaSet::write`], and [`CheckoutError::Causal`].
    ///
    /// # Cancel safety
    ///
    /// As [`ReplicaSet::write`].
    ///
    /// ```no_run
    /// use pointsman::prelude::*;
    /// use pointsman::{Error, Session};
    ///
    /// diesel::table! { visits (id) { id -> Integer, } }
    ///
    /// async fn visit(session: &Session) -> Result<i64, Error> {
    ///     let conn = session.write().await?;
    ///     diesel::insert_into(visits::table).default_values().execute(&conn).await?;
    ///     drop(conn);
    ///     // The visit is counted, on whichever node.
    ///     session.run_read(async |conn| Ok(visits::table.count().get_result(conn).await?)).await
    /// }
    /// ```
    pub async fn write(&self) -> Result<Conn<Write>, CheckoutError> {
        self.write_with(&WriteOptions::new()).await
    }

    /// Checks out a connection to write, with options for this call.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    ///
    /// # Cancel safety
    ///
    /// As [`ReplicaSet::write`].
    pub fn write_with<'s>(
        &'s self,
        options: &WriteOptions,
    ) -> impl Future<Output = Result<Conn<Write>, CheckoutError>> + Send + use<'s> {
        let options = *options;
        async move {
            let limit = options.within.map(|limit| Instant::now() + limit);
            self.complete(limit).await?;
            self.set.write_before(&options, limit, &self.shared_log()).await
        }
    }

    /// Runs a function in a transaction, on a primary that has what the session saw.
    ///
    /// # Errors
    ///
    /// As [`ReplicaSet::run_write`], and [`CheckoutError::Causal`].
    ///
    /// # Cancel safety
    ///
    /// As [`ReplicaSet::run_write`].
    pub fn run_write<'a, 's, R, E, F>(&'s self, function: F) -> impl Future<Output = Result<R, E>> + Send + 's
    where
        for<'r> F: AsyncFnOnce(&'r mut Conn<Write>) -> Result<R, E>
            + AsyncFunc<&'r mut Conn<Write>, Result<R, E>, Fut: Send>
            + Clone
            + Send
            + 'a,
        E: From<CheckoutError> + From<diesel::result::Error> + Send + 'a,
        R: Send + 'a,
        'a: 's,
    {
        self.run_write_with(&WriteOptions::new(), function)
    }

    /// Runs a function in a transaction, with options for this call.
    ///
    /// # Errors
    ///
    /// As [`run_write`](Self::run_write).
    ///
    /// # Cancel safety
    ///
    /// As [`ReplicaSet::run_write`].
    pub fn run_write_with<'a, 's, R, E, F>(
        &'s self,
        options: &WriteOptions,
        function: F,
    ) -> impl Future<Output = Result<R, E>> + Send + 's + use<'a, 's, R, E, F>
    where
        for<'r> F: AsyncFnOnce(&'r mut Conn<Write>) -> Result<R, E>
            + AsyncFunc<&'r mut Conn<Write>, Result<R, E>, Fut: Send>
            + Clone
            + Send
            + 'a,
        E: From<CheckoutError> + From<diesel::result::Error> + Send + 'a,
        R: Send + 'a,
        'a: 's,
    {
        let options = *options;
        async move {
            self.complete(options.within.map(|limit| Instant::now() + limit)).await?;
            self.set.run_write_recorded(&options, self.shared_log(), function).await
        }
    }

    /// Returns the options of a read that follows this session.
    async fn follow(&self, options: ReadOptions) -> Result<ReadOptions, CheckoutError> {
        let began = Instant::now();
        let limit = options.within.unwrap_or_else(|| self.set.config().timeouts().checkout);
        self.complete(Some(began + limit)).await?;
        let within = options.within.map(|limit| limit.saturating_sub(began.elapsed()));
        let snapshot = self.set.snapshot();
        snapshot.forget_ancestors(&self.log);
        let own = snapshot.token(&self.log);
        let after = match (own, options.after) {
            (Some(own), Some(other)) => Some(own.merge(&other).ok_or(CausalError::Foreign)?),
            (own, other) => own.or(other),
        };
        Ok(ReadOptions { within, after, log: self.shared_log(), ..options })
    }

    /// Covers what the session has seen and whose position never arrived.
    ///
    /// A later position of the same timeline covers it. The wait for the primary ends at the limit, if there is one.
    async fn complete(&self, limit: Option<Instant>) -> Result<(), CheckoutError> {
        if self.log.is_refused() {
            return Err(CausalError::NoPosition.into());
        }
        while let Some(timeline) = self.log.gap() {
            let conn = self.set.write_before(&WriteOptions::new(), limit, &SharedLog::none()).await?;
            let present = self.set.snapshot().ancestry.timeline();
            if present != timeline {
                return Err(CausalError::PositionUnknown { timeline }.into());
            }
            match conn.ask_position().await {
                Some(position) => self.log.close_gap(timeline, position),
                // The primary was lost in between: the next one decides.
                None if conn.is_closed() => {}
                None => return Err(CausalError::NoPosition.into()),
            }
        }
        Ok(())
    }

    fn shared_log(&self) -> SharedLog {
        SharedLog(Some(Arc::clone(&self.log)))
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("token", &self.token()).finish_non_exhaustive()
    }
}
