//! `Writable` for `Read`, from outside.
//~ E0117
//~ says: only traits defined in the current crate can be implemented

use pointsman::prelude::*;

pub trait Own {}

impl Writable for Read {} // twin: impl Own for Read {}

pub fn names<I: Writable>() -> &'static str {
    I::KIND.as_str()
}
