//! `RawAccess` for `Read`, from outside.
//~ E0117
//~ says: only traits defined in the current crate can be implemented

use pointsman::RawAccess;
use pointsman::prelude::*;

pub trait Own {}

impl RawAccess for Read {} // twin: impl Own for Read {}

pub fn name<I: RawAccess>() -> &'static str {
    I::KIND.as_str()
}
