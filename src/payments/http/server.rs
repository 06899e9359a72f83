//! Accepts connections, and limits what each of them may take.
//!
//! A connection costs a file descriptor from its first byte on, long before it is a request. A client that sends half
//! of a head and then nothing, many times, would take them all ("Slowloris", R. Hansen, 2009). So a head has a time
//! limit. If the maximum number of connections is open, the one that has waited longest for a head makes room for the
//! next, so that probes are answered meanwhile.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::sys::resource::{Resource, getrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::Settings;

/// Pause after a connection that could not be accepted.
///
/// For example, no file descriptor was left.
const AFTER_ERROR: Duration = Duration::from_millis(20);

/// Time for the rest of a head, or of an answer, once the service is ending.
const LINGER: Duration = Duration::from_secs(1);

/// Serves until `stop` completes, and then until all connections have ended.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    settings: &Settings,
    stop: impl Future<Output = ()>,
) {
    let connections = Arc::new(Connections::new(limit(settings.max_connections)));
    let (ending, mut tasks, mut stop) = (CancellationToken::new(), JoinSet::new(), pin!(stop));
    {
        // It is kept until it completes, because it may hold a connection that waits for its place.
        let mut accepting = pin!(accept(&listener, &connections));
        loop {
            tokio::select! {
                () = stop.as_mut() => break,
                // Ended tasks are removed, so that the set does not grow.
                Some(_) = tasks.join_next() => {}
                (stream, place) = accepting.as_mut() => {
                    accepting.set(accept(&listener, &connections));
                    let connection = connection(stream, place, router.clone(), settings.head_timeout, ending.clone());
                    tasks.spawn(connection);
                }
            }
        }
    }
    drop(listener);
    ending.cancel();
    while tasks.join_next().await.is_some() {}
}

/// Returns the maximum number of connections, which leaves descriptors free.
fn limit(wanted: usize) -> usize {
    let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
    let usable = usize::try_from(descriptors / 4 * 3).unwrap_or(usize::MAX).max(1);
    if usable < wanted {
        tracing::warn!(
            wanted,
            usable,
            "fewer connections than configured are served: raise the limit of open files"
        );
    }
    wanted.min(usable)
}

/// Accepts the next connection, once there is a place for it.
async fn accept(listener: &TcpListener, connections: &Arc<Connections>) -> (TcpStream, Place) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, connections.place().await),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                connections.make_room();
                sleep(AFTER_ERROR).await;
            }
        }
    }
}

/// Serves the requests of one connection.
async fn connection(
    stream: TcpStream,
    place: Place,
    router: Router,
    head_timeout: Duration,
    ending: CancellationToken,
) {
    let peer = Arc::clone(&place.peer);
    let router = TowerToHyperService::new(router);
    let service = service_fn(|request: hyper::Request<Incoming>| {
        let (request, busy) = (router.call(request), Busy::new(&peer));
        async move {
            let answer = request.await;
            drop(busy);
            answer
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = pin!(serving);
    tokio::select! {
        ended = serving.as_mut() => return log(ended),
        () = peer.close.cancelled() => return,
        () = ending.cancelled() => serving.as_mut().graceful_shutdown(),
    }
    loop {
        tokio::select! {
            ended = serving.as_mut() => return log(ended),
            () = sleep(LINGER) => if peer.is_waiting() { return },
        }
    }
}

/// Logs the error of a connection, which is its client's affair.
fn log(ended: hyper::Result<()>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended");
    }
}

/// The open connections.
#[derive(Debug)]
struct Connections {
    limit: usize,
    open: Mutex<Open>,
    released: Notify,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    peers: BTreeMap<u64, Arc<Peer>>,
}

/// One open connection.
#[derive(Debug)]
struct Peer {
    activity: Mutex<Activity>,
    close: CancellationToken,
}

#[derive(Debug, Clone, Copy)]
struct Activity {
    requests: usize,
    /// Time of the last answer, or of the connection.
    since: Instant,
}

impl Connections {
    fn new(limit: usize) -> Self {
        Self { limit, open: Mutex::default(), released: Notify::new() }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        // No code under this lock panics half-way through a change.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place, and closes a waiting connection if there is none.
    ///
    /// If all connections have a request in progress, it waits for one to end.
    async fn place(self: &Arc<Self>) -> Place {
        loop {
            let released = self.released.notified();
            {
                let mut open = self.open();
                if open.peers.len() < self.limit {
                    let (key, peer) = (open.next, Arc::new(Peer::new()));
                    open.next += 1;
                    open.peers.insert(key, Arc::clone(&peer));
                    return Place { connections: Arc::clone(self), key, peer };
                }
            }
            self.make_room();
            released.await;
        }
    }

    /// Closes the connection that has waited longest for a head.
    fn make_room(&self) {
        let open = self.open();
        let waiting = open.peers.values().filter(|peer| peer.is_waiting() && !peer.close.is_cancelled());
        if let Some(peer) = waiting.min_by_key(|peer| peer.activity().since) {
            peer.close.cancel();
        }
    }
}

impl Peer {
    fn new() -> Self {
        let activity = Activity { requests: 0, since: Instant::now() };
        Self { activity: Mutex::new(activity), close: CancellationToken::new() }
    }

    fn activity(&self) -> MutexGuard<'_, Activity> {
        self.activity.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns `true` if no request is in progress.
    fn is_waiting(&self) -> bool {
        self.activity().requests == 0
    }
}

/// The place of a connection, which is free again when this is dropped.
#[derive(Debug)]
struct Place {
    connections: Arc<Connections>,
    key: u64,
    peer: Arc<Peer>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.open().peers.remove(&self.key);
        self.connections.released.notify_waiters();
    }
}

/// A request in progress.
struct Busy(Arc<Peer>);

impl Busy {
    fn new(peer: &Arc<Peer>) -> Self {
        peer.activity().requests += 1;
        Self(Arc::clone(peer))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut activity = self.0.activity();
        activity.requests -= 1;
        activity.since = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_connection_that_waited_longest_makes_room() {
        let connections = Arc::new(Connections::new(3));
        let busy = connections.place().await;
        let _request = Busy::new(&busy.peer);
        tokio::time::advance(Duration::from_secs(1)).await;
        let oldest = connections.place().await;
        tokio::time::advance(Duration::from_secs(1)).await;
        let answered = connections.place().await;
        tokio::time::advance(Duration::from_secs(1)).await;
        drop(Busy::new(&oldest.peer));

        let next = tokio::spawn({
            let connections = Arc::clone(&connections);
            async move { connections.place().await }
        });
        answered.peer.close.cancelled().await;
        assert!(!oldest.peer.close.is_cancelled() && !busy.peer.close.is_cancelled());
        drop(answered);
        next.await.unwrap();
    }
}
