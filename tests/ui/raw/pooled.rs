//! Operations that a pooled connection refuses, even a `Conn<Write>`.
//~ E0277
//~ says: a pooled connection has neither `notifications_stream` nor `cancel_token`

use pointsman::prelude::*;

//~ fail: waiting for notifications, which would never come
//~ says: `ReplicaSet::listen`, a stream on a separate connection
pub fn notifications(set: pointsman::ReplicaSet, conn: &mut Conn<Write>) {
    let _stream = conn.notifications_stream(); // fixed: let _stream = set.listen(["orders"]);
    let _ = (&set, conn);
}

//~ fail: a token that does not know how the connection was dialled
//~ says: `Conn::cancel_handle`
pub fn cancel_token(conn: &Conn<Write>) {
    let _token = conn.cancel_token(); // fixed: let _token = conn.cancel_handle();
}
