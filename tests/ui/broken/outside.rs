//~ E0308
//~ says: mismatched types

pub const TWO: u8 = "";

//~ fail: an error above this case
pub const ONE: u8 = ""; // fixed: pub const ONE: u8 = 1;
