//! The encryption of a connection, and the certificates that it trusts.

use std::path::PathBuf;

use super::value::spelled;

spelled! {
    /// The encryption that a connection needs, as libpq defines `sslmode`.
    ///
    /// The order is that of strength: `mode >= TlsMode::Require` excludes a plain connection.
    #[derive(PartialOrd, Ord)]
    pub enum TlsMode, "an sslmode", "disable, prefer, require, verify-ca or verify-full" {
        /// Never encrypts.
        Disable = "disable",
        /// Encrypts if the server offers it, and checks no certificate.
        ///
        /// This is the default, as in libpq.
        ///
        /// Without the crate feature `tls` this acts as [`Disable`](TlsMode::Disable).
        Prefer = "prefer",
        /// Always encrypts, and checks no certificate.
        ///
        /// With `sslrootcert` this becomes [`VerifyCa`](TlsMode::VerifyCa), as in libpq.
        Require = "require",
        /// Always encrypts, and checks that the certificate has a trusted issuer.
        VerifyCa = "verify-ca",
        /// Always encrypts, and checks the certificate and its host name.
        VerifyFull = "verify-full",
    }
}

/// The TLS part of a node's URL: `sslmode`, `sslrootcert`, `sslcert`, `sslkey`.
///
/// This struct holds the paths of the files. A [`Config`](super::Config) checks that they can be read and hold PEM,
/// unless `sslmode` is `disable`. The set reads them when it connects, and again at each
/// [`reconfigure`](crate::ReplicaSet::reconfigure).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// The required encryption.
    pub mode: TlsMode,
    /// The certificates of the trusted authorities, in PEM.
    ///
    /// `None` trusts the certificates that the system trusts.
    pub root_certificate: Option<PathBuf>,
    /// The certificate that authenticates the client to the server, in PEM.
    pub client_certificate: Option<PathBuf>,
    /// The private key of `client_certificate`, in PEM.
    pub client_key: Option<PathBuf>,
}

impl Default for TlsSettings {
    fn default() -> Self {
        Self { mode: TlsMode::Prefer, root_certificate: None, client_certificate: None, client_key: None }
    }
}
