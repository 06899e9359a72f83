//! Updating rows, boxed.
//~ E0277
//~ says: this statement is not known to only read, so a `Conn<Read>` cannot run it
//~ says: check out a `Conn<Write>` with `ReplicaSet::write`

use pointsman::prelude::*;
use ui::users;

pub async fn run(
    conn: &Conn<Read>, // twin: conn: &Conn<Write>,
) -> QueryResult<usize> {
    let mut update = diesel::update(users::table).set(users::name.eq("a")).into_boxed();
    update = update.filter(users::id.eq(1));
    update.execute(conn).await
}
