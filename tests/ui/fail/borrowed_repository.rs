//! A method that writes, on a bare connection that was borrowed to read.
//~ E0277
//~ says: this method writes, and a `Conn<Read>` cannot

use diesel_async::AsyncPgConnection;
use pointsman::prelude::*;
use ui::Users;

pub async fn run(conn: &mut AsyncPgConnection) -> QueryResult<usize> {
    let users = Conn::<Read>::borrow_from(conn); // twin: let users = Conn::<Write>::borrow_from(conn);
    users.rename(1, "a").await
}
