//! A write in an HTTP handler on a connection that was checked out to read.
//~ E0277
//~ says: this statement is not known to only read, so a `Conn<Read>` cannot run it
//~ says: check out a `Conn<Write>` with `ReplicaSet::write`

use axum::Router;
use axum::routing::post;
use pointsman::prelude::*;
use ui::users;

async fn purge() -> String {
    let conn = ui::read().await; // twin: let conn = ui::write().await;
    format!("{:?}", diesel::delete(users::table).execute(&conn).await)
}

pub fn router() -> Router {
    Router::new().route("/purge", post(purge))
}
