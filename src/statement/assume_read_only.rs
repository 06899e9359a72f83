//! The adapter for statements that read, although their type cannot show it.

use diesel::backend::Backend;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::query_dsl::methods::LimitDsl;
use diesel::result::QueryResult;

use super::ReadOnly;

/// A statement that its author vouches for; made by [`assume_read_only`].
#[derive(Debug, Clone, Copy)]
#[must_use = "a query does nothing until it is run, with `load` or `get_result`"]
pub struct AssumeReadOnly<Q> {
    query: Q,
}

/// Vouches that a statement only reads.
///
/// It allows raw SQL on a `Conn<Read>`, and its name is long so that a review finds it. If the promise is false, the
/// server rejects changes of tables. A session of a read pool is read-only at the server, also if the primary serves
/// it, and the statement ends with SQLSTATE 25006.
///
/// That protects against mistakes, not against malice. SQL that first switches the session to read-write (`SET …`)
/// passes, and so does [what PostgreSQL lets a read-only transaction do](ReadOnly#what-it-does-not-say). If that
/// matters, give the URLs of the read pools a role without the privilege to write.
///
/// ```
/// use diesel::sql_types::BigInt;
/// use pointsman::prelude::*;
/// use pointsman::assume_read_only;
///
/// #[derive(QueryableByName)]
/// struct Size {
///     #[diesel(sql_type = BigInt)]
///     bytes: i64,
/// }
///
/// async fn database_size(conn: &Conn<Read>) -> QueryResult<i64> {
///     let query = diesel::sql_query("SELECT pg_database_size(current_database()) AS bytes");
///     let size: Size = assume_read_only(query).get_result(conn).await?;
///     Ok(size.bytes)
/// }
/// ```
pub fn assume_read_only<Q>(query: Q) -> AssumeReadOnly<Q> {
    AssumeReadOnly { query }
}

impl<Q> ReadOnly for AssumeReadOnly<Q> {}

impl<Q: Query> Query for AssumeReadOnly<Q> {
    type SqlType = Q::SqlType;
}

// `first` limits the statement it is called on.
impl<Q: LimitDsl> LimitDsl for AssumeReadOnly<Q> {
    type Output = AssumeReadOnly<Q::Output>;

    fn limit(self, limit: i64) -> Self::Output {
        assume_read_only(self.query.limit(limit))
    }
}

impl<Q, DB> QueryFragment<DB> for AssumeReadOnly<Q>
where
    DB: Backend,
    Q: QueryFragment<DB>,
{
    fn walk_ast<'b>(&'b self, pass: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        self.query.walk_ast(pass)
    }
}

// The wrapper adds no SQL, so it has the wrapped statement's identity in the statement cache.
impl<Q: QueryId> QueryId for AssumeReadOnly<Q> {
    type QueryId = Q::QueryId;
    const HAS_STATIC_QUERY_ID: bool = Q::HAS_STATIC_QUERY_ID;
}
