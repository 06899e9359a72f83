//! A transaction on the view that reads: it lends by shared reference.
//~ E0596
//~ says: as mutable

use pointsman::prelude::*;
use ui::users;

pub async fn run(conn: &mut Conn<Write>) -> QueryResult<i64> {
    let conn = conn.as_read(); // twin: let conn = conn.as_write_mut();
    conn.transaction(async |tx| users::table.count().get_result(tx).await).await
}
