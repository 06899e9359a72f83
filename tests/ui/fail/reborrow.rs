//! The reborrow that a pooled connection of another pool needs.
//~ E0614
//~ says: type `pointsman::Conn<pointsman::Read>` cannot be dereferenced

use pointsman::prelude::*;
use ui::users;

pub async fn run(mut conn: Conn<Read>) -> QueryResult<Vec<i32>> {
    let conn = &mut *conn; // twin: let conn = &mut conn;
    users::table.select(users::id).load(conn).await
}
