//! The task that serves one connection to a simulated server.

use tokio::sync::Notify;

use super::cluster::{Cluster, Locked, SessionHandle};
use super::message::{Answer, Message, SqlError, take};
use super::node::Power;
use super::session::{Session, Step};
use crate::network::pipe::ServerEnd;

/// The code of a cancel request, instead of a protocol version.
const CANCEL: [u8; 4] = 80_877_102_u32.to_be_bytes();

const SHUTDOWN: SqlError = SqlError::fatal("57P01", "terminating connection due to administrator command");

/// Serves a connection until one side ends it.
pub(crate) async fn serve(cluster: Cluster, node: usize, end: ServerEnd) {
    let life = cluster.lock().nodes[node].life.clone();
    let mut connection = Connection { cluster, node, end, buffer: Vec::new() };
    tokio::select! {
        biased;
        () = life.cancelled() => {}
        () = connection.run() => {}
    }
}

struct Connection {
    cluster: Cluster,
    node: usize,
    end: ServerEnd,
    buffer: Vec<u8>,
}

/// A session that its server knows, until it is dropped.
struct Registered {
    cluster: Cluster,
    session: Session,
    /// Number of the server's start that the session belongs to.
    run: u64,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut state = self.cluster.lock();
        state.sessions.remove(&self.session.pid);
        // After the end of the processes, nothing of the session is written any more.
        let is_same_run = |state: &Locked<'_>, node: usize| {
            state.nodes[node].run == self.run && state.nodes[node].power == Power::Running
        };
        if is_same_run(&state, self.session.node()) {
            self.session.leave(&mut state);
        }
    }
}

impl Connection {
    /// Waits for the next message, which a server that hangs does not read.
    async fn next(&mut self, untyped: bool) -> Option<Message> {
        let mut seen = 0;
        loop {
            if let Some(message) = take(&mut self.buffer, untyped, seen) {
                self.cluster.until_awake(self.node).await;
                return Some(message);
            }
            let (bytes, now) = self.end.receive().await?;
            seen = now;
            self.buffer.extend_from_slice(&bytes);
        }
    }

    async fn run(&mut self) {
        let Some(first) = self.next(true).await else { return };
        if first.body.get(..4) == Some(&CANCEL[..]) {
            return self.cancel(&first.body);
        }
        let Some((mut registered, handle)) = self.log_in(&first.body) else { return };
        loop {
            let message = tokio::select! {
                biased;
                () = handle.terminated.cancelled() => return self.terminate(),
                message = self.next(false) => message,
            };
            let Some(message) = message else { return };
            let mut answer = Answer::default();
            let step = registered.session.on(&message, &mut self.cluster.lock(), &mut answer);
            match step {
                Step::GoOn => {}
                Step::End => return,
                Step::AwaitStandby { records } => {
                    let replicated = tokio::select! {
                        biased;
                        () = handle.terminated.cancelled() => return self.terminate(),
                        replicated = self.replicated(records, &handle.cancel) => replicated,
                    };
                    let mut state = self.cluster.lock();
                    registered.session.finish_commit(&mut state, replicated, &mut answer);
                }
            }
            self.end.send(answer.0);
        }
    }

    fn cancel(&self, body: &[u8]) {
        let number =
            |at: usize| body.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(i32::from_be_bytes);
        let state = self.cluster.lock();
        let handle = number(4).and_then(|pid| state.sessions.get(&pid));
        if let Some(handle) =
            handle.filter(|handle| Some(handle.secret) == number(8) && handle.node == self.node)
        {
            handle.cancel.notify_waiters();
        }
    }

    /// Answers the start-up; `None` if the login is rejected.
    fn log_in(&self, body: &[u8]) -> Option<(Registered, SessionHandle)> {
        let mut answer = Answer::default();
        let mut state = self.cluster.lock();
        let node = &state.nodes[self.node];
        let error = match node.power {
            Power::Starting => Some(SqlError::fatal("57P03", "the database system is starting up")),
            _ if node.full => Some(SqlError::fatal("53300", "sorry, too many clients already")),
            _ => None,
        };
        if let Some(error) = error {
            answer.error(error);
            self.end.send(answer.0);
            return None;
        }
        let (pid, secret, run) = (state.pid(), state.rng.i32(..), state.nodes[self.node].run);
        let mut session = Session::new(self.node, pid, body);
        session.greet(&state, secret, &mut answer);
        let handle = SessionHandle {
            node: self.node,
            secret,
            cancel: std::sync::Arc::new(Notify::new()),
            terminated: tokio_util::sync::CancellationToken::new(),
        };
        state.sessions.insert(pid, handle.clone());
        drop(state);
        self.end.send(answer.0);
        Some((Registered { cluster: self.cluster.clone(), session, run }, handle))
    }

    fn terminate(&self) {
        let mut answer = Answer::default();
        answer.error(SHUTDOWN);
        self.end.send(answer.0);
    }

    /// Waits until a standby has what a COMMIT wrote; `false` if the wait was cancelled.
    async fn replicated(&self, records: usize, cancel: &Notify) -> bool {
        loop {
            let changed = self.cluster.changed();
            {
                let state = self.cluster.lock();
                if !state.nodes[self.node].hung && state.is_replicated(self.node, records) {
                    return true;
                }
            }
            tokio::select! {
                biased;
                () = cancel.notified() => return false,
                () = changed => {}
            }
        }
    }
}
