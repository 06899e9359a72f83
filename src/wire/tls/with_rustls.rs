//! The TLS connector, built on rustls.

use std::error::Error;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::{TlsMode, TlsSettings};
use crate::error::ConnectError;
use crate::wire::ProtocolTap;
use crate::wire::dial::socket::Socket;
use crate::wire::tls::HandshakeFailed;

type RustlsStream = <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream;
type RustlsConnect = <MakeRustlsConnect as MakeTlsConnect<Socket>>::TlsConnect;

/// Opens TLS sessions with one node's settings.
pub(in crate::wire) struct Connector {
    make: MakeRustlsConnect,
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Connector")
    }
}

impl Connector {
    /// The step from a socket to a TLS session with a host.
    pub(in crate::wire) fn to_host(&self, host: &str) -> TapTls {
        let connect = MakeTlsConnect::<Socket>::make_tls_connect(&mut self.make.clone(), host);
        TapTls { connect: connect.map_err(Into::into) }
    }
}

/// Moves the tap from the encrypted stream to the plain one inside.
pub(in crate::wire) struct TapTls {
    connect: Result<RustlsConnect, Box<dyn Error + Send + Sync>>,
}

impl TlsConnect<ProtocolTap<Socket>> for TapTls {
    type Stream = ProtocolTap<RustlsStream>;
    type Error = HandshakeFailed;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Stream, Self::Error>> + Send>>;

    fn connect(self, tap: ProtocolTap<Socket>) -> Self::Future {
        Box::pin(async move {
            let handed_over = || HandshakeFailed("the stream was already handed over".into());
            let (socket, wire) = tap.untap().ok_or_else(handed_over)?;
            let connect = self.connect.map_err(HandshakeFailed)?;
            let stream = TlsConnect::<Socket>::connect(connect, socket).await;
            Ok(ProtocolTap::new(stream.map_err(|error| HandshakeFailed(error.into()))?, wire))
        })
    }
}

/// Reads the certificates and configures the checks; `None` if TLS is off.
pub(in crate::wire) fn connector(settings: &TlsSettings) -> Result<Option<Connector>, ConnectError> {
    if settings.mode == TlsMode::Disable {
        return Ok(None);
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(tls_error)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier::new(settings, provider)?));
    let config = match (&settings.client_certificate, &settings.client_key) {
        (Some(certificate), Some(key)) => {
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| file_error(key, &error))?;
            builder.with_client_auth_cert(certificates(certificate)?, key).map_err(tls_error)?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(Some(Connector { make: MakeRustlsConnect::new(config) }))
}

fn tls_error(error: impl Into<Box<dyn Error + Send + Sync>>) -> ConnectError {
    ConnectError::Tls(error.into())
}

fn file_error(path: &Path, error: &dyn std::fmt::Display) -> ConnectError {
    tls_error(format!("{}: {error}", path.display()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ConnectError> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| file_error(path, &error))
}

/// Checks as much of the server's certificate as `sslmode` requires.
#[derive(Debug)]
struct Verifier {
    /// The check of the chain and the name; `None` if neither is required.
    chain: Option<Arc<WebPkiServerVerifier>>,
    name: bool,
    /// The certificates of `sslrootcert`, one of which may be the server's own.
    pinned: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(settings: &TlsSettings, provider: Arc<CryptoProvider>) -> Result<Self, ConnectError> {
        let name = settings.mode == TlsMode::VerifyFull;
        // As in libpq, `require` with a root certificate checks the chain.
        let chain = match settings.mode {
            TlsMode::Disable | TlsMode::Prefer => false,
            TlsMode::Require => settings.root_certificate.is_some(),
            TlsMode::VerifyCa | TlsMode::VerifyFull => true,
        };
        if !chain {
            return Ok(Self { chain: None, name, pinned: Vec::new(), provider });
        }
        let mut roots = RootCertStore::empty();
        let mut pinned = Vec::new();
        match &settings.root_certificate {
            Some(path) => {
                pinned = certificates(path)?;
                for certificate in &pinned {
                    roots.add(certificate.clone()).map_err(|error| file_error(path, &error))?;
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|_| {
                tls_error("no root certificate to check the server's with: name a file with `sslrootcert`")
            })?;
        Ok(Self { chain: Some(chain), name, pinned, provider })
    }

    /// Checks a certificate that is trusted itself, without an authority above it.
    fn verify_pinned(
        &self,
        certificate: &CertificateDer<'_>,
        server_name: &ServerName<'_>,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if self.name {
            verify_server_name(&ParsedCertificate::try_from(certificate)?, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The chain is checked before the name, so a wrong name means that the chain is good.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.name => Ok(ServerCertVerified::assertion()),
            // `openssl req -x509` makes an authority that is also a server certificate. The check of a chain rejects it
            // after the check of its dates. libpq accepts it if it is in `sslrootcert`, because the user trusts the
            // owner of its key.
            Err(rustls::Error::InvalidCertificate(CertificateError::Other(_)))
                if self.pinned.iter().any(|pinned| pinned.as_ref() == end_entity.as_ref()) =>
            {
                self.verify_pinned(end_entity, server_name)
            }
            outcome => outcome,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
