//! The payments repository as an HTTP service.
//!
//! It shows the crate's purpose in one program: writes go to the primary, reads to the replicas, and each answer names
//! the node that served it. [The guide](crate::guide::api) has the endpoints, with examples for `curl`.
//!
//! * [`Service`]: the state of all handlers; makes the router and serves it
//! * [`Settings`]: limits, and the assets that are known
//! * `transactions`, `accounts`, `settlements`, `audit`: the endpoints
//! * `health`: liveness, readiness, and the state of the nodes
//! * `admin`: an operator's decisions, on a separate listener
//! * `page`: the nodes, for people
//! * `server`: accepts connections, and limits what each may take
//! * `error`: every failure as JSON with a stable code
//! * `extract`, `served`, `layers`: shared by all endpoints
//!
//! ```no_run
//! use pointsman::payments::http::Service;
//! use pointsman::{Config, ReplicaSet};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let service = Service::new(ReplicaSet::connect(Config::from_env()?).await?);
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
//! service.serve(listener, async { tokio::signal::ctrl_c().await.unwrap_or_default() }).await?;
//! # Ok(())
//! # }
//! ```

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

pub use self::admin::ADMIN_HEADER;
pub use self::health::{Availability, Health, Readiness};
pub use self::settings::{KNOWN_ASSETS, Settings};
use crate::ReplicaSet;

mod accounts;
mod admin;
mod audit;
mod error;
mod extract;
mod health;
mod layers;
mod page;
mod served;
mod server;
mod settings;
mod settlements;
mod transactions;

/// The service: a replica set, and its HTTP layer.
///
/// It is cheap to clone; all clones are one service.
#[derive(Clone, Debug)]
pub struct Service {
    set: ReplicaSet,
    settings: Arc<Settings>,
    /// `true` if the service is ending, so that load balancers send no more requests.
    draining: Arc<AtomicBool>,
}

impl Service {
    /// Creates a service with the default settings.
    pub fn new(set: ReplicaSet) -> Self {
        Self::with_settings(set, Settings::default())
    }

    /// Creates a service with other settings.
    pub fn with_settings(set: ReplicaSet, settings: Settings) -> Self {
        Self { set, settings: Arc::new(settings), draining: Arc::default() }
    }

    /// Returns all endpoints, to be served alone or inside a larger program.
    pub fn router(&self) -> Router {
        let status = Router::new()
            .route("/", get(page::page))
            .route("/live", get(health::live))
            .route("/ready", get(health::ready))
            .route("/health", get(health::health));
        let data = Router::new()
            .route("/callbacks", post(transactions::callback))
            .route("/transactions", get(transactions::list).post(transactions::create))
            .route("/transactions/{id}", get(transactions::find))
            .route("/transactions/{id}/status", post(transactions::advance))
            .route("/accounts/{account}/balances", get(accounts::balances))
            .route("/accounts/{account}/balances/{asset}", get(accounts::balance))
            .route("/totals", get(accounts::totals))
            .route("/settlements", get(settlements::list).post(settlements::create))
            .route("/settlements/{id}", get(settlements::find))
            .route("/settlements/{id}/paid", post(settlements::paid))
            .route("/audit", get(audit::list))
            .route_layer(layers::session(&self.set));
        let routes = status.merge(data).with_state(self.clone());
        layers::around(routes, &self.settings)
    }

    /// Serves until `stop` completes, and then finishes the requests in flight.
    ///
    /// From `stop` on, no connection is accepted and `/ready` answers 503. Requests in flight have
    /// [`Settings::drain_timeout`] to end; a connection without one ends within a second. The set is not closed, because it may have other users.
    ///
    /// # Errors
    ///
    /// [`TimedOut`](io::ErrorKind::TimedOut) if requests were still in flight at the end of that time.
    ///
    /// # Cancel safety
    ///
    /// A dropped future cuts off the requests in flight.
    pub async fn serve(
        self,
        listener: TcpListener,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let (stopped, is_stopped) = oneshot::channel();
        let draining = Arc::clone(&self.draining);
        let stop = async move {
            stop.await;
            draining.store(true, Ordering::Release);
            // The receiver is gone if the server ended by itself.
            let _ = stopped.send(());
        };
        let limit = self.settings.drain_timeout;
        let served = server::serve(listener, self.router(), &self.settings, stop);
        let bound = async {
            match is_stopped.await {
                Ok(()) => tokio::time::sleep(limit).await,
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            () = served => Ok(()),
            () = bound => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("requests were still in flight {limit:?} after the end was asked for: they are cut off"),
            )),
        }
    }
}
