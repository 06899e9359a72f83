//! Ways to reach the bare connection of a `Conn<Read>`.
//~ fixed: Conn<Read> => Conn<Write>

use std::borrow::BorrowMut;
use diesel_async::AsyncPgConnection;
use fixture::users;
use pointsman::prelude::*;

//~ fail: the reborrow `&mut *conn` that connections of other pools need
//~ E0614
//~ says: type `pointsman::Conn<pointsman::Read>` cannot be dereferenced
pub async fn reborrow(mut conn: Conn<Read>) -> QueryResult<Vec<i32>> {
    let conn = &mut *conn; // fixed: let conn = &mut conn;
    users::table.select(users::id).load(conn).await
}

//~ fail: dereference
//~ E0614
//~ says: type `Conn<Read>` cannot be dereferenced
pub async fn deref(conn: &mut Conn<Read>) -> QueryResult<usize> {
    diesel_async::RunQueryDsl::execute(diesel::delete(users::table), &mut **conn).await
}

//~ fail: `AsMut`
//~ E0599
//~ says: `as_mut`
//~ fixed: Conn<Read> => Conn<Write>
//~ fixed: conn.as_mut() => &mut **conn
pub async fn as_mut(conn: &mut Conn<Read>) -> QueryResult<usize> {
    diesel_async::RunQueryDsl::execute(diesel::delete(users::table), conn.as_mut()).await
}

//~ fail: `AsRef`
//~ E0599
//~ says: `as_ref`
//~ fixed: Conn<Read> => Conn<Write>
//~ fixed: conn.as_ref() => &mut **conn
pub async fn as_ref(conn: &mut Conn<Read>) -> QueryResult<usize> {
    diesel_async::RunQueryDsl::execute(diesel::delete(users::table), conn.as_ref()).await
}

//~ fail: `BorrowMut`
//~ E0277
//~ says: `Conn<Read>: BorrowMut<AsyncPgConnection>` is not satisfied
//~ fixed: Conn<Read> => Conn<Write>
//~ fixed: BorrowMut::<AsyncPgConnection>::borrow_mut(conn) => BorrowMut::<AsyncPgConnection>::borrow_mut(&mut **conn)
pub async fn borrow_mut(conn: &mut Conn<Read>) -> QueryResult<usize> {
    diesel_async::RunQueryDsl::execute(diesel::delete(users::table), BorrowMut::<AsyncPgConnection>::borrow_mut(conn)).await
}

//~ fail: this crate's own method
//~ E0624
//~ says: method `connection` is private
//~ fixed: Conn<Read> => Conn<Write>
//~ fixed: &mut conn.connection()? => &mut &**conn
pub async fn method(conn: &Conn<Read>) -> QueryResult<usize> {
    diesel_async::RunQueryDsl::execute(diesel::delete(users::table), &mut conn.connection()?).await
}

//~ fail: its field
//~ E0616
//~ says: field `inner` of struct `Conn` is private
//~ fixed: Conn<Read> => Conn<Write>
//~ fixed: conn.inner.lease.conn_mut() => &mut **conn
pub async fn field(conn: &mut Conn<Read>) -> QueryResult<usize> {
    diesel_async::RunQueryDsl::execute(diesel::delete(users::table), conn.inner.lease.conn_mut()).await
}
