//! What `assume_read_only` vouches for is a statement, not a connection.
//~ E0277
//~ says: this method writes, and a `Conn<Read>` cannot

use pointsman::assume_read_only;
use pointsman::prelude::*;

pub async fn run(
    conn: &Conn<Read>, // twin: conn: &Conn<Write>,
) -> QueryResult<usize> {
    assume_read_only(diesel::sql_query("SELECT 1")).execute(conn.as_write()).await
}
