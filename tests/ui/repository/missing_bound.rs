//! A repository method that writes without the bound `I: Writable`.

use fixture::users;
use pointsman::prelude::*;

//~ fail: neither the trait nor the impl has the bound
//~ E0277
//~ says: this method writes, and a `Conn<Read>` cannot
//~ says: the intent here is `I`
pub trait Cities<I: Intent> {
    fn clear(&self) -> impl Future<Output = QueryResult<usize>> + Send
    where // fixed: where I: Writable,
    ;
}

impl<I: Intent> Cities<I> for Conn<I> {
    async fn clear(&self) -> QueryResult<usize>
    where // fixed: where I: Writable,
    {
        diesel::update(users::table).set(users::city.eq(None::<String>)).execute(self.as_write()).await
    }
}

//~ fail: the impl has the bound, but the trait does not
//~ E0276
//~ says: impl has stricter requirements than trait
pub trait Towns<I: Intent> {
    fn clear(&self) -> impl Future<Output = QueryResult<usize>> + Send
    where // fixed: where I: Writable,
    ;
}

impl<I: Intent> Towns<I> for Conn<I> {
    async fn clear(&self) -> QueryResult<usize>
    where
        I: Writable,
    {
        diesel::update(users::table).set(users::city.eq(None::<String>)).execute(self.as_write()).await
    }
}
