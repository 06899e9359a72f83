//! Leaving the connection of a transaction's other intent behind.
//~ E0308
//~ says: expected `&mut Conn<Read>`, found `&mut Conn<Write>`

use pointsman::prelude::*;

pub async fn run(
    replica: &mut Conn<Read>, // twin: replica: &mut Conn<Write>,
    primary: &mut Conn<Write>,
) -> QueryResult<()> {
    replica.transaction(async |tx| Ok::<_, diesel::result::Error>(std::mem::swap(tx, primary))).await
}
