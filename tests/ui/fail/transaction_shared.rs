//! A transaction on a shared reference.
//~ E0596
//~ says: `conn` is a `&` reference, so it cannot be borrowed as mutable

use pointsman::prelude::*;
use ui::users;

pub async fn run(
    conn: &Conn<Write>, // twin: conn: &mut Conn<Write>,
) -> QueryResult<Vec<i32>> {
    conn.transaction(async |tx| users::table.select(users::id).load(tx).await).await
}
