//! Taking a token that does not know how the connection was dialled.
//~ E0277
//~ says: a pooled connection has neither `notifications_stream` nor `cancel_token`
//~ says: `Conn::cancel_handle`

use pointsman::prelude::*;

pub fn run(conn: &Conn<Write>) {
    let _token = conn.cancel_token(); // twin: let _token = conn.cancel_handle();
}
