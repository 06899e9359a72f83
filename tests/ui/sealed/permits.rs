//! A `Permits` of your own that lets `Read` run a statement, past `ReadOnly`.
//~ E0119
//~ E0277
//~ says: this statement is not known to only read, so a `Conn<Read>` cannot run it

use pointsman::Permits;
use pointsman::prelude::*;

pub struct Purge;

impl Permits<Purge> for Read {} // fixed: impl ReadOnly for Purge {}

pub fn permitted() where Read: Permits<Purge> {}
