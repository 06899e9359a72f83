//! One listening session: opens it, confirms it, and waits for its end.

use std::sync::Arc;
use std::time::Duration;

use diesel_async::SimpleAsyncConnection;
use tokio::time::sleep;

use super::channel::Channels;
use super::event::{Interruption, Notification};
use super::inbox::Mailbox;
use crate::error::ConnectError;
use crate::pool::Outside;
use crate::timeout::within;
use crate::topology::NodeId;
use crate::wire::{SessionKind, WireConnection};

/// Time between two probes of an idle session.
///
/// The monitors notice a server that is down. This notices a session that is broken, because a firewall forgot it or a
/// floating address moved.
const PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// An empty statement, with a comment for operators who inspect sessions.
const PROBE: &str = "-- pointsman listens here";

/// The node to listen to: the primary in one snapshot of the set.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) node: NodeId,
    pub(super) name: String,
    pub(super) outside: Outside,
}

/// A session on which the server confirmed the `LISTEN`.
#[derive(Debug)]
pub(super) struct Session {
    link: WireConnection,
    pub(super) place: Place,
}

/// The reason why there is no session.
#[derive(Debug)]
pub(super) enum Failed {
    /// No session could be opened.
    Connect(ConnectError),
    /// The server rejected a statement.
    Server(diesel::result::Error),
    /// The session ended, or did not answer.
    Lost(Interruption),
}

impl Session {
    /// Opens a session and listens on it.
    ///
    /// # Cancel safety
    ///
    /// A dropped future ends the session.
    pub(super) async fn begin(
        place: Place,
        channels: &Channels,
        mailbox: &Arc<Mailbox>,
    ) -> Result<Self, Failed> {
        let link = place.outside.dial(SessionKind::Listen).await.map_err(Failed::Connect)?;
        // Registered before the server can send anything, because a notification may arrive before the answer.
        let (number, heard) = (mailbox.begin(), Arc::clone(mailbox));
        link.hear(Box::new(move |notification| heard.hear(number, Notification::of(&notification))));
        let session = Self { link, place };
        session.run(&channels.listen()).await?;
        Ok(session)
    }

    /// Runs statements within the limit of the node's sessions.
    ///
    /// An empty statement only requests an answer.
    pub(super) async fn run(&self, sql: &str) -> Result<(), Failed> {
        let limit = self.place.outside.limit();
        let mut conn = self.link.conn();
        match within(limit, conn.batch_execute(sql)).await {
            Some(Ok(())) => Ok(()),
            Some(Err(error)) if !self.link.is_closed() => Err(Failed::Server(error)),
            Some(Err(_)) => Err(Failed::Lost(self.reason())),
            None => Err(Failed::Lost(Interruption::NoAnswer { limit })),
        }
    }

    /// Waits until the session is no longer usable.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost if the future is dropped.
    pub(super) async fn ended(&self) -> Interruption {
        tokio::select! {
            biased;
            () = self.link.wire().ended() => self.reason(),
            () = self.place.outside.retired() => Interruption::Reconfigured,
            reason = self.silent() => reason,
        }
    }

    /// Probes the session repeatedly until it does not answer.
    async fn silent(&self) -> Interruption {
        loop {
            sleep(PROBE_INTERVAL).await;
            match self.run(PROBE).await {
                Ok(()) | Err(Failed::Server(_)) => {}
                Err(Failed::Lost(reason)) => return reason,
                Err(Failed::Connect(_)) => return Interruption::Disconnected { sqlstate: None },
            }
        }
    }

    fn reason(&self) -> Interruption {
        if self.link.was_closed_here() {
            return Interruption::Closed;
        }
        Interruption::Disconnected { sqlstate: self.link.wire().sqlstate() }
    }
}
