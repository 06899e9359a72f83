//! `Deref` for a `Conn<Read>`, from outside.
//~ E0117
//~ says: only traits defined in the current crate can be implemented

use pointsman::prelude::*;

pub struct Own(pub Conn<Read>);

impl std::ops::Deref for Conn<Read> { // twin: impl std::ops::Deref for Own {
    type Target = Conn<Write>;

    fn deref(&self) -> &Conn<Write> {
        unimplemented!()
    }
}
