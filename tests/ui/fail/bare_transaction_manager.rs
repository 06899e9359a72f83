//! diesel-async's transaction manager.
//~ E0277
//~ says: the trait bound `Conn<Read>: AsyncConnection` is not satisfied

use diesel_async::{AsyncConnection, TransactionManager};
use pointsman::prelude::*;

pub async fn run(
    conn: &mut Conn<Read>, // twin: conn: &mut Conn<Write>,
) -> QueryResult<()> {
    begin(conn).await
}

pub async fn begin<C: AsyncConnection>(conn: &mut C) -> QueryResult<()> {
    C::TransactionManager::begin_transaction(conn).await
}
