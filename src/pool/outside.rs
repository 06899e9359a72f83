//! A session outside the pool that ends with the pool's sessions.
//!
//! It counts against no pool size, but shares the other rules. It is dialled in the same way and under the same limit
//! of connections being opened. It ends as well if the node goes down, is fenced or is not the primary any more.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Limits, NodePool};
use crate::error::ConnectError;
use crate::stats::NodeStats;
use crate::wire::{Dialer, SessionKind, WireConnection};

/// The means to open such a session; it keeps neither the pool nor the node.
#[derive(Debug, Clone)]
pub(crate) struct Outside {
    dialer: Arc<Dialer>,
    stats: Arc<NodeStats>,
    limits: Arc<Limits>,
    /// Ends the session with those of the pool's present generation.
    close: CancellationToken,
    /// Cancelled when another pool replaces this one.
    retiring: CancellationToken,
}

impl NodePool {
    /// Returns the means to open a session outside this pool.
    ///
    /// It ends with the pool's sessions.
    pub(crate) fn outside(&self) -> Outside {
        let shared = &self.shared;
        Outside {
            dialer: Arc::clone(&shared.dialer),
            stats: Arc::clone(&shared.stats),
            limits: Arc::clone(&shared.limits),
            close: shared.generation.load().child_token(),
            retiring: shared.retiring.clone(),
        }
    }
}

impl Outside {
    /// Opens a session.
    ///
    /// # Cancel safety
    ///
    /// A dropped future closes its socket.
    pub(crate) async fn dial(&self, kind: SessionKind) -> Result<WireConnection, ConnectError> {
        let dial = async {
            let _place = self.limits.connects.acquire().await.ok_or(ConnectError::Abandoned)?;
            let (stats, close) = (Arc::clone(&self.stats), self.close.clone());
            self.dialer.dial(kind, self.limit(), stats, close).await
        };
        let outcome = tokio::select! {
            biased;
            outcome = dial => outcome,
            () = self.close.cancelled() => Err(ConnectError::Abandoned),
        };
        if let Err(error) = &outcome
            && !matches!(error, ConnectError::Abandoned)
            && !error.proves_alive()
        {
            self.stats.suspect();
        }
        outcome
    }

    /// Returns the time limit for opening the session.
    pub(crate) fn limit(&self) -> Duration {
        self.dialer.limit()
    }

    /// Waits until another pool has replaced this one.
    pub(crate) async fn retired(&self) {
        self.retiring.cancelled().await;
    }
}
