//! A third intent.
//~ E0277

use pointsman::IntentKind;
use pointsman::prelude::*;

//~ fail: `Intent` for a type of your own
//~ says: `Admin` is not an intent: there are only `Read` and `Write`
pub enum Admin {}

impl Intent for Admin { // fixed: pub trait Own { const KIND: IntentKind; } impl Own for Admin {
    const KIND: IntentKind = IntentKind::Write;
}

//~ fail: `Writable` for a type of your own
//~ says: `Auditor` is not an intent: there are only `Read` and `Write`
pub enum Auditor {}

pub fn name<I: Writable>() -> &'static str {
    I::KIND.as_str()
}

impl Writable for Auditor {} // fixed: impl Auditor { pub fn name() -> &'static str { name::<Write>() } }

//~ fail: a connection with it
//~ says: `Operator` is not an intent: there are only `Read` and `Write`
pub enum Operator {}

pub fn run(
    _conn: &Conn<Operator>, // fixed: _conn: &Conn<Read>,
) {
}

pub const READ: IntentKind = Read::KIND;
