//! An impl for `Read`, `Conn<Read>` or Diesel's statements, in another crate.

use diesel::query_builder::InsertStatement;
use fixture::users;
use pointsman::prelude::*;
use pointsman::RawAccess;

//~ fail: `Writable` for `Read`
//~ E0117
//~ says: only traits defined in the current crate can be implemented
pub trait OwnWritable {}

impl Writable for Read {} // fixed: impl OwnWritable for Read {}

pub fn names<I: Writable>() -> &'static str {
    I::KIND.as_str()
}

//~ fail: `RawAccess` for `Read`
//~ E0117
//~ says: only traits defined in the current crate can be implemented
pub trait OwnRawAccess {}

impl RawAccess for Read {} // fixed: impl OwnRawAccess for Read {}

pub fn name<I: RawAccess>() -> &'static str {
    I::KIND.as_str()
}

//~ fail: `Deref` for `Conn<Read>`
//~ E0117
//~ says: only traits defined in the current crate can be implemented
pub struct OwnConn(pub Conn<Read>);

impl std::ops::Deref for Conn<Read> { // fixed: impl std::ops::Deref for OwnConn {
    type Target = Conn<Write>;

    fn deref(&self) -> &Conn<Write> {
        unimplemented!()
    }
}

//~ fail: `ReadOnly` for a statement of Diesel's
//~ E0117
//~ says: only traits defined in the current crate can be implemented
pub struct OwnStatement<Q>(pub Q);

impl ReadOnly for InsertStatement<users::table, ()> {} // fixed: impl ReadOnly for OwnStatement<InsertStatement<users::table, ()>> {}

pub fn own<Q>(query: Q) -> OwnStatement<Q> {
    OwnStatement(query)
}

//~ fail: methods of `Conn<Read>`
//~ E0116
//~ says: cannot define inherent `impl` for a type outside of the crate
pub struct OwnMethods(pub Conn<Read>);

impl Conn<Read> { // fixed: impl OwnMethods {
    pub fn served(&self) -> &str {
        "a replica"
    }
}
