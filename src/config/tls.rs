//! How a connection to a server is encrypted and whom it trusts.

use std::path::PathBuf;

/// How much encryption a connection needs, with the meaning that libpq gives to `sslmode`.
///
/// The order is that of strength, so `mode >= TlsMode::Require` asks whether a plain connection
/// is out of the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsMode {
    /// Never encrypts.
    Disable,
    /// Encrypts if the server offers it, and checks no certificate. The default, as in libpq.
    ///
    /// Without the crate feature `tls` this acts as [`Disable`](TlsMode::Disable).
    Prefer,
    /// Always encrypts, and checks no certificate.
    ///
    /// With `sslrootcert` this becomes [`VerifyCa`](TlsMode::VerifyCa), as in libpq.
    Require,
    /// Always encrypts, and checks that the certificate was issued by a trusted authority.
    VerifyCa,
    /// Always encrypts, and checks the certificate and that it is for this host.
    VerifyFull,
}

impl TlsMode {
    pub(crate) const SPELLINGS: &str = "disable, prefer, require, verify-ca or verify-full";

    pub(crate) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "disable" => Self::Disable,
            "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            _ => return None,
        })
    }

    /// The spelling in `sslmode=`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

/// The TLS part of a node's URL: `sslmode`, `sslrootcert`, `sslcert`, `sslkey`.
///
/// The files are named here. A [`Config`](super::Config) checks that they can be read and hold PEM; the nodes read them
/// when the set connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// How much encryption is needed.
    pub mode: TlsMode,
    /// The certificates of the trusted authorities, in PEM; `None` trusts what the system trusts.
    pub root_certificate: Option<PathBuf>,
    /// The certificate to authenticate with towards the server, in PEM.
    pub client_certificate: Option<PathBuf>,
    /// The private key of `client_certificate`, in PEM.
    pub client_key: Option<PathBuf>,
}

impl Default for TlsSettings {
    fn default() -> Self {
        Self {
            mode: super::defaults::TLS_MODE,
            root_certificate: None,
            client_certificate: None,
            client_key: None,
        }
    }
}
