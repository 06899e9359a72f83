//! The compiler stops at a syntax error, so it does not report the type error below.

//~ fail: a syntax error
//~ none
//~ says: expected expression
pub const ZERO: u8 = ; // fixed: pub const ZERO: u8 = 0;

//~ fail: a type error
//~ E0308
//~ says: mismatched types
pub const ONE: u8 = ""; // fixed: pub const ONE: u8 = 1;
