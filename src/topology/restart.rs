//! A task that starts again after a panic.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use tokio::time::sleep;

use crate::backoff::Backoff;

/// Runs the future from `begin` until it ends; after a panic, runs another one.
///
/// The backoff sets the pause before each restart.
///
/// # Cancel safety
///
/// As cancel-safe as the future.
pub(super) async fn restarted<F: Future<Output = ()>>(
    node: &str,
    backoff: &Backoff,
    mut begin: impl FnMut() -> F,
) {
    let mut delays = backoff.delays();
    // A panic cannot leave shared state half-changed, because each future begins from its own arguments.
    while AssertUnwindSafe(begin()).catch_unwind().await.is_err() {
        tracing::error!(node, "a monitor panicked, and is started again");
        sleep(delays.next().unwrap_or_else(|| backoff.max())).await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_begins_again_until_it_ends_by_itself() {
        let mut runs = 0;
        let backoff = Backoff::new(Duration::from_secs(2), Duration::from_secs(32)).unwrap().with_attempts(1);
        restarted("db-1", &backoff, || {
            runs += 1;
            let last = runs == 4;
            async move { assert!(last, "this panic is part of the test") }
        })
        .await;
        assert_eq!(runs, 4);
    }
}
