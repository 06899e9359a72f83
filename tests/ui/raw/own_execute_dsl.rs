//! An `ExecuteDsl` of your own, which takes the bare connection.
//~ E0599
//~ says: the method `execute` exists for struct `Smuggle`, but its trait bounds were not satisfied

use diesel::pg::Pg;
use diesel_async::methods::ExecuteDsl;
use diesel_async::{AsyncConnectionCore, AsyncPgConnection};
use fixture::users;
use pointsman::prelude::*;

pub struct Smuggle;

impl ReadOnly for Smuggle {}

impl<'c> ExecuteDsl<&'c AsyncPgConnection, Pg> for Smuggle {
    fn execute<'conn, 'query>(
        _: Self,
        conn: &'conn mut &'c AsyncPgConnection,
    ) -> <&'c AsyncPgConnection as AsyncConnectionCore>::ExecuteFuture<'conn, 'query>
    where
        Self: 'query,
    {
        conn.execute_returning_count(diesel::delete(users::table))
    }
}

pub async fn run(conn: &Conn<Read>) -> QueryResult<usize> {
    Smuggle.execute(conn).await // fixed: users::table.select(users::id).execute(conn).await
}
