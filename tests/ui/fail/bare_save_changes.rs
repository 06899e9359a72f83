//! diesel-async's `save_changes`.
//~ E0277
//~ says: a `Conn<Read>` does not lend its bare connection

use pointsman::prelude::*;
use ui::User;

pub async fn run(
    conn: &mut Conn<Read>, // twin: conn: &mut Conn<Write>,
    user: &User,
) -> QueryResult<User> {
    diesel_async::SaveChangesDsl::save_changes(user, conn).await
}
