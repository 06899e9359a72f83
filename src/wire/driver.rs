//! The task that moves a connection's bytes, and the ways to end it.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::Duration;

use futures_util::task::AtomicWaker;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio::time::timeout;
use tokio_postgres::{AsyncMessage, Connection, Notification};
use tokio_util::sync::CancellationToken;

use super::WireState;
use super::dial::SessionKind;
use crate::stats::NodeStats;

/// Receives a session's notifications, in order.
pub(crate) type Hearer = Box<dyn Fn(Notification) + Send + Sync>;

/// The owner's end of a connection's task; dropping it ends the connection.
pub(crate) struct Driver {
    close: CancellationToken,
    given_up: CancellationToken,
    call: Arc<Call>,
    hearer: Arc<OnceLock<Hearer>>,
    /// Dropped with the driver, which asks the task to terminate the session properly.
    _goodbye: oneshot::Sender<()>,
}

impl Driver {
    /// Ends the session in order, and fails the statements that wait on it.
    pub(super) fn give_up(&self) {
        self.given_up.cancel();
    }

    /// Forwards the session's notifications from now on, to the first caller.
    pub(super) fn hear(&self, hearer: Hearer) {
        // A session has at most one receiver in its life.
        let _ = self.hearer.set(hearer);
    }

    pub(super) fn call(&self) -> &Arc<Call> {
        &self.call
    }

    /// Returns `true` if the session was abandoned.
    pub(super) fn is_given_up(&self) -> bool {
        self.given_up.is_cancelled()
    }

    /// Returns `true` if its owner closed it, or it was closed with its generation.
    pub(crate) fn is_close_requested(&self) -> bool {
        self.close.is_cancelled()
    }
}

/// Wakes the task, and records if it has run since.
///
/// A request goes from the client to the task before it shows on the wire. If the caller is dropped in between, the
/// session looks idle and is not.
#[derive(Debug, Default)]
pub(crate) struct Call {
    pending: AtomicBool,
    task: AtomicWaker,
}

impl Call {
    /// Returns `true` if the task was woken and has not run yet.
    ///
    /// In that case, the client may have made a request that the wire has not seen.
    pub(crate) fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Acquire)
    }
}

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.pending.store(true, Ordering::Release);
        self.task.wake();
    }
}

/// Time for a closed connection to terminate.
///
/// A server that hangs would never let it.
const GOODBYE: Duration = Duration::from_millis(500);

/// Moves a connection's bytes until it ends, is closed, or has no owner.
///
/// The stream of an abandoned session is kept until the server has ended it, however long that takes.
///
/// An end that neither the owner nor a limit in the server's configuration caused suggests that the node is in trouble.
/// In that case the node's monitor is informed.
pub(super) fn drive<S, T>(
    mut connection: Connection<S, T>,
    close: CancellationToken,
    wire: Arc<WireState>,
    stats: Arc<NodeStats>,
    kind: SessionKind,
) -> Driver
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (goodbye, mut owner_is_gone) = oneshot::channel::<()>();
    let given_up = CancellationToken::new();
    let call = Arc::new(Call::default());
    let hearer = Arc::new(OnceLock::new());
    let driver = Driver {
        close: close.clone(),
        given_up: given_up.clone(),
        call: Arc::clone(&call),
        hearer: Arc::clone(&hearer),
        _goodbye: goodbye,
    };
    // The monitor's own session is no evidence about the pools' sessions.
    let session = (kind != SessionKind::Probe).then(|| stats.open_session());
    tokio::spawn(async move {
        let mut unheard = false;
        let waker = Waker::from(Arc::clone(&call));
        let mut work = poll_fn(|context| {
            call.task.register(context.waker());
            // Cleared before the round, because a request made during it wakes the task again.
            call.pending.store(false, Ordering::Release);
            let context = &mut Context::from_waker(&waker);
            while let Some(message) = ready!(connection.poll_message(context)?) {
                on_message(message, &hearer, &mut unheard);
            }
            Poll::Ready(Ok(()))
        });
        let outcome = tokio::select! {
            // First, so that no request made after the end is sent in a last round.
            biased;
            () = close.cancelled() => Ok(()),
            () = given_up.cancelled() => Ok(()),
            outcome = &mut work => {
                // A protocol error ends the driver although the stream works.
                wire.close();
                // The client is dropped with its owner and ends the connection as well, which the task often notices
                // first.
                let owned = matches!(owner_is_gone.try_recv(), Err(TryRecvError::Empty));
                if owned && outcome.as_ref().is_err_and(is_trouble) {
                    stats.suspect();
                }
                outcome
            }
            _ = &mut owner_is_gone => timeout(GOODBYE, &mut work).await.unwrap_or(Ok(())),
        };
        // This fails the waiting statements, and leaves the stream of an abandoned session.
        drop(connection);
        drop(session);
        if let Some(remains) = wire.take_remains() {
            tokio::select! {
                biased;
                () = close.cancelled() => {}
                () = remains.end(&wire) => {}
            }
        }
        wire.end();
        if let Err(error) = outcome {
            tracing::debug!(%error, "a connection ended");
        }
    });
    driver
}

/// Handles a message that the server sends without a request.
fn on_message(message: AsyncMessage, hearer: &OnceLock<Hearer>, unheard: &mut bool) {
    match message {
        AsyncMessage::Notification(notification) => match hearer.get() {
            Some(hearer) => hearer(notification),
            // The user may wait for it in vain, because the bare connection's stream never yields one.
            None if !std::mem::replace(unheard, true) => tracing::warn!(
                channel = notification.channel(),
                "a pooled connection was notified, and passes nothing on: use `ReplicaSet::listen`"
            ),
            None => {}
        },
        AsyncMessage::Notice(notice) => tracing::info!("{}: {}", notice.severity(), notice.message()),
        _ => {}
    }
}

/// Returns `true` unless a limit of the server's settings ended the session.
///
/// Such an end proves that the server is up.
fn is_trouble(error: &tokio_postgres::Error) -> bool {
    // idle_session_timeout, idle_in_transaction_session_timeout, transaction_timeout.
    !error.code().is_some_and(|code| matches!(code.code(), "57P05" | "25P03" | "25P04"))
}
