//! `ReadOnly` for a statement of Diesel's, from outside.
//~ E0117
//~ says: only traits defined in the current crate can be implemented

use diesel::query_builder::InsertStatement;
use pointsman::prelude::*;
use ui::users;

pub struct Own<Q>(pub Q);

impl ReadOnly for InsertStatement<users::table, ()> {} // twin: impl ReadOnly for Own<InsertStatement<users::table, ()>> {}

pub fn own<Q>(query: Q) -> Own<Q> {
    Own(query)
}
