//! `pointsman migrate`.

use std::path::Path;

use super::failure::Outcome;
use super::servers;

pub(super) async fn run(file: Option<&Path>) -> Outcome {
    let set = servers::connect(file).await?;
    let applied = servers::migrate(&set).await;
    servers::close(&set).await;
    let applied = applied?;
    for name in &applied {
        println!("applied {name}");
    }
    if applied.is_empty() {
        println!("nothing to apply: the tables are up to date");
    }
    Ok(())
}
