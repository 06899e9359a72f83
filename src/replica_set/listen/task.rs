//! The task of a listener: keeps a session at the primary, and reports gaps.

use std::sync::{Arc, Weak};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::super::{Inner, ReplicaSet};
use super::channel::Channels;
use super::event::{Gap, Interruption, ListenEvent};
use super::inbox::Mailbox;
use super::reconnect::{Reconnect, Step};
use super::session::{Failed, Session};
use crate::error::{CheckoutError, ListenError};
use crate::topology::Topology;

/// Channels to add or to remove.
pub(super) struct Change {
    pub(super) channels: Channels,
    pub(super) listen: bool,
    pub(super) done: oneshot::Sender<Result<(), ListenError>>,
}

/// The state that the task owns.
///
/// It keeps no set alive, and ends with the set's last handle.
pub(super) struct Task {
    pub(super) set: Weak<Inner>,
    /// Cancelled when the set closes.
    pub(super) closed: CancellationToken,
    /// Cancelled when the listener was dropped.
    pub(super) released: CancellationToken,
    pub(super) topology: watch::Receiver<Arc<Topology>>,
    pub(super) channels: Channels,
    pub(super) changes: mpsc::UnboundedReceiver<Change>,
    /// Changes made on a session that ended before it confirmed them.
    pub(super) unconfirmed: Vec<oneshot::Sender<Result<(), ListenError>>>,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) reconnect: Reconnect,
}

/// Ends the stream, even if a panic or the end of its runtime ends the task.
struct AtEnd(Arc<Mailbox>);

impl Drop for AtEnd {
    fn drop(&mut self) {
        self.0.end(None);
    }
}

impl Task {
    pub(super) async fn run(mut self, first: Session) {
        let mailbox = Arc::clone(&self.mailbox);
        let _at_end = AtEnd(Arc::clone(&mailbox));
        let (closed, released) = (self.closed.clone(), self.released.clone());
        let listening = async {
            let mut session = first;
            loop {
                let Some(reason) = self.stay(&session).await else { return };
                let (node, name) = (session.place.node, session.place.name.clone());
                drop(session);
                tracing::warn!(node = name, %reason, "listening was interrupted");
                self.mailbox.interrupt(ListenEvent::Interrupted { node: name, reason });
                self.reconnect.on_interrupted(node, Instant::now());
                let Some(next) = self.connect().await else { return };
                session = next;
                for done in self.unconfirmed.drain(..) {
                    // The caller may have stopped waiting.
                    let _ = done.send(Ok(()));
                }
            }
        };
        tokio::select! {
            biased;
            () = released.cancelled() => return,
            () = closed.cancelled() => {}
            () = listening => {}
        }
        mailbox.end(Some(ListenEvent::Closed));
    }

    /// Stays with a session until it is no longer usable; `None` if the set is gone.
    async fn stay(&mut self, session: &Session) -> Option<Interruption> {
        let ended = session.ended();
        tokio::pin!(ended);
        loop {
            tokio::select! {
                biased;
                // Connections in use may keep the node of a set that was dropped.
                outcome = self.topology.changed() => outcome.ok()?,
                reason = &mut ended => return Some(reason),
                Some(change) = self.changes.recv() => {
                    if let Err(reason) = self.change(session, change).await {
                        return Some(reason);
                    }
                }
            }
        }
    }

    /// Changes the channels.
    ///
    /// If the session ends first, the next one confirms the change.
    async fn change(&mut self, session: &Session, change: Change) -> Result<(), Interruption> {
        let Change { channels, listen, done } = change;
        let sql = if listen { channels.listen() } else { channels.unlisten() };
        let before = self.channels.clone();
        if listen {
            self.channels.add(&channels);
        } else {
            self.channels.remove(&channels);
        }
        let outcome = match session.run(&sql).await {
            Ok(()) => Ok(()),
            Err(Failed::Lost(reason)) => {
                self.unconfirmed.push(done);
                return Err(reason);
            }
            Err(Failed::Connect(error)) => {
                Err(ListenError::CannotConnect { node: session.place.name.clone(), error: Arc::new(error) })
            }
            Err(Failed::Server(source)) => {
                self.channels = before;
                Err(ListenError::Server { node: session.place.name.clone(), source })
            }
        };
        // The caller may have stopped waiting.
        let _ = done.send(outcome);
        Ok(())
    }

    /// Connects to the primary, until it succeeds; `None` if the set is gone.
    async fn connect(&mut self) -> Option<Session> {
        loop {
            let (step, place) = {
                let set = ReplicaSet { inner: self.set.upgrade()? };
                let place = set.place_to_listen();
                (self.reconnect.step(place.as_ref().map(|place| place.node), Instant::now()), place)
            };
            let place = match (step, place) {
                (Step::Dial, Some(place)) => place,
                (Step::Wait { until }, _) => {
                    // Check again after a change, after the pause, and when the set ends.
                    let _ = timeout_at(until, self.topology.changed()).await;
                    continue;
                }
                // There is no step to dial without a primary.
                (Step::Dial, None) => return None,
            };
            let (node, name) = (place.node, place.name.clone());
            match Session::begin(place, &self.channels, &self.mailbox).await {
                Ok(session) => {
                    let after = self.reconnect.on_confirmed(Instant::now());
                    tracing::info!(node = name, ?after, "listening again");
                    self.mailbox.resume(Gap::Reconnected { node: name, after });
                    return Some(session);
                }
                Err(failed) => {
                    tracing::debug!(node = name, ?failed, "a session to listen on was not had");
                    self.reconnect.on_failure(node, Instant::now());
                }
            }
        }
    }
}

/// Returns the error for a caller whose listener has ended.
pub(super) fn over() -> ListenError {
    ListenError::Checkout(CheckoutError::Closed)
}
