//! `pointsman serve`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use pointsman::payments::Asset;
use pointsman::payments::http::{Service, Settings};
use pointsman::{Config, ReplicaSet};
use tokio::net::TcpListener;
use tokio::signal::unix::Signal;

use super::failure::{Failure, Outcome};
use super::servers;
use super::signals::{self, End};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The address to serve on; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:3000", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Also listens here for an operator's commands (`pointsman forget-history`); a loopback address.
    #[arg(long, value_name = "ADDRESS", value_parser = loopback)]
    admin: Option<SocketAddr>,
    /// Starts a primary with this many replicas, and removes them at the end.
    #[arg(long, value_name = "REPLICAS")]
    with_cluster: Option<usize>,
    /// Applies the migrations first. A temporary cluster is always migrated.
    #[arg(long)]
    migrate: bool,
    /// The assets that are accepted, separated by commas, instead of ISO 4217 and some tokens.
    #[arg(long, value_delimiter = ',', value_name = "ASSETS")]
    assets: Vec<Asset>,
}

/// The endpoints of this listener have no authentication, so no other machine may reach them.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr =
        text.parse().map_err(|_| "write an address such as 127.0.0.1:3001".to_owned())?;
    match address.ip().is_loopback() {
        true => Ok(address),
        false => {
            Err("it has no authentication, so it must be a loopback address such as 127.0.0.1:3001"
                .to_owned())
        }
    }
}

pub(super) async fn run(file: Option<&Path>, arguments: Arguments) -> Outcome {
    let mut end = End::listen()?;
    let reload = signals::reload()?;
    let ended_early = || Failure::failed(anyhow::anyhow!("ended before the service was up"));
    let prepared = tokio::select! {
        prepared = prepare(file, &arguments) => prepared?,
        _ = end.asked() => return Err(ended_early()),
    };
    let (set, cluster, listener, admin) = prepared;

    let mut settings = Settings::default();
    if !arguments.assets.is_empty() {
        settings.assets = BTreeSet::from_iter(arguments.assets);
    }
    // A temporary cluster is not in any file that could have changed.
    let reloads = match cluster {
        Some(_) => None,
        None => {
            Some(tokio::spawn(reload_on_hangup(reload, set.clone(), file.map(Path::to_owned))).abort_handle())
        }
    };
    let service = Service::with_settings(set.clone(), settings);
    let router = service.admin_router();
    let admin = admin.map(|listener| tokio::spawn(async move { axum::serve(listener, router).await }));
    let stop = async move {
        let signal = end.asked().await;
        tracing::info!(signal, "finishing what is in flight");
        // A second signal means that the user does not want to wait.
        tokio::spawn(async move {
            let signal = end.asked().await;
            tracing::warn!(signal, "asked again: ending at once");
            std::process::exit(1);
        });
    };
    let served = service.serve(listener, stop).await;
    for task in [reloads, admin.map(|admin| admin.abort_handle())].into_iter().flatten() {
        task.abort();
    }
    servers::close(&set).await;
    drop(cluster);
    served.context("the service ended")?;
    tracing::info!("ended");
    Ok(())
}

/// The state that must exist before the first request.
async fn prepare(
    file: Option<&Path>,
    arguments: &Arguments,
) -> Outcome<(ReplicaSet, Option<servers::OwnCluster>, TcpListener, Option<TcpListener>)> {
    // First, because it fails fast: a port in use should not cost a start of servers.
    let listener = TcpListener::bind(arguments.listen).await.with_context(|| {
        format!("cannot listen on {}: choose another address with --listen", arguments.listen)
    })?;
    let admin =
        match arguments.admin {
            Some(address) => Some(TcpListener::bind(address).await.with_context(|| {
                format!("cannot listen on {address}: choose another address with --admin")
            })?),
            None => None,
        };
    let (set, cluster) = match arguments.with_cluster {
        Some(replicas) => {
            tracing::info!(replicas, "starting a cluster");
            let (set, cluster) = servers::start_own(replicas).await?;
            (set, Some(cluster))
        }
        None => (servers::connect(file).await?, None),
    };
    if arguments.migrate || cluster.is_some() {
        // The log has each pending one already.
        servers::migrate(&set).await?;
    }
    let address = listener.local_addr().context("the address cannot be told")?;
    for node in &set.topology().nodes {
        tracing::info!(node = node.name, address = node.address, role = %node.role, health = %node.health, "node");
    }
    tracing::info!("listening on http://{address}");
    if let Some(admin) = &admin {
        let address = admin.local_addr().context("the address cannot be told")?;
        tracing::info!("an operator's commands are taken on http://{address}");
    }
    Ok((set, cluster, listener, admin))
}

/// Reloads the configuration on each SIGHUP. A faulty one changes nothing.
async fn reload_on_hangup(mut reload: Signal, set: ReplicaSet, file: Option<PathBuf>) {
    while reload.recv().await.is_some() {
        let config = match file.as_deref().map_or_else(Config::from_env, Config::from_file) {
            Ok(config) => config,
            Err(error) => {
                tracing::error!(%error, "SIGHUP: the configuration stays as it was");
                continue;
            }
        };
        match set.reconfigure(config).await {
            Ok(change) => {
                tracing::info!(added = ?change.added, changed = ?change.changed, removed = ?change.removed, "SIGHUP: the nodes are reconfigured");
            }
            Err(error) => tracing::error!(%error, "SIGHUP: the configuration stays as it was"),
        }
    }
}
