//! diesel-async's `execute` on each kind of reference to a `Conn<Read>`.
//~ E0277
//~ fixed: Conn<Read> => Conn<Write>

use diesel_async::AsyncPgConnection;
use fixture::users;
use pointsman::prelude::*;

//~ fail: an exclusive reference
//~ says: a `Conn<Read>` does not lend its bare connection
//~ says: import `pointsman::prelude::*` instead of
pub async fn exclusive(conn: &mut Conn<Read>) -> QueryResult<usize> {
    diesel_async::RunQueryDsl::execute(diesel::delete(users::table), conn).await
}

//~ fail: a shared reference
//~ says: a `Conn<Read>` does not lend its bare connection
//~ says: import `pointsman::prelude::*` instead of
//~ fixed: Conn<Read> => Conn<Write>
//~ fixed: &mut &*conn => &mut &**conn
pub async fn shared(conn: &Conn<Read>) -> QueryResult<usize> {
    diesel_async::RunQueryDsl::execute(diesel::delete(users::table), &mut &*conn).await
}

//~ fail: a reference to a reference
//~ says: a `Conn<Read>` does not lend its bare connection
//~ says: import `pointsman::prelude::*` instead of
pub async fn double(mut conn: &mut Conn<Read>) -> QueryResult<usize> {
    diesel_async::RunQueryDsl::execute(diesel::delete(users::table), &mut conn).await
}

//~ fail: a `Box`
//~ says: a `Conn<Read>` does not lend its bare connection
//~ says: import `pointsman::prelude::*` instead of
pub async fn boxed(mut conn: Box<Conn<Read>>) -> QueryResult<usize> {
    diesel_async::RunQueryDsl::execute(diesel::delete(users::table), &mut conn).await
}

//~ fail: a `Pin`
//~ says: a `Conn<Read>` does not lend its bare connection
//~ says: import `pointsman::prelude::*` instead of
pub async fn pinned(mut conn: std::pin::Pin<Box<Conn<Read>>>) -> QueryResult<usize> {
    diesel_async::RunQueryDsl::execute(diesel::delete(users::table), &mut conn).await
}

//~ fail: an `Arc`
//~ says: `Arc<Conn<Read>>
pub async fn arc(
    mut conn: std::sync::Arc<Conn<Read>>, // fixed: mut conn: Box<Conn<Write>>,
) -> QueryResult<usize> {
    diesel_async::RunQueryDsl::execute(diesel::delete(users::table), &mut conn).await
}

//~ fail: the guard of a mutex
//~ says: a `Conn<Read>` does not lend its bare connection
//~ says: import `pointsman::prelude::*` instead of
pub async fn guard(mut conn: tokio::sync::MutexGuard<'_, Conn<Read>>) -> QueryResult<usize> {
    diesel_async::RunQueryDsl::execute(diesel::delete(users::table), &mut conn).await
}

//~ fail: the reading view of a `Conn<Write>`
//~ says: a `Conn<Read>` does not lend its bare connection
//~ says: import `pointsman::prelude::*` instead of
pub async fn view(conn: &mut Conn<Write>) -> QueryResult<usize> {
    diesel_async::RunQueryDsl::execute(diesel::delete(users::table), &mut conn.as_read()).await // fixed: diesel_async::RunQueryDsl::execute(diesel::delete(users::table), conn.as_write_mut()).await
}

//~ fail: the result of `deref_mut`
//~ says: a `Conn<Read>` does not lend its bare connection
//~ says: import `pointsman::prelude::*` instead of
pub async fn deref_mut(conn: &mut Conn<Read>) -> QueryResult<usize> {
    diesel_async::RunQueryDsl::execute(diesel::delete(users::table), std::ops::DerefMut::deref_mut(conn)).await
}

//~ fail: the guard of a bare connection that was borrowed to read
//~ says: a `Conn<Read>` does not lend its bare connection
pub async fn borrowed(conn: &mut AsyncPgConnection) -> QueryResult<usize> {
    let mut conn = Conn::<Read>::borrow_from(conn); // fixed: let mut conn = Conn::<Write>::borrow_from(conn);
    diesel_async::RunQueryDsl::execute(diesel::delete(users::table), &mut *conn).await
}
