//! A timeout that tells a slow peer from a slow process.
//!
//! A timeout that fires shows that time has passed, not that the peer is slow. If this process gets no CPU, the
//! answer may lie unread in its own socket. Then every node would be marked down at once, and the resulting load
//! would keep them down. So a limit is counted in short ticks, and in each tick the runtime gives the answer a
//! chance. A tick that takes too long still counts as one.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::time::sleep;

/// Short enough for many ticks in a limit, long enough to cost nothing.
const TICK: Duration = Duration::from_millis(20);

/// Waits for a future for at most `limit`, counted in ticks.
///
/// Returns `None` if the ticks run out.
///
/// # Cancel safety
///
/// As cancel-safe as the future.
pub(crate) async fn within<F: Future>(limit: Duration, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = limit;
    while !left.is_zero() {
        let tick = left.min(TICK);
        tokio::select! {
            biased;
            output = &mut future => return Some(output),
            () = sleep(tick) => left -= tick,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::{Instant, advance};

    #[tokio::test(start_paused = true)]
    async fn it_ends_at_its_limit() {
        let began = Instant::now();
        assert_eq!(within(Duration::from_millis(305), std::future::pending::<()>()).await, None);
        assert_eq!(began.elapsed(), Duration::from_millis(305));
        assert_eq!(within(Duration::from_millis(305), async { 7 }).await, Some(7));
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_this_process_stood_still_is_not_held_against_the_peer() {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let waiting = tokio::spawn(within(Duration::from_millis(300), receiver));
        tokio::task::yield_now().await;
        // No thread of this process runs for ten seconds; the answer comes right after.
        advance(Duration::from_secs(10)).await;
        tokio::task::yield_now().await;
        sender.send("here").expect("the receiver waits");
        assert_eq!(waiting.await.expect("no panic"), Some(Ok("here")));
    }
}
