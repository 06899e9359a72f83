//! Waiting that tells a slow peer from a slow self.
//!
//! A timeout that fires says that time has passed, not that the other side is to blame: where this process gets no
//! processor, the answer may lie in its own socket, unread. Everybody would be called lost at once then, and the
//! load that follows keeps it so. So a limit is counted in short ticks, each of which is a round of the runtime in
//! which the answer had its chance; a tick that takes longer than it should is counted as one all the same.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::time::sleep;

/// Short enough that a limit has many, long enough that waking up for them costs nothing.
const TICK: Duration = Duration::from_millis(20);

/// Waits for a future for as many ticks as make the limit; `None` when they are over.
///
/// # Cancel safety
///
/// That of the future.
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
        // Nothing of this process runs for ten seconds; the answer comes right after.
        advance(Duration::from_secs(10)).await;
        tokio::task::yield_now().await;
        sender.send("here").expect("somebody waits");
        assert_eq!(waiting.await.expect("no panic"), Some(Ok("here")));
    }
}
