//! The adapter for `UNION`, `INTERSECT` and `EXCEPT`.

use std::marker::PhantomData;

use diesel::Insertable;
use diesel::backend::Backend;
use diesel::dsl;
use diesel::expression::array_comparison::AsInExpression;
use diesel::query_builder::{AsQuery, AstPass, Query, QueryFragment, QueryId, SelectQuery};
use diesel::query_dsl::methods::{LimitDsl, OffsetDsl};
use diesel::query_dsl::positional_order_dsl::{IntoPositionalOrderExpr, PositionalOrderDsl};
use diesel::result::QueryResult;
use diesel::sql_types::SqlType;

use self::sealed::Operand;
use super::ReadOnly;

/// A set operation, which remembers the types of its two sides.
///
/// Diesel keeps the type of `a.union(b)` private, so no other crate can mark it [`ReadOnly`]. [`CombineDsl`] builds the
/// same statement inside this type, which is `ReadOnly` if both sides `L` and `R` are. Results nest: a `SetOperation`
/// is a side of the next one.
#[derive(Debug, Clone, Copy)]
#[must_use = "a query does nothing until it is run, with `load` or `get_result`"]
pub struct SetOperation<Q, L, R> {
    query: Q,
    sides: PhantomData<fn() -> (L, R)>,
}

impl<Q, L, R> SetOperation<Q, L, R> {
    fn new(query: Q) -> Self {
        Self { query, sides: PhantomData }
    }
}

#[expect(unnameable_types, reason = "it seals the trait, so no other crate may name it")]
mod sealed {
    /// The left side of a set operation.
    pub trait Operand {
        /// The value that Diesel combines.
        type Operand: diesel::CombineDsl;
        /// The statement inside the result, which must be `ReadOnly` for the result to be.
        type Checked;

        fn operand(self) -> Self::Operand;
    }

    impl<T: diesel::CombineDsl> Operand for T {
        type Operand = T;
        // Diesel's combination has this type, whatever `AsQuery` declares.
        type Checked = T::Query;

        fn operand(self) -> T {
            self
        }
    }

    impl<Q: diesel::CombineDsl, L, R> Operand for super::SetOperation<Q, L, R> {
        type Operand = Q;
        type Checked = Self;

        fn operand(self) -> Q {
            self.query
        }
    }
}

/// The columns that the right side must have.
type Columns<L> = <<<L as Operand>::Operand as diesel::CombineDsl>::Query as Query>::SqlType;

macro_rules! set_operations {
    ($($(#[$doc:meta])* $name:ident -> $output:ident),* $(,)?) => {
        /// Combines two statements by `UNION`, `INTERSECT` or `EXCEPT`.
        ///
        /// A [`Conn<Read>`](crate::Conn) runs the result. The methods have the names and the meaning of
        /// [`diesel::CombineDsl`], which this trait replaces in [`pointsman::prelude`](crate::prelude). Both sides must
        /// have the same SQL types. If one of them locks its rows, the result is not [`ReadOnly`], and only a
        /// `Conn<Write>` runs it.
        ///
        /// ```
        /// use pointsman::prelude::*;
        ///
        /// diesel::table! { users (id) { id -> Integer, name -> Text, } }
        /// diesel::table! { guests (id) { id -> Integer, name -> Text, } }
        ///
        /// async fn names(conn: &Conn<Read>) -> QueryResult<Vec<String>> {
        ///     let guests = guests::table.select(guests::name);
        ///     users::table.select(users::name).union(guests).positional_order_by(1).limit(10).load(conn).await
        /// }
        /// ```
        pub trait CombineDsl: Operand + Sized {
            $(
                $(#[$doc])*
                fn $name<R>(self, right: R) -> SetOperation<dsl::$output<Self::Operand, R>, Self::Checked, R::Query>
                where
                    R: AsQuery<SqlType = Columns<Self>>,
                {
                    SetOperation::new(diesel::CombineDsl::$name(self.operand(), right))
                }
            )*
        }
    };
}

set_operations! {
    /// Keeps the rows of either side, each once.
    union -> Union,
    /// Keeps the rows of either side, with duplicates.
    union_all -> UnionAll,
    /// Keeps the rows that both sides have, each once.
    intersect -> Intersect,
    /// Keeps the rows that both sides have, with common duplicates.
    intersect_all -> IntersectAll,
    /// Keeps the rows of the left side that the right side lacks, each once.
    except -> Except,
    /// Keeps the rows of the left side, less one for each equal row of the right side.
    except_all -> ExceptAll,
}

impl<T: Operand> CombineDsl for T {}

impl<Q, L: ReadOnly, R: ReadOnly> ReadOnly for SetOperation<Q, L, R> {}

impl<Q, L, R> SetOperation<Q, L, R> {
    /// Keeps at most `limit` rows of the result.
    pub fn limit(self, limit: i64) -> SetOperation<Q::Output, L, R>
    where
        Q: LimitDsl,
    {
        SetOperation::new(self.query.limit(limit))
    }

    /// Leaves out the first `offset` rows of the result.
    pub fn offset(self, offset: i64) -> SetOperation<Q::Output, L, R>
    where
        Q: OffsetDsl,
    {
        SetOperation::new(self.query.offset(offset))
    }

    /// Orders the result by a column, counted from 1.
    pub fn positional_order_by<E>(self, column: E) -> SetOperation<Q::Output, L, R>
    where
        E: IntoPositionalOrderExpr,
        Q: PositionalOrderDsl<E>,
    {
        SetOperation::new(self.query.positional_order_by(column))
    }

    /// Unwraps Diesel's own set operation, as `exists` needs it.
    ///
    /// Write `diesel::dsl::exists(a.union(b).into_subselect())`. `eq_any` and an insert take the `SetOperation` as it
    /// is. For `exists`, Diesel keeps the necessary trait private.
    pub fn into_subselect(self) -> Q {
        self.query
    }
}

impl<Q: Query, L, R> Query for SetOperation<Q, L, R> {
    type SqlType = Q::SqlType;
}

impl<Q: SelectQuery, L, R> SelectQuery for SetOperation<Q, L, R> {
    type SqlType = Q::SqlType;
}

// `first` limits the statement it is called on.
impl<Q: LimitDsl, L, R> LimitDsl for SetOperation<Q, L, R> {
    type Output = SetOperation<Q::Output, L, R>;

    fn limit(self, limit: i64) -> Self::Output {
        SetOperation::new(self.query.limit(limit))
    }
}

// For `eq_any`.
impl<ST: SqlType, Q: AsInExpression<ST>, L, R> AsInExpression<ST> for SetOperation<Q, L, R> {
    type InExpression = Q::InExpression;

    fn as_in_expression(self) -> Self::InExpression {
        self.query.as_in_expression()
    }
}

impl<T, Q: Insertable<T>, L, R> Insertable<T> for SetOperation<Q, L, R> {
    type Values = Q::Values;

    fn values(self) -> Self::Values {
        self.query.values()
    }
}

impl<Q, L, R, DB> QueryFragment<DB> for SetOperation<Q, L, R>
where
    DB: Backend,
    Q: QueryFragment<DB>,
{
    fn walk_ast<'b>(&'b self, pass: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        self.query.walk_ast(pass)
    }
}

// The wrapper adds no SQL, so it has the wrapped statement's identity in the statement cache.
impl<Q: QueryId, L, R> QueryId for SetOperation<Q, L, R> {
    type QueryId = Q::QueryId;
    const HAS_STATIC_QUERY_ID: bool = Q::HAS_STATIC_QUERY_ID;
}
