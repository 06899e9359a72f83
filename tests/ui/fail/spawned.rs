//! A write in a task that took a connection that reads.
//~ E0277
//~ says: this statement is not known to only read, so a `Conn<Read>` cannot run it

use pointsman::prelude::*;
use ui::users;

pub fn run(
    mut conn: Conn<Read>, // twin: mut conn: Conn<Write>,
) {
    tokio::spawn(async move { conn.transaction(async |tx| diesel::delete(users::table).execute(tx).await).await });
}
