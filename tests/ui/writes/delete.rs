//! A `DELETE` on a `Conn<Read>`.
//~ E0277
//~ says: this statement is not known to only read, so a `Conn<Read>` cannot run it
//~ says: check out a `Conn<Write>` with `ReplicaSet::write`
//~ fixed: Conn<Read> => Conn<Write>

use fixture::users;
use pointsman::prelude::*;

//~ fail: one row
pub async fn one(conn: &Conn<Read>) -> QueryResult<usize> {
    diesel::delete(users::table.find(1)).execute(conn).await
}

//~ fail: one row, with RETURNING
pub async fn returning(conn: &Conn<Read>) -> QueryResult<Vec<String>> {
    diesel::delete(users::table.find(1)).returning(users::name).load(conn).await
}

//~ fail: a boxed statement
pub async fn boxed(conn: &Conn<Read>) -> QueryResult<usize> {
    let mut delete = diesel::delete(users::table).into_boxed();
    delete = delete.filter(users::id.eq(1));
    delete.execute(conn).await
}

//~ fail: through an exclusive reference
pub async fn exclusive(conn: &mut Conn<Read>) -> QueryResult<usize> {
    diesel::delete(users::table).execute(conn).await
}
