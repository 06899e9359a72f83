//! diesel-async's trait instead of the prelude's: one changed import.
//~ E0277
//~ says: a `Conn<Read>` does not lend its bare connection
//~ says: import `pointsman::prelude::*` instead of

use diesel::prelude::*;
use diesel_async::RunQueryDsl;
use pointsman::{Conn, Read, Write};
use ui::{User, users};

pub async fn run(
    conn: &mut Conn<Read>, // twin: conn: &mut Conn<Write>,
) -> QueryResult<Vec<User>> {
    users::table.select(User::as_select()).load(conn).await
}

pub type Other = (Conn<Read>, Conn<Write>);
