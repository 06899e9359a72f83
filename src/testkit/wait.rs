//! Waiting for a condition, never for a time.

use super::error::{Result, TestkitError};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

/// How long anything may take. Long, because only what is broken takes long, and a machine that
/// is busy with other tests is not broken.
pub(super) const LIMIT: Duration = Duration::from_secs(30);

/// How often a condition is looked at: seldom enough to leave the processor to the servers.
const INTERVAL: Duration = Duration::from_millis(5);

/// Waits until `check` says yes, and fails with what was waited for after [`LIMIT`].
pub(super) async fn until<F>(server: &str, waiting_for: &str, mut check: impl FnMut() -> F) -> Result<()>
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
        sleep(INTERVAL).await;
    }
}

/// Runs what blocks on a thread that may block.
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
