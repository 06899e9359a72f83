//! One connection through the proxy.

use socket2::SockRef;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

/// Chunks of a delayed reply under way at most.
///
/// 64 of 16 KiB are the capacity of a long line.
const UNDER_WAY: usize = 64;
const CHUNK: usize = 16 * 1024;

/// The behaviour that applies to the bytes of the connections.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum Behaviour {
    #[default]
    Pass,
    Stall,
    Latency(Duration),
    CutAfter(u64),
}

/// The state that all connections share.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct WireConnection {
    behaviour: Behaviour,
    /// Counts the changes of behaviour, so that an equal one starts to count again.
    change: u64,
    resets: u64,
}

impl WireConnection {
    pub(super) fn behave(&mut self, behaviour: Behaviour) {
        self.behaviour = behaviour;
        self.change += 1;
    }

    pub(super) fn reset(&mut self) {
        self.resets += 1;
    }
}

/// Lets the system answer with RST when the connection is dropped.
pub(super) fn reset(connection: &TcpStream) {
    // It fails for a connection that is gone already.
    let _ = SockRef::from(connection).set_linger(Some(Duration::ZERO));
}

/// Forwards one connection until either side ends it or the proxy does.
///
/// The current value of `link` is the state in which the connection was accepted, not the value at the task's first
/// poll. A reset in between applies to this connection, too.
pub(super) fn forward(
    client: TcpStream,
    target: SocketAddr,
    link: watch::Receiver<WireConnection>,
) -> impl Future<Output = ()> {
    let before = link.borrow().resets;
    forward_since(before, client, target, link)
}

async fn forward_since(
    before: u64,
    mut client: TcpStream,
    target: SocketAddr,
    link: watch::Receiver<WireConnection>,
) {
    let mut server = None;
    let mut resets = link.clone();
    let is_reset = tokio::select! {
        biased;
        _ = resets.wait_for(|link| link.resets != before) => true,
        ended = run(&mut client, &mut server, target, link) => ended.is_err(),
    };
    if is_reset {
        reset(&client);
        server.iter().for_each(reset);
    }
}

/// Runs a connection until it ends.
///
/// An error resets it, because the server's work is unknown.
async fn run(
    client: &mut TcpStream,
    server: &mut Option<TcpStream>,
    target: SocketAddr,
    mut link: watch::Receiver<WireConnection>,
) -> io::Result<()> {
    moving(&mut link).await;
    let server = server.insert(TcpStream::connect(target).await?);
    server.set_nodelay(true)?;
    client.set_nodelay(true)?;
    let (from_client, mut to_client) = client.split();
    let (from_server, to_server) = server.split();
    let (queue, queued) = mpsc::channel(UNDER_WAY);
    tokio::select! {
        never = requests(from_client, to_server, link.clone()) => never,
        never = delay(from_server, queue, link.clone()) => never,
        ended = replies(queued, &mut to_client, link) => ended,
    }
}

/// Waits while the proxy stalls.
async fn moving(link: &mut watch::Receiver<WireConnection>) -> WireConnection {
    let moving = link.wait_for(|link| !matches!(link.behaviour, Behaviour::Stall)).await;
    match moving.map(|link| *link) {
        Ok(link) => link,
        // The proxy has ended and takes this task along.
        Err(_) => std::future::pending().await,
    }
}

/// Forwards requests, and after their end waits for the end of the replies.
async fn requests(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut link: watch::Receiver<WireConnection>,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = from.read(&mut chunk).await.unwrap_or(0);
        moving(&mut link).await;
        let sent = to.write_all(&chunk[..length]).await;
        if length == 0 || sent.is_err() {
            // A client that has gone ends its session at the server; one that half-closes waits.
            let _ = to.shutdown().await;
            return std::future::pending().await;
        }
    }
}

/// Reads replies and schedules each of them.
async fn delay(
    mut from: ReadHalf<'_>,
    queue: mpsc::Sender<(Instant, io::Result<Vec<u8>>)>,
    link: watch::Receiver<WireConnection>,
) -> io::Result<()> {
    loop {
        let mut chunk = vec![0; CHUNK];
        let read = from.read(&mut chunk).await;
        let wait = match link.borrow().behaviour {
            Behaviour::Latency(delay) => delay,
            _ => Duration::ZERO,
        };
        let ends = !matches!(read, Ok(1..));
        let read = read.map(|length| {
            chunk.truncate(length);
            chunk
        });
        // The other end of the queue lives as long as this.
        let _ = queue.send((Instant::now() + wait, read)).await;
        if ends {
            return std::future::pending().await;
        }
    }
}

/// Sends replies when they are due, as many as the behaviour allows.
async fn replies(
    mut queued: mpsc::Receiver<(Instant, io::Result<Vec<u8>>)>,
    to: &mut WriteHalf<'_>,
    mut link: watch::Receiver<WireConnection>,
) -> io::Result<()> {
    let mut counted = 0;
    let mut left = u64::MAX;
    while let Some((due, reply)) = queued.recv().await {
        sleep_until(due).await;
        let now = moving(&mut link).await;
        let reply = reply?;
        if now.change != counted {
            counted = now.change;
            left = if let Behaviour::CutAfter(bytes) = now.behaviour { bytes } else { u64::MAX };
        }
        let allowed = reply.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        to.write_all(&reply[..allowed]).await?;
        left = left.saturating_sub(allowed as u64);
        if reply.is_empty() || left == 0 {
            return to.shutdown().await;
        }
    }
    Ok(())
}
