//! Polls a server until a condition holds.

use super::error::{Result, TestkitError};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

/// Time limit of every wait.
///
/// It is long because a machine that is busy with other tests is slow, but not broken.
pub(super) const LIMIT: Duration = Duration::from_secs(30);

/// Time between two checks of a condition, so that the servers get the processor.
const INTERVAL: Duration = Duration::from_millis(5);

/// Waits until `check` returns `true`.
///
/// After [`LIMIT`], fails with the condition's name.
pub(super) async fn until<F>(server: &str, waiting_for: &str, check: impl FnMut() -> F) -> Result<()>
where
    F: Future<Output = Result<bool>>,
{
    until_every(INTERVAL, server, waiting_for, check).await
}

/// As [`until`], with another pause between two checks.
pub(super) async fn until_every<F>(
    interval: Duration,
    server: &str,
    waiting_for: &str,
    mut check: impl FnMut() -> F,
) -> Result<()>
where
    F: Future<Output = Result<bool>>,
{
    let deadline = Instant::now() + LIMIT;
    let late = || TestkitError::Timeout {
        server: server.to_owned(),
        waiting_for: waiting_for.to_owned(),
        limit: LIMIT,
    };
    loop {
        if timeout_at(deadline, check()).await.map_err(|_| late())?? {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(late());
        }
        sleep(interval).await;
    }
}

/// Runs a blocking function on a thread that may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => {
                Err(TestkitError::Program { program: "the runtime".into(), output: error.to_string() })
            }
        },
    }
}
