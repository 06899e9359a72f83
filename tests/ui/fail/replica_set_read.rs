//! A write on what `ReplicaSet::read` checks out.
//~ E0277
//~ says: this method writes, and a `Conn<Read>` cannot
//~ says: check out a `Conn<Write>` with `ReplicaSet::write`

use pointsman::{CheckoutError, ReplicaSet};
use ui::Users;

pub async fn run(set: &ReplicaSet) -> Result<(), CheckoutError> {
    let users = set.read().await?; // twin: let users = set.write().await?;
    let _ = users.rename(1, "a").await;
    Ok(())
}
