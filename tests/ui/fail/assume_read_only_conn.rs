//! A connection in the place of a statement.
//~ E0277
//~ says: `Conn<Read>` is no valid SQL fragment

use pointsman::assume_read_only;
use pointsman::prelude::*;

pub async fn run(conn: &Conn<Read>) -> QueryResult<usize> {
    assume_read_only(conn).execute(conn).await // twin: assume_read_only(diesel::sql_query("SELECT 1")).execute(conn).await
}
