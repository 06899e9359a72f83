//! One case that is right, then cases that are wrong in one way each.
//~ E0308

//~ fail: as it should be
//~ says: mismatched types
pub const RIGHT: u8 = ""; // fixed: pub const RIGHT: u8 = 1;

//~ fail: it compiles
//~ says: mismatched types
pub const COMPILES: u8 = 1; // fixed: pub const COMPILES: u8 = 2;

//~ fail: another error beside the stated one
//~ E0277
//~ says: cannot add
pub const MISMATCH: u8 = ""; // fixed: pub const MISMATCH: u8 = 1;
pub const ADDITION: u8 = 1 + ""; // fixed: pub const ADDITION: u8 = 2;

//~ fail: one of two stated errors
//~ E0308
//~ E0599
//~ says: mismatched types
pub const ONE_OF_TWO: u8 = ""; // fixed: pub const ONE_OF_TWO: u8 = 1;

//~ fail: other words than the stated ones
//~ says: you may not
pub const OTHER_WORDS: u8 = ""; // fixed: pub const OTHER_WORDS: u8 = 1;

//~ fail: words that it must not say
//~ says: expected `u8`
//~ never says: mismatched types
pub const UNWANTED_WORDS: u8 = ""; // fixed: pub const UNWANTED_WORDS: u8 = 1;

//~ fail: no words
pub const NO_WORDS: u8 = ""; // fixed: pub const NO_WORDS: u8 = 1;

//~ fail: no error code
//~ EXXXX
//~ says: mismatched types
pub const NO_CODE: u8 = ""; // fixed: pub const NO_CODE: u8 = 1;

//~ fail: two functions in one case
//~ says: mismatched types
pub fn first() -> u8 { "" } // fixed: pub fn first() -> u8 { 1 }
pub fn second() -> u8 { "" } // fixed: pub fn second() -> u8 { 2 }
