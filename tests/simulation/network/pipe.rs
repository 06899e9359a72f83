//! A byte stream in memory between the set and a simulated server, with delays, stalls and cuts.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use fastrand::Rng;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::observer::Observer;

/// Longest time that bytes take in one direction of a healthy network.
const LATENCY: Duration = Duration::from_millis(1);

/// The state of one connection, which both ends and the network share.
#[derive(Debug)]
pub(crate) struct Pipe(Mutex<State>);

#[derive(Debug)]
struct State {
    to_server: Way,
    to_client: Way,
    /// `true` while no byte arrives.
    stalled: bool,
    /// `true` if the connection was reset.
    reset: bool,
    /// Time that each byte takes in addition.
    slowness: Duration,
    rng: Rng,
}

/// One direction.
#[derive(Debug, Default)]
struct Way {
    chunks: VecDeque<Chunk>,
    last_due: Option<Instant>,
    waker: Option<Waker>,
}

/// Bytes that were written together; without bytes, it is the end of the stream.
#[derive(Debug)]
struct Chunk {
    due: Instant,
    bytes: Vec<u8>,
    taken: usize,
    /// The highest timeline that the set had seen when it wrote this.
    seen: u32,
}

/// The set's end.
pub(crate) struct ClientEnd {
    pipe: Arc<Pipe>,
    observer: Arc<Observer>,
    timer: Option<Pin<Box<Sleep>>>,
}

/// The server's end.
#[derive(Debug)]
pub(crate) struct ServerEnd {
    pipe: Arc<Pipe>,
    timer: Option<Pin<Box<Sleep>>>,
}

/// Creates a connection.
pub(crate) fn pipe(
    observer: Arc<Observer>,
    slowness: Duration,
    rng: Rng,
) -> (Arc<Pipe>, ClientEnd, ServerEnd) {
    let state = State {
        to_server: Way::default(),
        to_client: Way::default(),
        stalled: false,
        reset: false,
        slowness,
        rng,
    };
    let pipe = Arc::new(Pipe(Mutex::new(state)));
    let client = ClientEnd { pipe: Arc::clone(&pipe), observer, timer: None };
    let server = ServerEnd { pipe: Arc::clone(&pipe), timer: None };
    (pipe, client, server)
}

impl Pipe {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops or resumes all bytes.
    pub(crate) fn set_stalled(&self, stalled: bool) {
        let mut state = self.lock();
        state.stalled = stalled;
        state.wake();
    }

    pub(crate) fn set_slowness(&self, slowness: Duration) {
        self.lock().slowness = slowness;
    }

    /// Resets the connection: bytes under way are lost, and both ends fail.
    pub(crate) fn reset(&self) {
        let mut state = self.lock();
        state.reset = true;
        state.wake();
    }
}

impl State {
    fn wake(&mut self) {
        for way in [&mut self.to_server, &mut self.to_client] {
            way.waker.take().into_iter().for_each(Waker::wake);
        }
    }

    fn write(&mut self, to_server: bool, bytes: Vec<u8>, seen: u32) {
        let latency = if self.rng.bool() { Duration::ZERO } else { LATENCY };
        let way = if to_server { &mut self.to_server } else { &mut self.to_client };
        let due = Instant::now() + latency + self.slowness;
        let due = way.last_due.map_or(due, |last| last.max(due));
        way.last_due = Some(due);
        way.chunks.push_back(Chunk { due, bytes, taken: 0, seen });
        way.waker.take().into_iter().for_each(Waker::wake);
    }

    /// Returns the direction if its first chunk has arrived, or else registers for it.
    fn poll_way(
        &mut self,
        to_server: bool,
        timer: &mut Option<Pin<Box<Sleep>>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<&mut Way>> {
        if self.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let stalled = self.stalled;
        let way = if to_server { &mut self.to_server } else { &mut self.to_client };
        way.waker = Some(cx.waker().clone());
        let Some(due) = way.chunks.front().filter(|_| !stalled).map(|chunk| chunk.due) else {
            return Poll::Pending;
        };
        if due > Instant::now() {
            let timer = match timer {
                Some(timer) => {
                    timer.as_mut().reset(due);
                    timer
                }
                None => timer.insert(Box::pin(sleep_until(due))),
            };
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
        Poll::Ready(Ok(way))
    }
}

impl ServerEnd {
    /// Waits for bytes, and the highest timeline that the set had seen when it sent them; `None` at the end.
    pub(crate) async fn receive(&mut self) -> Option<(Vec<u8>, u32)> {
        std::future::poll_fn(|cx| {
            let mut state = self.pipe.lock();
            let way = match state.poll_way(true, &mut self.timer, cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(None),
                Poll::Ready(Ok(way)) => way,
            };
            if way.chunks.front().is_some_and(|chunk| chunk.bytes.is_empty()) {
                return Poll::Ready(None);
            }
            Poll::Ready(way.chunks.pop_front().map(|chunk| (chunk.bytes, chunk.seen)))
        })
        .await
    }

    pub(crate) fn send(&self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.pipe.lock().write(false, bytes, 0);
        }
    }
}

impl Drop for ServerEnd {
    fn drop(&mut self) {
        self.pipe.lock().write(false, Vec::new(), 0);
    }
}

impl Drop for ClientEnd {
    fn drop(&mut self) {
        self.pipe.lock().write(true, Vec::new(), 0);
    }
}

impl AsyncRead for ClientEnd {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { pipe, timer, .. } = &mut *self;
        let mut state = pipe.lock();
        let way = match state.poll_way(false, timer, cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(way) => way?,
        };
        let Some(chunk) = way.chunks.front_mut() else { return Poll::Pending };
        let n = (chunk.bytes.len() - chunk.taken).min(buf.remaining());
        buf.put_slice(&chunk.bytes[chunk.taken..chunk.taken + n]);
        chunk.taken += n;
        // The end of the stream stays at the front.
        if chunk.taken == chunk.bytes.len() && n > 0 {
            way.chunks.pop_front();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientEnd {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let seen = self.observer.highest();
        let mut state = self.pipe.lock();
        if state.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        state.write(true, bytes.to_vec(), seen);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pipe.lock().write(true, Vec::new(), 0);
        Poll::Ready(Ok(()))
    }
}
