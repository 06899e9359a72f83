//! A TCP proxy that breaks the network on request.
//!
//! A program reacts differently to a refused, reset, silent or cut connection than to a server that ends. A running
//! server cannot be made to do these. The proxy runs on a separate thread and runtime, so neither a test that blocks
//! nor the clock of a paused runtime affects it. Because it is one thread, a change of mode is complete when the call
//! returns: nothing is forwarded afterwards that the new mode forbids.

mod connection;

use super::error::{Result, TestkitError};
use super::ports::Port;
use connection::{Behaviour, WireConnection};
use socket2::SockRef;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

/// Forwards connections to a server, or breaks them in a chosen way.
///
/// It is a handle: clones are the same proxy, which ends with its last handle.
///
/// # Examples
///
/// ```
/// use pointsman::testkit::Proxy;
/// use std::io::ErrorKind;
/// use std::net::{TcpListener, TcpStream};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = TcpListener::bind("127.0.0.1:0")?;
/// let proxy = Proxy::start(server.local_addr()?).await?;
/// TcpStream::connect(proxy.addr())?;
///
/// proxy.refuse().await?;
/// let refused = TcpStream::connect(proxy.addr()).map_err(|error| error.kind());
/// assert_eq!(refused.err(), Some(ErrorKind::ConnectionRefused));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Proxy {
    port: Arc<Port>,
    commands: mpsc::UnboundedSender<Command>,
    accepted: Arc<AtomicU64>,
}

/// A command to the thread, with the channel for its answer.
#[derive(Debug)]
struct Command {
    action: Action,
    done: oneshot::Sender<std::io::Result<()>>,
}

#[derive(Debug)]
enum Action {
    Behave(Behaviour),
    Refuse,
    Reset,
    Retarget(SocketAddr),
}

impl Proxy {
    /// Listens on a free port of 127.0.0.1 and forwards to `target`.
    ///
    /// The mode is that of [`pass`](Self::pass).
    ///
    /// # Errors
    ///
    /// Fails if the system has no port or no thread for it.
    pub async fn start(target: SocketAddr) -> Result<Self> {
        let port = Arc::new(Port::reserve()?);
        let (commands, inbox) = mpsc::unbounded_channel();
        let accepted = Arc::new(AtomicU64::new(0));
        let forwarder = Forwarder {
            target,
            port: Arc::clone(&port),
            accepted: Arc::clone(&accepted),
            listener: None,
            links: JoinSet::new(),
            link: watch::Sender::new(WireConnection::default()),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
        let runtime = runtime.map_err(|source| TestkitError::Network { doing: "start a proxy", source })?;
        std::thread::Builder::new()
            .name("testkit-proxy".to_owned())
            .spawn(move || runtime.block_on(forwarder.run(inbox)))
            .map_err(|source| TestkitError::Network { doing: "start a proxy", source })?;
        let proxy = Self { port, commands, accepted };
        proxy.pass().await?;
        Ok(proxy)
    }

    /// Returns the address to connect to.
    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port()))
    }

    /// Returns the port to connect to, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Returns the number of accepted connections, including those not forwarded.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(proxy: pointsman::testkit::Proxy) -> pointsman::testkit::Result<()> {
    /// let before = proxy.accepted();
    /// proxy.pass().await?;
    /// // … the server is back …
    /// assert!(proxy.accepted() - before <= 4, "a burst of connects");
    /// # Ok(()) }
    /// ```
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Forwards everything, including the bytes that a [`stall`](Self::stall) has kept.
    ///
    /// # Errors
    ///
    /// Fails if the port cannot be listened on again. The same holds for the other modes.
    pub async fn pass(&self) -> Result<()> {
        self.ask(Action::Behave(Behaviour::Pass)).await
    }

    /// Refuses new connections, as a machine without the server does.
    ///
    /// Open connections go on, and the port stays taken. For the loss of a server use [`reset`](Self::reset) as well.
    ///
    /// # Errors
    ///
    /// As [`pass`](Self::pass).
    pub async fn refuse(&self) -> Result<()> {
        self.ask(Action::Refuse).await
    }

    /// Resets (RST) every open connection, and leaves the mode unchanged.
    ///
    /// # Errors
    ///
    /// As [`pass`](Self::pass).
    pub async fn reset(&self) -> Result<()> {
        self.ask(Action::Reset).await
    }

    /// Accepts connections and forwards nothing in either direction.
    ///
    /// A network that loses all packets does the same.
    ///
    /// # Errors
    ///
    /// As [`pass`](Self::pass).
    pub async fn stall(&self) -> Result<()> {
        self.ask(Action::Behave(Behaviour::Stall)).await
    }

    /// Delays each reply by this time; the rate stays.
    ///
    /// # Errors
    ///
    /// As [`pass`](Self::pass).
    pub async fn latency(&self, delay: Duration) -> Result<()> {
        self.ask(Action::Behave(Behaviour::Latency(delay))).await
    }

    /// Closes each connection after exactly this many more bytes of replies.
    ///
    /// It applies to open and new connections until another mode is chosen. With a few bytes, a connection ends in the
    /// middle of a message.
    ///
    /// # Errors
    ///
    /// As [`pass`](Self::pass).
    pub async fn cut_after(&self, bytes: u64) -> Result<()> {
        self.ask(Action::Behave(Behaviour::CutAfter(bytes))).await
    }

    /// Forwards new connections to another address, as a moved floating address does.
    ///
    /// Open connections keep their target.
    ///
    /// # Errors
    ///
    /// As [`pass`](Self::pass).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(cluster: pointsman::testkit::Cluster) -> Result<(), Box<dyn std::error::Error>> {
    /// let floating = cluster.primary().proxy().await?;
    /// floating.retarget(([127, 0, 0, 1], cluster.replica(0).port()).into()).await?;
    /// # Ok(()) }
    /// ```
    pub async fn retarget(&self, target: SocketAddr) -> Result<()> {
        self.ask(Action::Retarget(target)).await
    }

    async fn ask(&self, action: Action) -> Result<()> {
        let (done, answer) = oneshot::channel();
        self.commands.send(Command { action, done }).map_err(|_| TestkitError::ProxyEnded)?;
        match answer.await {
            Ok(done) => {
                done.map_err(|source| TestkitError::Network { doing: "listen on a proxy's port", source })
            }
            Err(_) => Err(TestkitError::ProxyEnded),
        }
    }
}

/// The task that accepts connections and obeys the handles.
struct Forwarder {
    target: SocketAddr,
    port: Arc<Port>,
    accepted: Arc<AtomicU64>,
    listener: Option<TcpListener>,
    links: JoinSet<()>,
    link: watch::Sender<WireConnection>,
}

impl Forwarder {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Command>) {
        loop {
            tokio::select! {
                command = inbox.recv() => match command {
                    Some(Command { action, done }) => {
                        // The caller may have gone.
                        let _ = done.send(self.act(action).await);
                    }
                    None => return,
                },
                client = accept(self.listener.as_ref()) => {
                    self.accepted.fetch_add(1, Ordering::Relaxed);
                    self.links.spawn(connection::forward(client, self.target, self.link.subscribe()));
                }
                Some(_) = self.links.join_next() => {}
            }
        }
    }

    async fn act(&mut self, action: Action) -> std::io::Result<()> {
        match action {
            Action::Behave(behaviour) => {
                if self.listener.is_none() {
                    self.listener = Some(TcpListener::from_std(self.port.listen()?)?);
                }
                self.link.send_modify(|link| link.behave(behaviour));
            }
            Action::Retarget(target) => self.target = target,
            Action::Refuse => {
                self.listener = None;
                self.link.send_modify(|link| link.behave(Behaviour::Pass));
            }
            Action::Reset => {
                // A connection that the system has accepted for us is open for the client.
                while let Some(Ok((client, _))) =
                    self.listener.as_ref().map(|listener| SockRef::from(listener).accept())
                {
                    self.accepted.fetch_add(1, Ordering::Relaxed);
                    let _ = client.set_linger(Some(Duration::ZERO));
                }
                self.link.send_modify(WireConnection::reset);
                while self.links.join_next().await.is_some() {}
            }
        }
        Ok(())
    }
}

/// Accepts a connection, and waits for ever if there is no listener.
async fn accept(listener: Option<&TcpListener>) -> TcpStream {
    loop {
        match listener {
            // An error is the failure of one connection, or a lack of file descriptors. Retrying at once would not
            // help.
            Some(listener) => match listener.accept().await {
                Ok((client, _)) => return client,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            None => std::future::pending().await,
        }
    }
}
