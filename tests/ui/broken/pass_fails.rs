pub const ONE: u8 = "";
