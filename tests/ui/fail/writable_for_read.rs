//! `Writable` for `Read`, from outside.
//~ E0117
//~ says: only traits defined in the current crate can be implemented

use pointsman::prelude::*;

pub trait Own {}

impl Writable for Read { // twin: impl Own for Read {
    fn witness(_: &Conn<Self>) -> &Conn<Write> { // twin:
        unimplemented!() // twin:
    } // twin:

    fn witness_mut(_: &mut Conn<Self>) -> &mut Conn<Write> { // twin:
        unimplemented!() // twin:
    } // twin:
}

pub fn names<I: Writable>() -> &'static str {
    I::NAME
}
