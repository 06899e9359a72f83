//! A third intent.
//~ E0277
//~ says: `Admin` is not an intent: there are only `Read` and `Write`

use pointsman::prelude::*;

pub enum Admin {}

impl Intent for Admin { // twin: pub trait Own { const NAME: &'static str; } impl Own for Admin {
    const NAME: &'static str = "admin";
}

pub const READ: &str = Read::NAME;
