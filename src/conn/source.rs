//! The source of a connection: a pool of a set, or the caller.

use std::mem;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use diesel_async::AsyncPgConnection;

use crate::error::SqlState;
use crate::lsn::Lsn;
use crate::pool::{Canceller, Lease};
use crate::stats::NodeStats;
use crate::topology::Node;
use crate::topology::Role;
use crate::wire::{Usage, WireState, placeholder};
use crate::{Intent, IntentKind};

/// A connection, and the way to return or close it.
pub(super) enum Source {
    /// The connection returns to its pool.
    Pooled(Pooled),
    /// The connection returns to the caller who opened it, if it was borrowed.
    Opened(Box<Opened>),
}

/// A connection of a pool.
pub(super) struct Pooled {
    lease: Lease,
    node: Arc<Node>,
    role: Role,
    intent: IntentKind,
}

/// A connection that the caller opened.
pub(super) struct Opened {
    conn: AsyncPgConnection,
    usage: Arc<Usage>,
    /// No tap sees its bytes, so this only records that the connection was given up.
    wire: Arc<WireState>,
    /// Handed out instead of the connection after it was given up.
    dead: OnceLock<AsyncPgConnection>,
}

impl Source {
    /// Wraps a connection of a pool.
    pub(super) fn pooled<I: Intent>(lease: Lease, node: Arc<Node>, role: Role) -> Self {
        // An error of the previous user must not be visible to this one.
        lease.wire().take_sqlstate();
        let stats = node.stats();
        if I::KIND == IntentKind::Read {
            stats.in_flight.fetch_add(1, Ordering::AcqRel);
            stats.reads.fetch_add(1, Ordering::Relaxed);
        } else {
            stats.writes.fetch_add(1, Ordering::Relaxed);
        }
        Self::Pooled(Pooled { lease, node, role, intent: I::KIND })
    }

    /// Wraps a connection that the caller opened.
    pub(super) fn opened(conn: AsyncPgConnection) -> Self {
        let wire = Arc::new(WireState::new(Arc::new(NodeStats::default())));
        Self::Opened(Box::new(Opened { conn, usage: Arc::default(), wire, dead: OnceLock::new() }))
    }

    /// Returns the borrowed connection to its owner's variable.
    ///
    /// Does nothing if this is not the borrowed connection, if it was given up, or if a leaked future still holds it.
    /// `borrowed` is the [`wire`](Self::wire) as it was when the connection was borrowed.
    pub(super) fn give_back(&mut self, borrowed: &Arc<WireState>, owner: &mut AsyncPgConnection) {
        if let Self::Opened(opened) = self
            && Arc::ptr_eq(&opened.wire, borrowed)
            && !borrowed.is_closed()
            && !opened.usage.is_abandoned()
            && !opened.usage.has_statements()
        {
            mem::swap(&mut opened.conn, owner);
        }
    }

    pub(super) fn conn(&self) -> &AsyncPgConnection {
        match self {
            Self::Pooled(pooled) => pooled.lease.conn(),
            Self::Opened(opened) if opened.wire.is_closed() => opened.dead.get_or_init(placeholder),
            Self::Opened(opened) => &opened.conn,
        }
    }

    pub(super) fn conn_mut(&mut self) -> &mut AsyncPgConnection {
        match self {
            Self::Pooled(pooled) => pooled.lease.conn_mut(),
            Self::Opened(opened) => {
                if opened.wire.is_closed() {
                    opened.end();
                }
                &mut opened.conn
            }
        }
    }

    pub(super) fn wire(&self) -> &Arc<WireState> {
        match self {
            Self::Pooled(pooled) => pooled.lease.wire(),
            Self::Opened(opened) => &opened.wire,
        }
    }

    /// Returns `true` if a tap sees the connection's bytes.
    pub(super) fn is_tapped(&self) -> bool {
        matches!(self, Self::Pooled(_))
    }

    /// Returns the node that serves the connection; `None` if the caller opened it.
    pub(super) fn node(&self) -> Option<&Arc<Node>> {
        match self {
            Self::Pooled(pooled) => Some(&pooled.node),
            Self::Opened(_) => None,
        }
    }

    pub(super) fn role(&self) -> Role {
        match self {
            Self::Pooled(pooled) => pooled.role,
            Self::Opened(_) => Role::Unmanaged,
        }
    }

    /// Returns `true` if the connection is known to have ended.
    pub(super) fn is_closed(&self) -> bool {
        match self {
            Self::Pooled(pooled) => pooled.lease.is_closed(),
            Self::Opened(opened) => opened.wire.is_closed(),
        }
    }

    /// Returns `true` if this program closed the connection.
    pub(super) fn was_closed_here(&self) -> bool {
        match self {
            Self::Pooled(pooled) => pooled.lease.was_closed_here(),
            Self::Opened(opened) => opened.wire.is_closed(),
        }
    }

    /// Returns `true` if Diesel believes that a transaction is open.
    pub(super) fn is_in_transaction(&mut self) -> bool {
        match self {
            Self::Pooled(pooled) => pooled.lease.is_in_transaction(),
            // This matters for the tap's record only, and there is no tap.
            Self::Opened(_) => false,
        }
    }

    /// Returns the record of the futures that use the connection.
    pub(super) fn usage(&self) -> &Arc<Usage> {
        match self {
            Self::Pooled(pooled) => pooled.lease.usage(),
            Self::Opened(opened) => &opened.usage,
        }
    }

    /// Returns `true` if the bare connection is certainly not the original one.
    pub(super) fn is_exchanged(&self) -> bool {
        match self {
            Self::Pooled(pooled) => pooled.lease.is_exchanged(),
            // There is no mark, because the caller's instrumentation is set on it.
            Self::Opened(_) => false,
        }
    }

    /// Abandons the session, and cancels its statement at the server.
    pub(super) fn give_up(&self) {
        match self {
            Self::Pooled(pooled) => {
                pooled.lease.give_up();
            }
            Self::Opened(opened) => opened.wire.close(),
        }
    }

    /// As [`give_up`](Self::give_up), but at once if the connection is the caller's.
    pub(super) fn end(&mut self) {
        self.give_up();
        if let Self::Opened(opened) = self {
            opened.end();
        }
    }

    /// As [`Lease::cancel_abandoned`], without a known address of the server.
    pub(super) async fn cancel_abandoned(&self) -> bool {
        match self {
            Self::Pooled(pooled) => pooled.lease.cancel_abandoned().await,
            Self::Opened(_) => true,
        }
    }

    /// Asks the server for its position.
    pub(super) async fn ask_position(&self) -> Option<Lsn> {
        match self {
            Self::Pooled(pooled) => pooled.lease.ask_position().await,
            Self::Opened(_) => None,
        }
    }

    /// Asks a standby to prove that it has replayed up to a position.
    pub(super) async fn prove_position(&self, required: Lsn) -> bool {
        match self {
            Self::Pooled(pooled) => pooled.lease.prove_position(required).await,
            Self::Opened(_) => false,
        }
    }

    /// Returns the means to cancel a statement from another task.
    pub(super) fn canceller(&self) -> Option<Canceller> {
        match self {
            Self::Pooled(pooled) => Some(pooled.lease.canceller()),
            Self::Opened(_) => None,
        }
    }

    /// Logs an unreplicated commit that the bare connection could not report.
    pub(super) fn warn_of_unreplicated(&self) {
        if let Self::Pooled(pooled) = self {
            pooled.warn_of_unreplicated();
        }
    }
}

impl Opened {
    /// Drops the connection, which closes its socket, so the server rolls back.
    fn end(&mut self) {
        self.conn = placeholder();
    }
}

impl Pooled {
    fn warn_of_unreplicated(&self) {
        if self.lease.wire().take_unreplicated() {
            tracing::warn!(
                node = self.node.name(),
                "a commit did not wait for its synchronous standby: a failover may lose it"
            );
        }
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        self.warn_of_unreplicated();
        self.lease.wire().untrack();
        let stats = self.node.stats();
        if self.intent == IntentKind::Read {
            stats.in_flight.fetch_sub(1, Ordering::AcqRel);
        } else if self.lease.wire().take_sqlstate() == Some(SqlState::READ_ONLY_SQL_TRANSACTION) {
            // This proves nothing (the caller may have asked for a read-only transaction), so a monitor probes.
            stats.suspect();
        }
    }
}
