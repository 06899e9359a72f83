//~ E0308
//~ says: mismatched types

//~ fail: the fixed version fails, too
pub const ONE: u8 = ""; // fixed: pub const ONE: u8 = -1;

//~ fail: no line differs in the fixed version
pub const TWO: u8 = "";
