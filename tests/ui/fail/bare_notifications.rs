//! Waiting for notifications on a pooled connection, which would never come.
//~ E0277
//~ says: a pooled connection has neither `notifications_stream` nor `cancel_token`
//~ says: `ReplicaSet::listen`, a stream on a separate connection

use pointsman::prelude::*;

pub fn run(set: pointsman::ReplicaSet, conn: &mut Conn<Write>) {
    let _stream = conn.notifications_stream(); // twin: let _stream = set.listen(["orders"]);
    let _ = (&set, conn);
}
