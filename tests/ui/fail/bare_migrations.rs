//! The harness that runs migrations.
//~ E0277
//~ says: the trait bound `Conn<Read>: AsyncConnection` is not satisfied

use diesel_async::AsyncMigrationHarness;
use pointsman::prelude::*;

pub fn run(
    conn: Conn<Read>, // twin: conn: Conn<Write>,
) {
    let _ = AsyncMigrationHarness::new(conn);
}
