//! A write on a connection that reads, however the caller got it.
//~ E0277
//~ says: this statement is not known to only read, so a `Conn<Read>` cannot run it
//~ says: check out a `Conn<Write>` with `ReplicaSet::write`
//~ fixed: Conn<Read> => Conn<Write>

use axum::Router;
use axum::routing::post;
use diesel_async::AsyncPgConnection;
use fixture::users;
use pointsman::prelude::*;

//~ fail: the reading view of a `Conn<Write>`
pub async fn view(conn: &Conn<Write>) -> QueryResult<usize> {
    let conn = conn.as_read(); // fixed: let conn = conn.as_write();
    diesel::delete(users::table).execute(conn).await
}

//~ fail: a `Conn<Write>` that was converted with `into_read`
pub async fn converted(conn: Conn<Write>) -> QueryResult<usize> {
    let conn = conn.into_read(); // fixed: let _ = &conn;
    diesel::delete(users::table).execute(&conn).await
}

//~ fail: a bare connection that was borrowed to read
pub async fn borrowed(conn: &mut AsyncPgConnection) -> QueryResult<usize> {
    let conn = Conn::<Read>::borrow_from(conn); // fixed: let conn = Conn::<Write>::borrow_from(conn);
    diesel::delete(users::table).execute(&conn).await
}

//~ fail: a connection that moved into a task
pub fn spawned(mut conn: Conn<Read>) {
    tokio::spawn(async move { conn.transaction(async |tx| diesel::delete(users::table).execute(tx).await).await });
}

//~ fail: a connection that an HTTP handler checked out to read
async fn purge() -> String {
    let conn = fixture::read().await; // fixed: let conn = fixture::write().await;
    format!("{:?}", diesel::delete(users::table).execute(&conn).await)
}

pub fn router() -> Router {
    Router::new().route("/purge", post(purge))
}
