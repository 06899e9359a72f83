//! A third intent.
//~ E0277
//~ says: `Admin` is not an intent: there are only `Read` and `Write`

use pointsman::prelude::*;

pub enum Admin {}

impl Intent for Admin { // twin: pub trait Own { const KIND: pointsman::IntentKind; } impl Own for Admin {
    const KIND: pointsman::IntentKind = pointsman::IntentKind::Write;
}

pub const READ: pointsman::IntentKind = Read::KIND;
