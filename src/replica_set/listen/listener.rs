//! The stream that a program holds.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::Stream;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::DropGuard;

use super::channel::Channels;
use super::event::ListenEvent;
use super::inbox::Mailbox;
use super::task::{Change, over};
use crate::error::ListenError;

/// Notifications of the primary, as a stream.
///
/// See [`ReplicaSet::listen`](crate::ReplicaSet::listen). Dropping the listener ends its session. The listener keeps no
/// set alive: when the last handle of the set is dropped, the stream ends as after `close`.
pub struct Listener {
    mailbox: Arc<Mailbox>,
    changes: mpsc::UnboundedSender<Change>,
    _released: DropGuard,
}

impl Listener {
    pub(super) fn new(
        mailbox: Arc<Mailbox>,
        changes: mpsc::UnboundedSender<Change>,
        released: DropGuard,
    ) -> Self {
        Self { mailbox, changes, _released: released }
    }

    /// Waits for the next event; `None` after the last one.
    ///
    /// It does the same as `next` of a `StreamExt`, for programs without one. After [`ListenEvent::Closed`] it returns
    /// `None`. Without that event, `None` means that the runtime on which `listen` was called has ended.
    ///
    /// # Cancel safety
    ///
    /// No event is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<ListenEvent> {
        poll_fn(|context| self.mailbox.poll_next(context)).await
    }

    /// Listens to more channels, and returns when the server has confirmed the change.
    ///
    /// While there is no connection, this waits for the next one.
    ///
    /// # Errors
    ///
    /// [`ListenError`]; the channels are unchanged then.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the channels may have been added or not.
    ///
    /// ```no_run
    /// # async fn example(listener: pointsman::listen::Listener) -> Result<(), pointsman::ListenError> {
    /// listener.listen(["invoices"]).await?;
    /// listener.unlisten(["orders"]).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn listen<C: Into<String>>(
        &self,
        channels: impl IntoIterator<Item = C>,
    ) -> Result<(), ListenError> {
        self.change(Channels::parse(channels)?, true).await
    }

    /// Stops listening to channels, and returns once the server has confirmed it.
    ///
    /// Earlier notifications may still be among the events. Removing a channel that was not added is no error.
    ///
    /// # Errors
    ///
    /// As [`listen`](Self::listen).
    ///
    /// # Cancel safety
    ///
    /// As [`listen`](Self::listen).
    pub async fn unlisten<C: Into<String>>(
        &self,
        channels: impl IntoIterator<Item = C>,
    ) -> Result<(), ListenError> {
        self.change(Channels::parse(channels)?, false).await
    }

    async fn change(&self, channels: Channels, listen: bool) -> Result<(), ListenError> {
        let (done, answer) = oneshot::channel();
        self.changes.send(Change { channels, listen, done }).map_err(|_| over())?;
        answer.await.unwrap_or_else(|_| Err(over()))
    }
}

impl Stream for Listener {
    type Item = ListenEvent;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<ListenEvent>> {
        self.mailbox.poll_next(context)
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").finish_non_exhaustive()
    }
}
