//! The seal of the intents, by its path.
//~ E0603
//~ says: module `intent` is private

pub enum Admin {}

impl pointsman::intent::sealed::Sealed for Admin {} // fixed: impl pointsman::ReadOnly for Admin {}
