//! The port that the set connects to.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Mutex, Notify, oneshot};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::login;
use super::session::{Session, Target};
use crate::config::{NodeConfig, Password};
use crate::testkit::error::{Result, TestkitError};

/// The state that all clients share.
pub(super) struct Shared {
    /// Its lock is fair: turns come first in, first out.
    pub(super) session: Arc<Mutex<Session>>,
    pub(super) target: Target,
    pub(super) parameters: Vec<(String, String)>,
    pub(super) password: Option<Password>,
    /// Time a client may wait for its turn.
    pub(super) limit: Duration,
    process: [u8; 4],
    admitted: AtomicU64,
    /// For each client's secret, the handle that wakes it to cancel its statement.
    cancels: StdMutex<HashMap<[u8; 4], Arc<Notify>>>,
}

/// A client that may come in, until it is dropped.
pub(super) struct Admitted<'s> {
    shared: &'s Shared,
    pub(super) number: u64,
    pub(super) cancel: Arc<Notify>,
    secret: [u8; 4],
}

impl Shared {
    pub(super) fn admit(&self) -> Admitted<'_> {
        let number = self.admitted.fetch_add(1, Ordering::Relaxed);
        let (secret, cancel) = (fastrand::u32(..).to_be_bytes(), Arc::<Notify>::default());
        self.cancels().insert(secret, Arc::clone(&cancel));
        Admitted { shared: self, number, cancel, secret }
    }

    /// Cancels the statement of the client with this process and secret.
    pub(super) fn cancel(&self, key: &[u8]) {
        if let Some(cancel) = key.get(4..8).and_then(|secret| self.cancels().get(secret).cloned()) {
            cancel.notify_one();
        }
    }

    fn cancels(&self) -> MutexGuard<'_, HashMap<[u8; 4], Arc<Notify>>> {
        self.cancels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Admitted<'_> {
    /// The key of a cancel request: the shared server process, and a secret.
    pub(super) fn key(&self) -> Vec<u8> {
        [self.shared.process, self.secret].concat()
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.shared.cancels().remove(&self.secret);
    }
}

/// The owner's end of the thread that serves the set.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) port: u16,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Opens the session and listens on a free port of 127.0.0.1.
    ///
    /// Like a proxy it runs on a separate thread and runtime, so neither a test that blocks nor the clock of a paused
    /// runtime affects it.
    pub(super) async fn start(node: &NodeConfig, limit: Duration) -> Result<Self> {
        let failed = |source| TestkitError::Network { doing: "serve a set that is rolled back", source };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
        let runtime = runtime.map_err(failed)?;
        let (stop, stops) = oneshot::channel();
        let (started, starts) = oneshot::channel();
        let node = node.clone();
        let work = async move {
            let listening = async {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(failed)?;
                let port = listener.local_addr().map_err(failed)?.port();
                let (session, announced) = Session::open(&node).await?;
                let process = announced.process();
                let shared = Shared {
                    target: session.target().clone(),
                    session: Arc::new(Mutex::new(session)),
                    parameters: announced.parameters,
                    password: node.password().cloned(),
                    limit,
                    process,
                    admitted: AtomicU64::new(0),
                    cancels: StdMutex::default(),
                };
                Ok((listener, port, shared))
            };
            match listening.await {
                Ok((listener, port, shared)) => {
                    let _ = started.send(Ok(port));
                    serve(listener, Arc::new(shared), stops).await;
                }
                Err(error) => drop(started.send(Err(error))),
            }
        };
        let thread = std::thread::Builder::new()
            .name("testkit-rollback".to_owned())
            .spawn(move || runtime.block_on(work))
            .map_err(failed)?;
        let port = starts.await.map_err(|_| TestkitError::ProxyEnded)??;
        Ok(Self { port, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Server {
    /// Waits until the server has rolled back, bounded by `Session::close`.
    fn drop(&mut self) {
        drop(self.stop.take());
        // A thread that panicked has closed the session's socket, which rolls back as well.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>, mut stops: oneshot::Receiver<()>) {
    let mut clients = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stops => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let shared = Arc::clone(&shared);
                    clients.spawn(async move { drop(login::serve(stream, &shared).await) });
                }
                // The failure of one connection, or a lack of descriptors. Retrying at once would not help.
                Err(_) => sleep(Duration::from_millis(10)).await,
            },
            Some(_) = clients.join_next() => {}
        }
    }
    drop(listener);
    clients.shutdown().await;
    if let Some(session) = Arc::into_inner(shared).and_then(|shared| Arc::into_inner(shared.session)) {
        session.into_inner().close().await;
    }
}
