//! A `Conn` out of nothing.
//~ E0277
//~ says: the trait bound `Conn<Write>: Default` is not satisfied

use pointsman::prelude::*;

pub async fn run() -> Conn<Write> {
    Default::default() // twin: ui::write().await
}
