//! The adapter for `UNION`, `INTERSECT` and `EXCEPT`.

use diesel::backend::Backend;
use diesel::dsl;
use diesel::query_builder::{AsQuery, AstPass, Query, QueryFragment, QueryId, SelectQuery};
use diesel::query_dsl::CombineDsl;
use diesel::query_dsl::methods::{LimitDsl, OffsetDsl};
use diesel::result::QueryResult;

use super::ReadOnly;

/// A set operation of two statements that only read.
///
/// Diesel keeps the type of `a.union(b)` private, so it cannot be marked [`ReadOnly`] from
/// outside. This adapter builds the same statement from two sides that *are* `ReadOnly`; a side
/// that locks its rows does not compile. Results nest: a `SetOperation` is a side of the next.
///
/// ```
/// use pointsman::SetOperation;
/// use pointsman::prelude::*;
///
/// diesel::table! { users (id) { id -> Integer, name -> Text, } }
/// diesel::table! { guests (id) { id -> Integer, name -> Text, } }
///
/// async fn names(conn: &Conn<Read>) -> QueryResult<Vec<String>> {
///     SetOperation::union(users::table.select(users::name), guests::table.select(guests::name))
///         .limit(10)
///         .load(conn)
///         .await
/// }
/// ```
#[derive(Debug, Clone, Copy)]
#[must_use = "a query does nothing until it is run, with `load` or `get_result`"]
pub struct SetOperation<Q> {
    query: Q,
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident -> $output:ident),* $(,)?) => {
        /// The constructors. Each takes the two sides, whose columns must have the same SQL types.
        impl SetOperation<()> {
            $(
                $(#[$doc])*
                pub fn $name<L, R>(left: L, right: R) -> SetOperation<dsl::$output<L, R>>
                where
                    L: CombineDsl + AsQuery,
                    <L as AsQuery>::Query: ReadOnly,
                    R: AsQuery<SqlType = <<L as CombineDsl>::Query as Query>::SqlType>,
                    R::Query: ReadOnly,
                {
                    SetOperation { query: CombineDsl::$name(left, right) }
                }
            )*
        }

        // A set operation combines further as the statement that it holds does.
        impl<Q: CombineDsl> CombineDsl for SetOperation<Q> {
            type Query = Q::Query;
            $(
                fn $name<R>(self, right: R) -> dsl::$output<Self, R>
                where
                    R: AsQuery<SqlType = <Self::Query as Query>::SqlType>,
                {
                    self.query.$name(right)
                }
            )*
        }
    };
}

constructors! {
    /// Rows of either side, each once.
    union -> Union,
    /// Rows of either side, as often as they come.
    union_all -> UnionAll,
    /// Rows of both sides, each once.
    intersect -> Intersect,
    /// Rows of both sides, as often as they come.
    intersect_all -> IntersectAll,
    /// Rows of the left side that the right one lacks, each once.
    except -> Except,
    /// Rows of the left side, less as many of the right one.
    except_all -> ExceptAll,
}

impl<Q> SetOperation<Q> {
    /// Keeps at most so many rows of the result.
    pub fn limit(self, limit: i64) -> SetOperation<Q::Output>
    where
        Q: LimitDsl,
    {
        SetOperation { query: self.query.limit(limit) }
    }

    /// Leaves out the first rows of the result.
    pub fn offset(self, offset: i64) -> SetOperation<Q::Output>
    where
        Q: OffsetDsl,
    {
        SetOperation { query: self.query.offset(offset) }
    }
}

impl<Q> ReadOnly for SetOperation<Q> {}

impl<Q: Query> Query for SetOperation<Q> {
    type SqlType = Q::SqlType;
}

impl<Q: SelectQuery> SelectQuery for SetOperation<Q> {
    type SqlType = Q::SqlType;
}

// `first` limits the statement it is called on.
impl<Q: LimitDsl> LimitDsl for SetOperation<Q> {
    type Output = SetOperation<Q::Output>;

    fn limit(self, limit: i64) -> Self::Output {
        SetOperation { query: self.query.limit(limit) }
    }
}

impl<Q, DB> QueryFragment<DB> for SetOperation<Q>
where
    DB: Backend,
    Q: QueryFragment<DB>,
{
    fn walk_ast<'b>(&'b self, pass: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        self.query.walk_ast(pass)
    }
}

// The wrapper adds no SQL, so the wrapped statement's identity in the statement cache is its own.
impl<Q: QueryId> QueryId for SetOperation<Q> {
    type QueryId = Q::QueryId;
    const HAS_STATIC_QUERY_ID: bool = Q::HAS_STATIC_QUERY_ID;
}
