//! Methods of `Conn<Read>`, from outside.
//~ E0116
//~ says: cannot define inherent `impl` for a type outside of the crate

use pointsman::prelude::*;

pub struct Own(pub Conn<Read>);

impl Conn<Read> { // twin: impl Own {
    pub fn served(&self) -> &str {
        "a replica"
    }
}
