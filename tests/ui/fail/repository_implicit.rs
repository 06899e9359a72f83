//! An implementation that asks for more than its trait allows.
//~ E0276
//~ says: impl has stricter requirements than trait

use pointsman::prelude::*;
use ui::users;

pub trait Cities<I: Intent> {
    fn clear(&self) -> impl Future<Output = QueryResult<usize>> + Send
    where // twin: where I: Writable,
    ;
}

impl<I: Intent> Cities<I> for Conn<I> {
    async fn clear(&self) -> QueryResult<usize>
    where
        I: Writable,
    {
        diesel::update(users::table).set(users::city.eq(None::<String>)).execute(self.as_write()).await
    }
}
