//! Two repositories with a method of the same name.
//~ E0034
//~ says: multiple applicable items in scope

use pointsman::prelude::*;

#[allow(async_fn_in_trait, reason = "as users write it")]
pub trait Users<I: Intent> {
    async fn newest(&self) -> QueryResult<i32>;
}

#[allow(async_fn_in_trait, reason = "as users write it")]
pub trait Posts<I: Intent> {
    async fn newest(&self) -> QueryResult<i32>;
}

impl<I: Intent> Users<I> for Conn<I> {
    async fn newest(&self) -> QueryResult<i32> {
        Ok(1)
    }
}

impl<I: Intent> Posts<I> for Conn<I> {
    async fn newest(&self) -> QueryResult<i32> {
        Ok(2)
    }
}

pub async fn run(conn: &Conn<Read>) -> QueryResult<i32> {
    conn.newest().await // fixed: Users::newest(conn).await
}
