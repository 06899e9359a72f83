//! Updating rows and streaming them back.
//~ E0277
//~ says: this statement is not known to only read, so a `Conn<Read>` cannot run it
//~ says: check out a `Conn<Write>` with `ReplicaSet::write`

use pointsman::prelude::*;
use ui::users;

pub async fn run(
    conn: &Conn<Read>, // twin: conn: &Conn<Write>,
) -> QueryResult<()> {
    let _rows = diesel::update(users::table).set(users::name.eq("a")).returning(users::id).load_stream::<i32>(conn).await?;
    Ok(())
}
