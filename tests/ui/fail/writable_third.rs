//! `Writable` for a type of one's own.
//~ E0277
//~ says: `Admin` is not an intent: there are only `Read` and `Write`

use pointsman::prelude::*;

pub enum Admin {}

pub fn name<I: Writable>() -> &'static str {
    I::NAME
}

impl Writable for Admin { // twin: impl Admin { pub fn name() -> &'static str { name::<Write>() }
    fn witness(_: &Conn<Self>) -> &Conn<Write> { // twin:
        unimplemented!() // twin:
    } // twin:

    fn witness_mut(_: &mut Conn<Self>) -> &mut Conn<Write> { // twin:
        unimplemented!() // twin:
    } // twin:
}
