//! The bare connection by `BorrowMut`.
//~ E0277
//~ says: `Conn<Read>: BorrowMut<AsyncPgConnection>` is not satisfied

use std::borrow::BorrowMut;
use diesel_async::AsyncPgConnection;
use pointsman::prelude::*;
use ui::users;

pub async fn run(
    conn: &mut Conn<Read>, // twin: conn: &mut Conn<Write>,
) -> QueryResult<usize> {
    diesel_async::RunQueryDsl::execute(diesel::delete(users::table), BorrowMut::<AsyncPgConnection>::borrow_mut(conn)).await // twin: diesel_async::RunQueryDsl::execute(diesel::delete(users::table), BorrowMut::<AsyncPgConnection>::borrow_mut(&mut **conn)).await
}
