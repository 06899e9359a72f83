//! The server process behind a node's address.
//!
//! Each new session of the node must have reached this process.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwapOption;

/// The identity of one running server process, by whichever way it is reached.
///
/// Two names or addresses with one identity lead to one server. The identity changes when the server restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ServerIdentity {
    /// Start of the postmaster, in microseconds since 1970.
    ///
    /// The value comes from `pg_postmaster_start_time()`.
    pub(crate) started_at_micros: i64,
    /// The port in the server's own settings, even behind a proxy.
    pub(crate) port: u16,
    /// The address that the session reached; `None` over a socket file.
    ///
    /// A server may have several addresses, so none decides: see [`is_same_server`](Self::is_same_server).
    pub(crate) address: Option<IpAddr>,
}

impl ServerIdentity {
    /// Returns `true` if both are the same server process, at any address.
    ///
    /// Two servers of one cluster count as the same if they have the same port and started in the same microsecond.
    pub(crate) fn is_same_server(&self, other: &Self) -> bool {
        (self.started_at_micros, self.port) == (other.started_at_micros, other.port)
    }
}

/// A server, as a probe showed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SeenServer {
    pub(crate) server: ServerIdentity,
    /// The cluster's identifier; `None` if the monitor's role may not query it.
    pub(crate) system_identifier: Option<u64>,
}

/// The server behind a node's address, shared by sessions and monitor.
#[derive(Debug, Default)]
pub(crate) struct LastSeenServer {
    last: ArcSwapOption<SeenServer>,
    redial: AtomicBool,
}

impl LastSeenServer {
    /// Returns the server that the last successful probe showed.
    pub(crate) fn last(&self) -> Option<Arc<SeenServer>> {
        self.last.load_full()
    }

    /// Records the server of a probe; returns `true` if it has changed.
    ///
    /// In that case, earlier sessions belong to the other server.
    pub(crate) fn note(&self, server: Option<ServerIdentity>, system_identifier: Option<u64>) -> bool {
        let Some(server) = server else { return false };
        let now = SeenServer { server, system_identifier };
        let before = self.last.load();
        if before.as_deref() == Some(&now) {
            return false;
        }
        let moved = before.as_deref().is_some_and(|before| !before.server.is_same_server(&now.server));
        self.last.store(Some(Arc::new(now)));
        moved
    }

    /// Requests a new monitor session.
    ///
    /// A new session of a pool reached another server, so the monitor's own session proves nothing any more.
    pub(crate) fn ask_for_redial(&self) {
        self.redial.store(true, Ordering::Release);
    }

    /// Returns `true` once after each request for a new monitor session.
    pub(crate) fn take_redial(&self) -> bool {
        self.redial.swap(false, Ordering::AcqRel)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_was_restarted_or_replaced_is_another_one() {
        let seen = LastSeenServer::default();
        let server =
            |started_at_micros| Some(ServerIdentity { started_at_micros, port: 5432, address: None });
        assert!(!seen.note(server(1), None), "the first one");
        assert!(!seen.note(server(1), Some(7)), "the role may ask now");
        assert_eq!(seen.last().and_then(|server| server.system_identifier), Some(7));
        assert!(seen.note(server(2), Some(7)));
        assert!(!seen.note(None, Some(7)), "this one tells nothing");
        assert!(!seen.take_redial());
        seen.ask_for_redial();
        assert!(seen.take_redial() && !seen.take_redial());
    }
}
