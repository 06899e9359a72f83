//! Swapping a connection that reads with one that writes.
//~ E0308
//~ fixed: Conn<Read> => Conn<Write>

use diesel_async::AsyncPgConnection;
use pointsman::prelude::*;

//~ fail: two connections
//~ says: expected `&mut Conn<Write>`, found `&mut Conn<Read>`
pub fn connections(replica: &mut Conn<Read>, primary: &mut Conn<Write>) {
    std::mem::swap(primary, replica);
}

//~ fail: the reading view of a `Conn<Write>`
//~ says: types differ in mutability
pub fn view(replica: &mut Conn<Read>, primary: &mut Conn<Write>) {
    std::mem::swap(replica, primary.as_read()); // fixed: let _ = (replica, primary.as_read());
}

//~ fail: the connection of a transaction
//~ says: expected `&mut Conn<Read>`, found `&mut Conn<Write>`
pub async fn transaction(replica: &mut Conn<Read>, primary: &mut Conn<Write>) -> QueryResult<()> {
    replica.transaction(async |tx| Ok::<_, diesel::result::Error>(std::mem::swap(tx, primary))).await
}

//~ fail: a bare connection that was borrowed to write
//~ says: mismatched types
pub fn borrowed(replica: &mut Conn<Read>, conn: &mut AsyncPgConnection) {
    let mut borrowed = Conn::<Write>::borrow_from(conn);
    std::mem::swap(replica, &mut *borrowed);
}
