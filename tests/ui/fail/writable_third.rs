//! `Writable` for a user's type.
//~ E0277
//~ says: `Admin` is not an intent: there are only `Read` and `Write`

use pointsman::prelude::*;

pub enum Admin {}

pub fn name<I: Writable>() -> &'static str {
    I::KIND.as_str()
}

impl Writable for Admin {} // twin: impl Admin { pub fn name() -> &'static str { name::<Write>() } }
