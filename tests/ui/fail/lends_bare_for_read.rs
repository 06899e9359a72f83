//! `LendsBare` for `Read`, from outside.
//~ E0117
//~ says: only traits defined in the current crate can be implemented

use pointsman::LendsBare;
use pointsman::prelude::*;

pub trait Own {}

impl LendsBare for Read {} // twin: impl Own for Read {}

pub fn name<I: LendsBare>() -> &'static str {
    I::KIND.as_str()
}
