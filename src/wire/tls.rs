//! TLS towards the server, as `sslmode` requires.
//!
//! | `sslmode` | encrypted | certificate signed by a known authority | host name matches |
//! |---|---|---|---|
//! | `disable` | no | | |
//! | `prefer` | if the server can | not checked | not checked |
//! | `require` | yes | if `sslrootcert` is given | not checked |
//! | `verify-ca` | yes | yes | not checked |
//! | `verify-full` | yes | yes | yes |
//!
//! Source: PostgreSQL 15 documentation, section 34.19, "SSL Support".

#[cfg(feature = "tls")]
pub(super) use self::with_rustls::{Connector, connector};
#[cfg(not(feature = "tls"))]
pub(super) use self::without::{Connector, connector};

#[cfg(feature = "tls")]
mod with_rustls;

/// Marks an error as one of the handshake.
///
/// tokio-postgres keeps the kind of its errors private.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(super) struct HandshakeFailed(#[from] Box<dyn std::error::Error + Send + Sync>);

impl HandshakeFailed {
    /// Returns `true` if the handshake failed, and not another step.
    pub(super) fn of(error: &tokio_postgres::Error) -> bool {
        std::error::Error::source(error).is_some_and(|source| source.is::<Self>())
    }

    /// Extracts the cause from the driver's error.
    pub(super) fn cause(error: tokio_postgres::Error) -> Box<dyn std::error::Error + Send + Sync> {
        match error.into_source().map(|source| source.downcast::<Self>()) {
            Some(Ok(failed)) => failed.0,
            Some(Err(source)) => source,
            None => "the handshake failed".into(),
        }
    }
}

#[cfg(not(feature = "tls"))]
mod without {
    use tokio_postgres::tls::NoTls;

    use crate::config::TlsSettings;
    use crate::error::ConnectError;

    /// Never built, because the configuration rejects everything that would need it.
    #[derive(Debug)]
    pub(in crate::wire) enum Connector {}

    impl Connector {
        pub(in crate::wire) fn to_host(&self, _host: &str) -> NoTls {
            match *self {}
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "the variant with rustls can fail")]
    pub(in crate::wire) fn connector(_settings: &TlsSettings) -> Result<Option<Connector>, ConnectError> {
        Ok(None)
    }
}
