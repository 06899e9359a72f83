//! A repository behind `dyn`; `async_trait` makes it possible.
//~ E0038
//~ says: the trait `Users` is not dyn compatible

use fixture::users;
use pointsman::prelude::*;

#[allow(async_fn_in_trait, reason = "the case needs one")] // fixed: #[async_trait::async_trait]
pub trait Users<I: Intent> {
    async fn first(&self) -> QueryResult<i32>;
}

#[rustfmt::skip] // fixed: #[async_trait::async_trait]
impl<I: Intent> Users<I> for Conn<I> {
    async fn first(&self) -> QueryResult<i32> {
        users::table.select(users::id).first(self.as_read()).await
    }
}

pub async fn run(users: &dyn Users<Read>) -> QueryResult<i32> {
    users.first().await
}
