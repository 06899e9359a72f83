//! A second network namespace, in which an address can stop answering.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sched::{CloneFlags, setns};

use super::error::{Result, TestkitError};
use super::poll::blocking;

/// A separate network namespace, joined to this one by virtual interfaces.
///
/// A [`Proxy`](super::Proxy) cannot lose packets, because the system acknowledges all that arrives. Here the interface
/// can be [taken down](Self::cut_off). A client of an address in the namespace then gets no answer, not even a refusal,
/// as when a machine or its switch is lost. Needs Linux, root and `ip` of iproute2.
///
/// The kit changes only interfaces that it made itself, and removes them when this is dropped.
///
/// ```no_run
/// use pointsman::testkit::{Cluster, NetworkNamespace};
///
/// # async fn example(cluster: Cluster) -> pointsman::testkit::Result<()> {
/// let namespace = NetworkNamespace::create().await?;
/// let addr = namespace.reach(cluster.primary().port()).await?;
/// namespace.cut_off().await?;
/// // … connections to `addr` hang: no packet says that it is gone …
/// namespace.join().await?;
/// # let _ = addr; Ok(()) }
/// ```
#[derive(Debug)]
pub struct NetworkNamespace {
    name: String,
    outer: String,
    /// The subnet's third byte pair: this side has `.1`, the namespace `.2`.
    net: [u8; 3],
}

/// Distinguishes the namespaces of one process.
static NEXT: AtomicU32 = AtomicU32::new(0);

impl NetworkNamespace {
    /// Checks that the system allows a namespace.
    ///
    /// # Errors
    ///
    /// [`TestkitError::Program`] with the reason if it does not.
    pub async fn available() -> Result<()> {
        Self::create().await.map(drop)
    }

    /// Creates a namespace and joins it to this one.
    ///
    /// # Errors
    ///
    /// As [`available`](Self::available).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the parts that were already made are removed too.
    pub async fn create() -> Result<Self> {
        blocking(|| {
            if !nix::unistd::geteuid().is_root() {
                let output = "a network namespace needs root".to_owned();
                return Err(TestkitError::Program { program: "ip".to_owned(), output });
            }
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let pid = std::process::id();
            let name = format!("pointsman-{pid}-{number}");
            // An interface's name has 15 characters at most.
            let outer = format!("pm{:x}.{:x}", pid & 0xff_ffff, number & 0xff);
            let [_, _, high, low] = (pid.wrapping_mul(31).wrapping_add(number)).to_be_bytes();
            let this = Self { name, outer, net: [10, high, low] };
            ip(&["netns", "add", &this.name])?;
            let peer = ["peer", "name", "inner", "netns", &this.name];
            ip(&[&["link", "add", &this.outer, "type", "veth"][..], &peer].concat())?;
            ip(&["addr", "add", &format!("{}/30", this.addr(1)), "dev", &this.outer])?;
            ip(&["-n", &this.name, "addr", "add", &format!("{}/30", this.addr(2)), "dev", "inner"])?;
            ip(&["-n", &this.name, "link", "set", "inner", "up"])?;
            ip(&["link", "set", &this.outer, "up"])?;
            Ok(this)
        })
        .await
    }

    /// Forwards an address inside the namespace to a local server.
    ///
    /// `port` is the server's port on 127.0.0.1.
    ///
    /// # Errors
    ///
    /// Fails if the system has no thread or no socket for it.
    pub async fn reach(&self, port: u16) -> Result<SocketAddr> {
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let inside = SocketAddr::from((self.addr(2), port));
        let place = Path::new("/run/netns").join(&self.name);
        let network = |doing| move |source| TestkitError::Network { doing, source };
        let (sender, ready) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            // A thread changes its namespace for itself alone. A socket stays in the one it was made in, so the
            // listener is made inside, and the connections to the server outside.
            let listen = || {
                let home = std::fs::File::open("/proc/thread-self/ns/net")?;
                let there = std::fs::File::open(&place)?;
                setns(&there, CloneFlags::CLONE_NEWNET)?;
                let listener = std::net::TcpListener::bind(inside);
                setns(&home, CloneFlags::CLONE_NEWNET)?;
                listener
            };
            let _ = sender.send(listen());
        });
        let listener = match ready.await {
            Ok(listener) => listener.map_err(network("listen in the namespace"))?,
            Err(_) => return Err(TestkitError::ProxyEnded),
        };
        listener.set_nonblocking(true).map_err(network("listen in the namespace"))?;
        let listener =
            tokio::net::TcpListener::from_std(listener).map_err(network("listen in the namespace"))?;
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                tokio::spawn(async move {
                    if let Ok(mut server) = tokio::net::TcpStream::connect(target).await {
                        let _ = (client.set_nodelay(true), server.set_nodelay(true));
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
        Ok(inside)
    }

    /// Takes the interface down: packets vanish in both directions, without an error.
    ///
    /// # Errors
    ///
    /// [`TestkitError::Program`] if the system refuses.
    pub async fn cut_off(&self) -> Result<()> {
        self.set_inner("down").await
    }

    /// Takes the interface up again.
    ///
    /// # Errors
    ///
    /// As [`cut_off`](Self::cut_off).
    pub async fn join(&self) -> Result<()> {
        self.set_inner("up").await
    }

    /// The far end alone.
    ///
    /// This side keeps its route, so that a packet is lost and not refused.
    async fn set_inner(&self, state: &'static str) -> Result<()> {
        let name = self.name.clone();
        blocking(move || ip(&["-n", &name, "link", "set", "inner", state])).await
    }

    fn addr(&self, last: u8) -> Ipv4Addr {
        let [a, b, c] = self.net;
        Ipv4Addr::new(a, b, c, last)
    }
}

impl Drop for NetworkNamespace {
    fn drop(&mut self) {
        // The interfaces of a pair go together.
        let _ = ip(&["link", "del", &self.outer]);
        let _ = ip(&["netns", "del", &self.name]);
    }
}

/// Runs `ip`, and returns its error output if it fails.
fn ip(arguments: &[&str]) -> Result<()> {
    let program = || format!("ip {}", arguments.join(" "));
    let output = Command::new("ip").args(arguments).stdin(Stdio::null()).output();
    let output =
        output.map_err(|error| TestkitError::Program { program: program(), output: error.to_string() })?;
    if output.status.success() {
        return Ok(());
    }
    let output = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(TestkitError::Program { program: program(), output })
}
