//! The byte stream to a server: a socket, or a network in memory in simulations.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio_util::either::Either;

use super::{Dialer, addresses};
#[cfg(feature = "testkit")]
use crate::config::network::NetworkStream;
use crate::error::ConnectError;

/// A socket to a server, over TCP or in the file system.
type OsSocket = Either<TcpStream, UnixStream>;

/// The byte stream to a server.
#[cfg(not(feature = "testkit"))]
pub(in crate::wire) type Socket = OsSocket;
#[cfg(feature = "testkit")]
pub(in crate::wire) type Socket = Either<OsSocket, NetworkStream>;

impl Dialer {
    /// Connects to the given address, or else to the first of the name's that answers.
    #[cfg(feature = "testkit")]
    pub(super) async fn socket(
        &self,
        address: Option<SocketAddr>,
    ) -> Result<(Socket, Option<SocketAddr>), ConnectError> {
        let Some(network) = self.node.network() else {
            let (socket, address) = self.os_socket(address).await?;
            return Ok((Either::Left(socket), address));
        };
        let connected = network.connect(self.node.host(), self.node.port()).await;
        Ok((Either::Right(connected.map_err(ConnectError::Unreachable)?), None))
    }

    /// Connects to the given address, or else to the first of the name's that answers.
    #[cfg(not(feature = "testkit"))]
    pub(super) async fn socket(
        &self,
        address: Option<SocketAddr>,
    ) -> Result<(Socket, Option<SocketAddr>), ConnectError> {
        self.os_socket(address).await
    }

    async fn os_socket(
        &self,
        address: Option<SocketAddr>,
    ) -> Result<(OsSocket, Option<SocketAddr>), ConnectError> {
        let (host, port) = (self.node.host(), self.node.port());
        if host.starts_with('/') {
            let path = Path::new(host).join(format!(".s.PGSQL.{port}"));
            let stream = UnixStream::connect(path).await.map_err(ConnectError::Unreachable)?;
            return Ok((Either::Right(stream), None));
        }
        // As in libpq: an address avoids the look-up, and the host is then only the name in the certificate.
        let given = self.node.postgres().get_hostaddrs().first().map(|given| (*given, port).into());
        let addresses = match address.or(given) {
            Some(address) => vec![address],
            None => {
                let resolved = lookup_host((host, port)).await.map_err(ConnectError::NameNotResolved)?;
                addresses::order(resolved, self.worked.load().as_deref().copied())
            }
        };
        let connected = addresses::first_of(&addresses, TcpStream::connect).await;
        let (stream, address) = connected.map_err(ConnectError::Unreachable)?;
        self.set_options(&stream).map_err(ConnectError::Unreachable)?;
        if self.worked.load().as_deref() != Some(&address) {
            self.worked.store(Some(Arc::new(address)));
        }
        Ok((Either::Left(stream), Some(address)))
    }

    /// Sets the options of a socket.
    fn set_options(&self, stream: &TcpStream) -> io::Result<()> {
        let options = self.node.postgres();
        stream.set_nodelay(true)?;
        let socket = SockRef::from(stream);
        if options.get_keepalives() {
            // Keepalive finds a peer that vanished silently, even on an unused connection.
            let mut keepalive = TcpKeepalive::new().with_time(options.get_keepalives_idle());
            if let Some(interval) = options.get_keepalives_interval() {
                keepalive = keepalive.with_interval(interval);
            }
            if let Some(retries) = options.get_keepalives_retries() {
                keepalive = keepalive.with_retries(retries);
            }
            socket.set_tcp_keepalive(&keepalive)?;
        }
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(options.get_tcp_user_timeout().copied())?;
        Ok(())
    }
}
