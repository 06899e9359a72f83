//! A session outside of the pool that ends with the pool's own.
//!
//! It takes no room in the pool, and is bound by the rest: the same dialling, the same limit of connections in the making,
//! the same end when the node is lost, fenced or not the primary any more.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Limits, NodePool};
use crate::error::ConnectError;
use crate::stats::NodeStats;
use crate::wire::{Dialer, SessionKind, WireConnection};

/// What it takes to open such a session. It keeps neither the pool nor the node.
#[derive(Debug, Clone)]
pub(crate) struct Outside {
    dialer: Arc<Dialer>,
    stats: Arc<NodeStats>,
    limits: Arc<Limits>,
    /// Ends the session with those of the pool's present generation.
    severed: CancellationToken,
    /// Cancelled when another pool takes this one's place.
    retiring: CancellationToken,
}

impl NodePool {
    /// Returns what it takes to open a session outside of this pool that ends with the pool's own.
    pub(crate) fn outside(&self) -> Outside {
        let shared = &self.shared;
        Outside {
            dialer: Arc::clone(&shared.dialer),
            stats: Arc::clone(&shared.stats),
            limits: Arc::clone(&shared.limits),
            severed: shared.generation.load().child_token(),
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
            let (stats, severed) = (Arc::clone(&self.stats), self.severed.clone());
            self.dialer.dial(kind, self.limit(), stats, severed).await
        };
        let outcome = tokio::select! {
            outcome = dial => outcome,
            () = self.severed.cancelled() => Err(ConnectError::Abandoned),
        };
        if let Err(error) = &outcome
            && !matches!(error, ConnectError::Abandoned)
            && !error.proves_alive()
        {
            self.stats.suspect();
        }
        outcome
    }

    /// How long opening the session may take.
    pub(crate) fn limit(&self) -> Duration {
        self.dialer.limit()
    }

    /// Waits until another pool has taken the place of this one.
    pub(crate) async fn retired(&self) {
        self.retiring.cancelled().await;
    }
}
