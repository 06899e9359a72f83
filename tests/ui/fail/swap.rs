//! Swapping a connection that reads with one that writes.
//~ E0308
//~ says: expected `&mut Conn<Write>`, found `&mut Conn<Read>`

use pointsman::prelude::*;

pub fn run(
    replica: &mut Conn<Read>, // twin: replica: &mut Conn<Write>,
    primary: &mut Conn<Write>,
) {
    std::mem::swap(primary, replica);
}
