//! A `Conn` made with the crate's own constructor.
//~ E0624
//~ says: associated function `new` is private

use pointsman::prelude::*;

pub fn run() {
    let _ = Conn::<Write>::new; // twin: let _ = Conn::<Write>::node;
}
