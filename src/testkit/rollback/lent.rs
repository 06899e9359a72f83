//! A socket on which the driver logs in, with a password if one is asked for.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::session::Stream;

/// A socket for the driver's login.
///
/// It is taken back afterwards, with the received bytes.
#[derive(Clone)]
pub(super) struct Lent(Arc<Mutex<Lending>>);

struct Lending {
    socket: Box<dyn Stream>,
    received: Vec<u8>,
}

impl Lent {
    pub(super) fn new(socket: Box<dyn Stream>) -> Self {
        Self(Arc::new(Mutex::new(Lending { socket, received: Vec::new() })))
    }

    fn lock(&self) -> MutexGuard<'_, Lending> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the socket back, unless the driver still has it.
    pub(super) fn take_back(self) -> Option<(Box<dyn Stream>, Vec<u8>)> {
        let lending = Arc::into_inner(self.0)?.into_inner().unwrap_or_else(PoisonError::into_inner);
        Some((lending.socket, lending.received))
    }
}

impl AsyncRead for Lent {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let mut lent = self.lock();
        let read = Pin::new(&mut lent.socket).poll_read(cx, buf);
        lent.received.extend_from_slice(&buf.filled()[before..]);
        read
    }
}

impl AsyncWrite for Lent {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.lock().socket).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lock().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lock().socket).poll_shutdown(cx)
    }
}
