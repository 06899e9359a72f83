//! The signals that a program listens to.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::failure::{Failure, Outcome};

/// Ctrl-C and SIGTERM, with which a terminal, systemd and Kubernetes end a program.
pub(super) struct End {
    interrupt: Signal,
    terminate: Signal,
}

impl End {
    /// Listens from now on.
    ///
    /// A signal that comes before [`asked`](Self::asked) is called is not lost.
    pub(super) fn listen() -> Outcome<Self> {
        Ok(Self { interrupt: on(SignalKind::interrupt())?, terminate: on(SignalKind::terminate())? })
    }

    /// Waits for one of them, and returns its name.
    pub(super) async fn asked(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "Ctrl-C",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

/// SIGHUP, by which an operator asks for the configuration to be read again.
pub(super) fn reload() -> Outcome<Signal> {
    on(SignalKind::hangup())
}

fn on(kind: SignalKind) -> Outcome<Signal> {
    signal(kind).map_err(Failure::failed)
}
