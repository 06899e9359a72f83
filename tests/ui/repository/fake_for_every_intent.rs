//! A fake for tests that implements the repository for every intent; a call does not say which.
//~ E0283
//~ says: type annotations needed

use pointsman::prelude::*;

#[allow(async_fn_in_trait, reason = "as users write it")]
pub trait Users<I: Intent> {
    async fn first(&self) -> QueryResult<i32>;
    async fn clear(&self) -> QueryResult<usize>
    where
        I: Writable;
}

pub struct Fake;

impl<I: Intent> Users<I> for Fake { // fixed: impl Users<Read> for Fake {
    async fn first(&self) -> QueryResult<i32> {
        Ok(1)
    }

    #[rustfmt::skip]
    async fn clear(&self) -> QueryResult<usize> where I: Writable { // fixed: async fn clear(&self) -> QueryResult<usize> {
        Ok(0)
    }
}

pub async fn run(users: &Fake) -> QueryResult<i32> {
    users.first().await
}
