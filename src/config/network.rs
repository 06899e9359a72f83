//! A network in memory, which replaces sockets in simulations.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Duplex for S {}

/// A byte stream to a simulated server.
pub struct NetworkStream(Box<dyn Duplex>);

impl NetworkStream {
    /// Wraps the client's end of a stream.
    pub fn new(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        Self(Box::new(stream))
    }
}

impl fmt::Debug for NetworkStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NetworkStream")
    }
}

impl AsyncRead for NetworkStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for NetworkStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// The attempt to connect to a simulated server.
pub type Connecting<'n> = Pin<Box<dyn Future<Output = io::Result<NetworkStream>> + Send + 'n>>;

/// A network that connects to simulated servers, instead of sockets.
///
/// A host is only a name here, so it need not resolve. See [`over`](crate::testkit::simulation::over).
pub trait Network: Send + Sync + 'static {
    /// Connects to a server.
    ///
    /// Errors count as those of a socket: `ConnectionRefused` proves that no server listens.
    ///
    /// # Cancel safety
    ///
    /// The caller drops the future when its time is up, and so must lose nothing.
    fn connect<'n>(&'n self, host: &'n str, port: u16) -> Connecting<'n>;
}

/// The network of a node; two are equal if they are the same one.
#[derive(Clone)]
pub(super) struct SharedNetwork(pub(super) Arc<dyn Network>);

impl PartialEq for SharedNetwork {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for SharedNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedNetwork")
    }
}
