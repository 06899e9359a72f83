//! Waits until a replica has replayed a position.
//!
//! One question at a time serves all callers.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select_all;
use tokio::time::{Instant, sleep, timeout_at};

use crate::lsn::Lsn;
use crate::pool::Queueing;
use crate::stats::Asking;
use crate::topology::Node;

/// Pause between two questions for a node's position, while callers wait for it.
///
/// A question costs the server some microseconds. A replica that keeps up is there after one or two of these.
const PAUSE: Duration = Duration::from_millis(2);

/// Longest pause between two questions.
const LONGEST_PAUSE: Duration = Duration::from_millis(16);

/// Time for one question, including the wait for a connection.
const LIMIT: Duration = Duration::from_millis(500);

/// Waits until one of the nodes has reached a position.
///
/// Returns `false` if none has at the deadline.
///
/// # Cancel safety
///
/// Nothing is lost if the future is dropped.
pub(super) async fn await_position(nodes: &[Arc<Node>], position: Lsn, deadline: Instant) -> bool {
    if nodes.is_empty() || Instant::now() >= deadline {
        return false;
    }
    let reached = nodes.iter().map(|node| {
        Box::pin(async move {
            let _awaited = node.stats().await_position();
            if let Some(asking) = node.stats().begin_asking() {
                tokio::spawn(ask_repeatedly(Arc::clone(node), asking));
            }
            node.stats().reached(position).await;
            node.stats().note_wait(true);
        })
    });
    let is_reached = timeout_at(deadline, select_all(reached)).await.is_ok();
    if !is_reached {
        for node in nodes {
            node.stats().note_wait(false);
        }
    }
    is_reached
}

/// Asks a node for its position until no caller waits for it.
///
/// The monitor is too rare for this, and a question of each caller would be too many.
async fn ask_repeatedly(node: Arc<Node>, asking: Asking) {
    ask_while_awaited(&node).await;
    drop(asking);
    // A caller that came just before saw a task, and started none.
    while let Some(_asking) = node.stats().begin_asking() {
        ask_while_awaited(&node).await;
    }
}

async fn ask_while_awaited(node: &Node) {
    let mut pause = PAUSE;
    while node.stats().is_position_awaited() {
        let deadline = Instant::now() + LIMIT;
        let asked = async {
            let lease = node.read_pool().get(deadline, Queueing::Join).await.ok()?;
            lease.ask_position().await
        };
        // The answer is recorded in the node's statistics, which wakes the callers.
        if !matches!(timeout_at(deadline, asked).await, Ok(Some(_))) {
            pause = LONGEST_PAUSE;
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
