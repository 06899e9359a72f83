//! One run of a read: the time to wait for its answer, and the cause of its error.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::repeat::Failure;
use crate::Read;
use crate::conn::{AsyncFunc, Conn};
use crate::topology::{Node, NodeId};
use crate::wire::WireState;

/// The end of one run of the function.
pub(super) enum Run<R, E> {
    /// The function returned, with a value or its own error.
    Answered(Result<R, E>),
    /// The node had not reached the required position, so the result is void.
    Behind,
    /// The node caused the error, so another node may answer.
    Failed(E, NodeId, Failure),
}

/// Time for a session to show if it goes on after a server's error.
///
/// The server's next message follows at once.
const AFTER_ERROR: Duration = Duration::from_millis(100);

/// Time to wait after an error that the server did not send.
///
/// The error may be the function's own, and returning it must not take long.
const AFTER_SILENCE: Duration = Duration::from_millis(5);

/// Runs until an answer, or until one has been pending for the given time.
///
/// The time that the caller's function takes itself does not count.
pub(super) async fn answered_within<F: Future>(
    mut run: Pin<&mut F>,
    wire: &WireState,
    limit: Duration,
) -> Option<F::Output> {
    let mut wait = limit;
    loop {
        tokio::select! {
            biased;
            outcome = run.as_mut() => return Some(outcome),
            () = sleep(wait) => {}
        }
        match wire.owed_for() {
            Some(pending) if pending >= limit => return None,
            pending => wait = limit - pending.unwrap_or_default(),
        }
    }
}

/// Returns `true` if a session answers.
pub(super) async fn is_alive(conn: &Conn<Read>, limit: Duration) -> bool {
    let Ok(mut connection) = conn.connection() else { return false };
    let ping = diesel_async::RunQueryDsl::execute(diesel::sql_query("SELECT 1"), &mut connection.bare);
    matches!(timeout(limit, ping).await, Ok(Ok(_)))
}

/// Returns the node of a connection that the set handed out.
pub(super) fn node_of(conn: &Conn<Read>) -> Arc<Node> {
    Arc::clone(conn.served_by().expect("a connection of a set has its node"))
}

pub(super) async fn run_on<'a, R, E, F>(mut conn: Conn<Read>, function: F) -> Run<R, E>
where
    for<'r> F: AsyncFnOnce(&'r mut Conn<Read>) -> Result<R, E>
        + AsyncFunc<&'r mut Conn<Read>, Result<R, E>, Fut: Send>
        + Send
        + 'a,
    E: Send + 'a,
    R: Send + 'a,
{
    conn.forget_sqlstate();
    conn.wire().take_longest_wait();
    let (wire, unproven) = (Arc::clone(conn.wire()), conn.take_unproven());
    // The function may replace this connection with another one.
    let node = node_of(&conn);
    let outcome = function(&mut conn).await;
    let is_unproven = unproven.is_some_and(|required| !wire.is_proven(required));
    // A result counts only with its proof, also when the connection has ended since. An error of the connection is no
    // result.
    if is_unproven && (outcome.is_ok() || !conn.is_closed()) {
        return Run::Behind;
    }
    let error = match outcome {
        Err(error) => error,
        answer => {
            node.read_times().record(conn.wire().take_longest_wait());
            return Run::Answered(answer);
        }
    };
    match failure(&conn, &node).await {
        Some(failure) => Run::Failed(error, node.id(), failure),
        None => {
            node.read_times().record(conn.wire().take_longest_wait());
            Run::Answered(Err(error))
        }
    }
}

/// Returns the node's failure behind an error, unless the function caused it.
async fn failure(conn: &Conn<Read>, node: &Node) -> Option<Failure> {
    let wire = conn.wire();
    if wire.has_pending() && !conn.is_closed() {
        // The error arrives a moment before the message, or the end, that shows if the session goes on.
        let limit = if wire.sqlstate().is_some() { AFTER_ERROR } else { AFTER_SILENCE };
        let _ = timeout(limit, wire.drained()).await;
    }
    if conn.is_closed() {
        let failure = Failure::of_lost(wire.sqlstate(), wire.has_pending(), conn.was_closed_here());
        if failure == Failure::Terminated {
            // The read is to blame only if the node goes on.
            node.stats().suspect();
        }
        return Some(failure);
    }
    wire.sqlstate().is_some_and(|code| code.is_transient_conflict()).then_some(Failure::Conflict)
}
