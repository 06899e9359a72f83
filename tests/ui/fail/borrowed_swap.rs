//! Swapping a connection that reads into one that was borrowed to write.
//~ E0308
//~ says: mismatched types

use diesel_async::AsyncPgConnection;
use pointsman::prelude::*;

pub fn run(
    replica: &mut Conn<Read>, // twin: replica: &mut Conn<Write>,
    conn: &mut AsyncPgConnection,
) {
    let mut borrowed = Conn::<Write>::borrow_from(conn);
    std::mem::swap(replica, &mut *borrowed);
}
