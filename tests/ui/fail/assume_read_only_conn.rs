//! A connection instead of a statement.
//~ E0599
//~ says: the method `execute` exists for struct `AssumeReadOnly<&Conn<Read>>`, but its trait bounds were not satisfied

use pointsman::assume_read_only;
use pointsman::prelude::*;

pub async fn run(conn: &Conn<Read>) -> QueryResult<usize> {
    assume_read_only(conn).execute(conn).await // twin: assume_read_only(diesel::sql_query("SELECT 1")).execute(conn).await
}
