//! Ports that stay reserved from the moment they are chosen.
//!
//! Binding port 0, noting the number and closing the socket is a race. Another test, or an outgoing connection, can
//! take the port before the server does, or while the server is down. So the socket stays bound for as long as the
//! cluster lives, without listening. Linux lets a second socket with `SO_REUSEADDR` listen on a port whose other
//! sockets don't listen. It never assigns such a port automatically, and refuses connections while the server is down.

use super::error::{Result, TestkitError};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

/// A port of 127.0.0.1 that no other process gets.
#[derive(Debug)]
pub(super) struct Port {
    number: u16,
    /// Reserves the port. Only Linux lets a second socket bind it.
    _reservation: Option<Socket>,
}

impl Port {
    pub(super) fn reserve() -> Result<Self> {
        let reserve = || -> io::Result<Self> {
            let socket = bound(0)?;
            let address = socket.local_addr()?.as_socket();
            let number = address.ok_or_else(|| io::Error::other("the socket has no address"))?.port();
            Ok(Self { number, _reservation: cfg!(target_os = "linux").then_some(socket) })
        };
        reserve().map_err(|source| TestkitError::Network { doing: "reserve a port", source })
    }

    pub(super) fn number(&self) -> u16 {
        self.number
    }

    /// Listens on the port.
    pub(super) fn listen(&self) -> io::Result<TcpListener> {
        let socket = bound(self.number)?;
        socket.listen(1024)?;
        socket.set_nonblocking(true)?;
        Ok(socket.into())
    }

    /// Returns `true` if another process listens on the port.
    pub(super) fn is_taken(&self) -> bool {
        self.listen().is_err()
    }
}

fn bound(port: u16) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::Port;
    use std::net::TcpStream;

    #[test]
    fn a_reserved_port_refuses_connections_before_and_after_a_listener() {
        let port = Port::reserve().unwrap();
        let connect = || TcpStream::connect(("127.0.0.1", port.number()));
        assert_eq!(connect().unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
        let listener = port.listen().unwrap();
        assert!(port.is_taken());
        connect().unwrap();
        drop(listener);
        assert_eq!(connect().unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    }
}
