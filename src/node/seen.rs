//! The server that a node's monitor saw last, which every new session of the node must have reached as well.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwapOption;

use crate::topology::{Evidence, ServerIdentity};

/// A server, as a probe showed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SeenServer {
    pub(crate) server: ServerIdentity,
    /// The cluster's; `None` if the monitor's role may not ask for it.
    pub(crate) system_identifier: Option<u64>,
}

/// What the sessions of a node and its monitor tell each other about the server behind the node's address.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    last: ArcSwapOption<SeenServer>,
    redial: AtomicBool,
}

impl Seen {
    /// Returns the server that the last successful probe showed.
    pub(crate) fn last(&self) -> Option<Arc<SeenServer>> {
        self.last.load_full()
    }

    /// Notes what a probe showed; returns `true` if the server before was another one.
    ///
    /// Sessions that were opened before are sessions of that other server then.
    pub(crate) fn note(&self, evidence: &Evidence) -> bool {
        let Some(server) = evidence.server else { return false };
        let now = SeenServer { server, system_identifier: evidence.system_identifier };
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
    use tokio::time::Instant;

    use super::*;

    #[test]
    fn a_server_that_was_restarted_or_replaced_is_another_one() {
        let seen = Seen::default();
        let evidence = |started_at_micros, system_identifier| Evidence {
            server: Some(ServerIdentity { started_at_micros, port: 5432, address: None }),
            system_identifier,
            ..Evidence::primary(1, 1, Instant::now())
        };
        assert!(!seen.note(&evidence(1, None)), "the first one");
        assert!(!seen.note(&evidence(1, Some(7))), "the role may ask now");
        assert_eq!(seen.last().and_then(|server| server.system_identifier), Some(7));
        assert!(seen.note(&evidence(2, Some(7))));
        assert!(!seen.note(&Evidence::primary(1, 1, Instant::now())), "this one tells nothing");
        assert!(!seen.take_redial());
        seen.ask_for_redial();
        assert!(seen.take_redial() && !seen.take_redial());
    }
}
