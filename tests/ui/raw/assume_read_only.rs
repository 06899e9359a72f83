//! `assume_read_only` applies to a statement, not to a connection.
//~ fixed: Conn<Read> => Conn<Write>

use pointsman::assume_read_only;
use pointsman::prelude::*;

//~ fail: a connection instead of a statement
//~ E0599
//~ says: the method `execute` exists for struct `AssumeReadOnly<&Conn<Read>>`, but its trait bounds were not satisfied
pub async fn of_a_connection(conn: &Conn<Read>) -> QueryResult<usize> {
    assume_read_only(conn).execute(conn).await // fixed: assume_read_only(diesel::sql_query("SELECT 1")).execute(conn).await
}

//~ fail: a statement that was marked as reading, on the writing view
//~ E0277
//~ says: this method writes, and a `Conn<Read>` cannot
pub async fn does_not_write(conn: &Conn<Read>) -> QueryResult<usize> {
    assume_read_only(diesel::sql_query("SELECT 1")).execute(conn.as_write()).await
}
