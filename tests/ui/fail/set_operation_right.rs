//! A set operation whose right side locks rows.
//~ E0277
//~ says: this statement is not known to only read

use pointsman::prelude::*;
use ui::users;

pub async fn run(conn: &Conn<Read>) -> QueryResult<Vec<i32>> {
    let plain = users::table.select(users::id);
    let locked = users::table.select(users::id).for_update(); // twin: let locked = users::table.select(users::id);
    plain.union(locked).load(conn).await
}
