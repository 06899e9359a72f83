//! A repository method that writes without saying so.
//~ E0277
//~ says: this method writes, and a `Conn<Read>` cannot
//~ says: the intent here is `I`

use pointsman::prelude::*;
use ui::users;

pub trait Cities<I: Intent> {
    fn clear(&self) -> impl Future<Output = QueryResult<usize>> + Send
    where // twin: where I: Writable,
    ;
}

impl<I: Intent> Cities<I> for Conn<I> {
    async fn clear(&self) -> QueryResult<usize>
    where // twin: where I: Writable,
    {
        diesel::update(users::table).set(users::city.eq(None::<String>)).execute(self.as_write()).await
    }
}
