//! Updating rows and reading them back, with RETURNING left to Diesel.
//~ E0277
//~ says: this statement is not known to only read, so a `Conn<Read>` cannot run it
//~ says: check out a `Conn<Write>` with `ReplicaSet::write`

use pointsman::prelude::*;
use ui::{User, users};

pub async fn run(
    conn: &Conn<Read>, // twin: conn: &Conn<Write>,
) -> QueryResult<Vec<User>> {
    diesel::update(users::table).set(users::name.eq("a")).get_results(conn).await
}
