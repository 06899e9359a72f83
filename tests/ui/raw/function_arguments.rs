//! A function that takes a bare connection, called with a `Conn<Read>`.
//~ fixed: Conn<Read> => Conn<Write>

use diesel::pg::Pg;
use diesel_async::async_connection_wrapper::AsyncConnectionWrapper;
use diesel_async::{AsyncConnection, AsyncMigrationHarness, AsyncPgConnection, TransactionManager};
use fixture::users;
use pointsman::prelude::*;

//~ fail: it takes `&mut AsyncPgConnection`
//~ E0308
//~ says: expected `&mut AsyncPgConnection`, found `&mut Conn<Read>`
pub async fn takes_exclusive(_conn: &mut AsyncPgConnection) {}

pub async fn exclusive(conn: &mut Conn<Read>) {
    takes_exclusive(conn).await;
}

//~ fail: it takes `&AsyncPgConnection`
//~ E0308
//~ says: expected `&AsyncPgConnection`, found `&Conn<Read>`
pub async fn takes_shared(_conn: &AsyncPgConnection) {}

pub async fn shared(conn: &Conn<Read>) {
    takes_shared(conn).await;
}

//~ fail: it takes any `AsyncConnection`
//~ E0277
//~ says: the trait bound `Conn<Read>: AsyncConnection` is not satisfied
pub async fn takes_any<C: AsyncConnection<Backend = Pg>>(_conn: &mut C) {}

pub async fn any(conn: &mut Conn<Read>) {
    takes_any(conn).await;
}

//~ fail: the harness that runs migrations
//~ E0277
//~ says: the trait bound `Conn<Read>: AsyncConnection` is not satisfied
pub fn migrations(conn: Conn<Read>) {
    let _ = AsyncMigrationHarness::new(conn);
}

//~ fail: diesel-async's transaction manager
//~ E0277
//~ says: the trait bound `Conn<Read>: AsyncConnection` is not satisfied
pub async fn transaction_manager(conn: &mut Conn<Read>) -> QueryResult<()> {
    begin(conn).await
}

pub async fn begin<C: AsyncConnection>(conn: &mut C) -> QueryResult<()> {
    C::TransactionManager::begin_transaction(conn).await
}

//~ fail: the wrapper that makes an async connection a blocking one
//~ E0277
//~ says: the trait bound `Conn<Read>: AsyncConnection` is not satisfied
pub fn blocking_wrapper(conn: Conn<Read>) {
    takes_blocking(conn);
}

pub fn takes_blocking<C: AsyncConnection<Backend = Pg> + 'static>(conn: C) {
    let _ = AsyncConnectionWrapper::<C>::from(conn);
}

//~ fail: Diesel's own methods, which are not async
//~ E0277
//~ says: `Conn<Read>: Connection` is not satisfied
pub fn blocking(
    conn: &mut Conn<Read>, // fixed: conn: &mut Blocking,
) -> QueryResult<usize> {
    diesel::RunQueryDsl::execute(diesel::delete(users::table), conn)
}

pub type Blocking = AsyncConnectionWrapper<Conn<Write>>;
