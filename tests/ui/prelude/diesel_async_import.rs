//! The trait of diesel-async instead of the prelude's: the import that a move from diesel-async must change.
//~ E0277
//~ says: a `Conn<Read>` does not lend its bare connection
//~ says: import `pointsman::prelude::*` instead of

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use fixture::{User, users};
use pointsman::{Conn, Read, Write};

pub async fn run(
    conn: &mut Conn<Read>, // fixed: conn: &mut Conn<Write>,
) -> QueryResult<Vec<User>> {
    users::table.select(User::as_select()).load(conn).await
}

pub type Other = (Conn<Read>, Conn<Write>);
