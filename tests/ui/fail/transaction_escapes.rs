//! The connection of a transaction, kept beyond its end.
//~ none
//~ says: lifetime may not live long enough

use pointsman::prelude::*;

pub async fn run(conn: &mut Conn<Write>) -> QueryResult<()> {
    let mut kept = None;
    conn.transaction(async |tx| {
        kept = Some(tx); // twin: kept = Some(tx.node().to_owned());
        Ok::<_, diesel::result::Error>(())
    })
    .await?;
    drop(kept);
    Ok(())
}
