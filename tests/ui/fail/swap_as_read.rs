//! Swapping a replica into the view that reads of a connection that writes.
//~ E0308
//~ says: types differ in mutability

use pointsman::prelude::*;

pub fn run(replica: &mut Conn<Read>, primary: &mut Conn<Write>) {
    std::mem::swap(replica, primary.as_read()); // twin: let _ = (replica, primary.as_read());
}
