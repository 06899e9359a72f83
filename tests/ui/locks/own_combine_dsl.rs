//! A type that reads as a query, but whose `CombineDsl` adds a lock to the set operation.
//~ E0277
//~ says: this statement is not known to only read, so a `Conn<Read>` cannot run it

use diesel::dsl;
use diesel::query_builder::{AsQuery, Query};
use fixture::users;
use pointsman::prelude::*;

type Ids = dsl::Select<users::table, users::id>;
type LockedIds = dsl::ForUpdate<Ids>;

pub struct TwoFaced;

impl AsQuery for TwoFaced {
    type SqlType = diesel::sql_types::Integer;
    type Query = Ids;

    fn as_query(self) -> Ids {
        users::table.select(users::id)
    }
}

macro_rules! combine {
    ($($name:ident -> $output:ident),*) => {
        impl diesel::CombineDsl for TwoFaced {
            type Query = LockedIds;
            $(
                fn $name<R>(self, right: R) -> dsl::$output<Self, R>
                where
                    R: AsQuery<SqlType = <LockedIds as Query>::SqlType>,
                {
                    diesel::CombineDsl::$name(users::table.select(users::id).for_update(), right)
                }
            )*
        }
    };
}

combine!(
    union -> Union,
    union_all -> UnionAll,
    intersect -> Intersect,
    intersect_all -> IntersectAll,
    except -> Except,
    except_all -> ExceptAll
);

pub async fn run(conn: &Conn<Read>) -> QueryResult<Vec<i32>> {
    let ids = users::table.select(users::id);
    TwoFaced.union(ids).load(conn).await // fixed: TwoFaced.as_query().union(ids).load(conn).await
}
