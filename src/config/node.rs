//! One PostgreSQL server, as it is configured.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

#[cfg(feature = "testkit")]
use super::network::{Network, SharedNetwork};
use super::value::spelled;
use super::{ConfigError, ConfigIssue, TimeoutSettings, TlsSettings, url};

spelled! {
    /// The role that a node should have at the start.
    ///
    /// The set makes no decision by this role: it discovers the real role of each node, and follows changes. A
    /// configuration has exactly one primary, so that a forgotten server is noticed.
    pub enum InitialRole, "a role", "primary or replica" {
        /// The server that takes writes.
        Primary = "primary",
        /// A server that follows the primary.
        Replica = "replica",
    }
}

/// A password that neither `Debug` nor an error shows.
#[derive(Clone, Debug)]
pub struct Password(SecretString);

impl Password {
    /// Returns the password itself, for a caller that logs in with it.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl<T: Into<String>> From<T> for Password {
    fn from(password: T) -> Self {
        Self(password.into().into())
    }
}

impl PartialEq for Password {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

/// One PostgreSQL server: where it is, how to log in, and what is known about it.
///
/// Neither `Display` nor `Debug` show the user or the password. Equality includes both.
///
/// ```
/// use pointsman::config::NodeConfig;
///
/// # fn main() -> Result<(), pointsman::ConfigError> {
/// let node = NodeConfig::replica("postgres://app:hunter2@replica-1.example.com/payments")?
///     .with_zone("eu-central-1a")
///     .with_weight(2);
/// assert_eq!(node.name(), "replica-1.example.com:5432");
/// assert_eq!(node.to_string(), "replica-1.example.com:5432/payments");
/// assert!(!format!("{node:?}").contains("hunter2"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq)]
pub struct NodeConfig {
    name: String,
    host: String,
    port: u16,
    password: Option<Password>,
    tls: TlsSettings,
    initial_role: InitialRole,
    zone: Option<String>,
    tags: Vec<String>,
    weight: u32,
    promotable: bool,
    postgres: tokio_postgres::Config,
    user_options: Option<String>,
    /// The network in memory that replaces sockets.
    #[cfg(feature = "testkit")]
    network: Option<SharedNetwork>,
    /// Parameters of the URL, which no setting overrides.
    ///
    /// Empty once the settings are filled in.
    given: Vec<String>,
}

impl NodeConfig {
    /// Parses the URL of the server that should be the primary at the start.
    ///
    /// # Errors
    ///
    /// Fails if the URL is not that of one PostgreSQL server.
    pub fn primary(url: impl AsRef<str>) -> Result<Self, ConfigError> {
        Self::parse("url", url.as_ref(), InitialRole::Primary).map_err(ConfigError::new)
    }

    /// Parses the URL of a server that should be a replica at the start.
    ///
    /// # Errors
    ///
    /// Fails if the URL is not that of one PostgreSQL server.
    pub fn replica(url: impl AsRef<str>) -> Result<Self, ConfigError> {
        Self::parse("url", url.as_ref(), InitialRole::Replica).map_err(ConfigError::new)
    }

    pub(super) fn parse(key: &str, url: &str, initial_role: InitialRole) -> Result<Self, Vec<ConfigIssue>> {
        let url::Parsed { postgres, host, port, options, tls, given } = url::parse(key, url)?;
        let password =
            postgres.get_password().map(|bytes| String::from_utf8_lossy(bytes).into_owned().into());
        Ok(Self {
            name: Self::default_name(&host, port),
            host,
            port,
            password,
            tls,
            initial_role,
            zone: None,
            tags: Vec::new(),
            weight: 1,
            promotable: true,
            postgres,
            user_options: options,
            #[cfg(feature = "testkit")]
            network: None,
            given,
        })
    }

    /// Returns `host:port`, with the brackets that an IPv6 address needs.
    pub(super) fn default_name(host: &str, port: u16) -> String {
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// Sets the name, which is `host:port` otherwise.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets the password, instead of the one in the URL.
    ///
    /// It is not percent-encoded, so a password from a secret store is taken as it is.
    ///
    /// ```
    /// # fn main() -> Result<(), pointsman::ConfigError> {
    /// let node = pointsman::config::NodeConfig::primary("postgres://app@db-1/payments")?.with_password("p@ss/word");
    /// assert!(node.password().is_some());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn with_password(mut self, password: impl Into<Password>) -> Self {
        let password = password.into();
        self.postgres.password(password.expose());
        self.password = Some(password);
        self
    }

    /// Sets the zone that the node is in.
    #[must_use]
    pub fn with_zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = Some(zone.into());
        self
    }

    /// Sets the tags: words that appear with the node in the topology.
    #[must_use]
    pub fn with_tags<T: Into<String>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.tags = tags.into_iter().map(Into::into).collect();
        self
    }

    /// Sets whether the node may be the primary.
    ///
    /// Use `false` for a delayed or reporting replica.
    ///
    /// If such a node is promoted anyway, the set fences it. It then neither conflicts with the primary nor makes
    /// the primary stale. (Patroni calls the setting `nofailover`.)
    #[must_use]
    pub fn with_promotable(mut self, promotable: bool) -> Self {
        self.promotable = promotable;
        self
    }

    /// Sets the share of the reads, relative to the weights of the other nodes.
    #[must_use]
    pub fn with_weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// Returns the unique name, which is `host:port` by default.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the host name or address, or the directory of the Unix socket.
    ///
    /// The directory starts with `/`.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns the port, or the number at the end of a Unix socket's file name.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns `host:port`, the key of a server under any node name.
    pub(crate) fn server_key(&self) -> Arc<str> {
        Self::default_name(&self.host.to_lowercase(), self.port).into()
    }

    /// Returns the user to log in as; `None` is the user that runs the program.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.postgres.get_user()
    }

    /// Returns the password, if there is one.
    #[must_use]
    pub fn password(&self) -> Option<&Password> {
        self.password.as_ref()
    }

    /// Returns the database; `None` is the one with the name of the user.
    #[must_use]
    pub fn database(&self) -> Option<&str> {
        self.postgres.get_dbname()
    }

    /// Returns the encryption of the connection.
    #[must_use]
    pub fn tls(&self) -> &TlsSettings {
        &self.tls
    }

    /// Returns the configured role; the set itself uses the discovered one.
    #[must_use]
    pub fn initial_role(&self) -> InitialRole {
        self.initial_role
    }

    /// Returns the zone that the node is in.
    #[must_use]
    pub fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }

    /// Returns the tags of the node.
    #[must_use]
    pub fn tags(&self) -> &[String] {
        &self.tags
    }

    /// Returns `true` if the node may be the primary.
    #[must_use]
    pub fn promotable(&self) -> bool {
        self.promotable
    }

    /// Returns the share of the reads, at least 1, relative to other nodes.
    #[must_use]
    pub fn weight(&self) -> u32 {
        self.weight
    }

    /// Returns `true` if both nodes have the same name, server and database.
    pub(crate) fn is_same_server(&self, other: &Self) -> bool {
        let place = |node: &Self| (node.name.clone(), node.host.to_lowercase(), node.port);
        place(self) == place(other)
            && self.database() == other.database()
            && self.postgres.get_hostaddrs() == other.postgres.get_hostaddrs()
    }

    /// Returns `true` if the sessions of both nodes are set up in the same way.
    pub(crate) fn has_same_sessions(&self, other: &Self) -> bool {
        self.is_same_server(other)
            && self.tls == other.tls
            && self.user_options == other.user_options
            && self.postgres == other.postgres
    }

    /// Returns the tokio-postgres configuration, without `options`.
    ///
    /// Each kind of session sets its own `options`.
    pub(crate) fn postgres(&self) -> &tokio_postgres::Config {
        &self.postgres
    }

    /// Returns the `options` of the URL, which come before those of the session.
    pub(crate) fn user_options(&self) -> Option<&str> {
        self.user_options.as_deref()
    }

    /// Returns the network in memory that replaces sockets, if there is one.
    #[cfg(feature = "testkit")]
    pub(crate) fn network(&self) -> Option<&dyn Network> {
        self.network.as_ref().map(|network| &*network.0)
    }

    /// Returns the same node behind a local port, without TLS.
    #[cfg(feature = "testkit")]
    pub(crate) fn behind(&self, port: u16) -> Self {
        let mut node =
            Self { host: "127.0.0.1".to_owned(), port, initial_role: InitialRole::Primary, ..self.clone() };
        node.promotable = true;
        node.tls = TlsSettings { mode: super::TlsMode::Disable, ..TlsSettings::default() };
        node.postgres.channel_binding(tokio_postgres::config::ChannelBinding::Disable);
        node
    }

    /// Replaces the sockets to the node by a network in memory.
    #[cfg(feature = "testkit")]
    pub(super) fn over(mut self, network: &Arc<dyn Network>) -> Self {
        self.network = Some(SharedNetwork(Arc::clone(network)));
        self
    }

    /// Fills in the settings for the parameters that the node's URL leaves open.
    pub(super) fn completed(mut self, application_name: &str, timeouts: &TimeoutSettings) -> Self {
        let (postgres, given) = (&mut self.postgres, std::mem::take(&mut self.given));
        let open = |name: &str| !given.iter().any(|given| given == name);
        if open("application_name") {
            postgres.application_name(application_name);
        }
        // tokio-postgres limits each attempt by this, and the caller limits the whole by `connect`.
        let own = postgres.get_connect_timeout().copied().filter(|own| !own.is_zero());
        postgres.connect_timeout(own.map_or(timeouts.connect, |own: Duration| own.min(timeouts.connect)));
        if open("keepalives_idle") {
            postgres.keepalives_idle(timeouts.tcp_keepalive_idle);
        }
        if open("keepalives_interval") {
            postgres.keepalives_interval(timeouts.tcp_keepalive_interval);
        }
        if open("keepalives_retries") {
            postgres.keepalives_retries(timeouts.tcp_keepalive_retries);
        }
        if open("tcp_user_timeout") {
            postgres.tcp_user_timeout(timeouts.tcp_user_timeout);
        }
        self
    }
}

impl fmt::Display for NodeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Self::default_name(&self.host, self.port))?;
        match self.database() {
            Some(database) => write!(f, "/{database}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for NodeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeConfig")
            .field("name", &self.name)
            .field("server", &format_args!("{self}"))
            .field("password", &self.password)
            .field("tls", &self.tls)
            .field("initial_role", &self.initial_role)
            .field("zone", &self.zone)
            .field("tags", &self.tags)
            .field("weight", &self.weight)
            .field("promotable", &self.promotable)
            .finish_non_exhaustive()
    }
}
