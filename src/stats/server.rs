//! The server process behind a node's address, which every new session of the node must have reached as well.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwapOption;

/// One running server process, as it names itself whichever way it is reached.
///
/// Two names or addresses with one identity lead to one server. It changes when the server is restarted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ServerIdentity {
    /// When the postmaster started (`pg_postmaster_start_time()`), in microseconds since 1970.
    pub started_at_micros: i64,
    /// The port in the server's own settings, whatever a proxy in front of it uses.
    pub port: u16,
    /// The address at which the session reached the server; `None` over a socket file.
    ///
    /// A server may have several, so it decides nothing: see [`is_same_server`](Self::is_same_server).
    pub address: Option<IpAddr>,
}

impl ServerIdentity {
    /// Returns `true` if both are the same server process, reached by whichever address.
    ///
    /// Two servers of one cluster that have the same port and started in the same microsecond are not told apart.
    pub fn is_same_server(&self, other: &Self) -> bool {
        (self.started_at_micros, self.port) == (other.started_at_micros, other.port)
    }
}

/// A server, as a probe showed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SeenServer {
    pub(crate) server: ServerIdentity,
    /// The cluster's; `None` if the monitor's role may not ask for it.
    pub(crate) system_identifier: Option<u64>,
}

/// What the sessions of a node and its monitor tell each other about the server behind the node's address.
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

    /// Notes what a probe showed; returns `true` if the server before was another one.
    ///
    /// Sessions that were opened before are sessions of that other server then.
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

    /// Notes that a new session reached another server, so that the monitor's own session proves nothing any more.
    pub(crate) fn ask_for_redial(&self) {
        self.redial.store(true, Ordering::Release);
    }

    /// Returns `true` once after a session asked for it.
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
