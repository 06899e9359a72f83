//! The network between the set and the simulated servers.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use pointsman::testkit::simulation::{Connecting, Network, NetworkStream};
use tokio::time::sleep;

use self::pipe::pipe;
use crate::server::cluster::Cluster;
use crate::server::connection::serve;
use crate::server::node::Power;

pub(crate) mod pipe;

/// The network to a cluster, whose hosts are `n0`, `n1`, …
pub(crate) struct SimulatedNetwork(pub(crate) Cluster);

impl SimulatedNetwork {
    async fn open(&self, host: &str) -> io::Result<NetworkStream> {
        let node: usize = host.strip_prefix('n').and_then(|node| node.parse().ok()).expect("a node");
        let slowness = self.0.lock().nodes[node].slowness;
        sleep(Duration::from_millis(1) + slowness).await;
        loop {
            let changed = self.0.changed();
            {
                let mut state = self.0.lock();
                let this = &state.nodes[node];
                if !this.lost && !this.partitioned {
                    if this.power == Power::Down {
                        return Err(io::ErrorKind::ConnectionRefused.into());
                    }
                    let slowness = this.slowness;
                    let rng = state.rng.fork();
                    let (link, client, server) = pipe(Arc::clone(self.0.observer()), slowness, rng);
                    state.links.push((node, Arc::downgrade(&link)));
                    drop(state);
                    tokio::spawn(serve(self.0.clone(), node, server));
                    return Ok(NetworkStream::new(client));
                }
            }
            // Nothing answers.
            changed.await;
        }
    }
}

impl Network for SimulatedNetwork {
    fn connect<'n>(&'n self, host: &'n str, _port: u16) -> Connecting<'n> {
        Box::pin(self.open(host))
    }
}
