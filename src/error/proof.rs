//! The evidence that a failed attempt to connect gives about the server.
//!
//! A failed login does not prove that the server is down. Working sessions must not be closed because a password was
//! changed, a certificate expired, or this program has no file descriptor left. A port on which no process listens is
//! proof. So each error is classified by its evidence, and only by its kind or SQLSTATE.

use std::error::Error as StdError;
use std::io::{self, ErrorKind};

use diesel::result::{DatabaseErrorKind, Error as DieselError};

use super::ConnectError;

/// The evidence of a failed attempt to connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    /// The server answered, even if with a rejection: it is alive.
    Alive,
    /// The port is closed, or there is no such socket file: the server is down.
    NotListening,
    /// The attempt failed on this machine, before anything reached the server.
    NotAsked,
    /// No answer arrived, or the network path is broken: the server may be down.
    Silence,
}

/// Linux errors for a lack of descriptors, ports or buffers.
///
/// EAGAIN, ENFILE, EMFILE and ENOBUFS.
///
/// The standard library has no kind for them.
const OWN_SHORTAGE: [i32; 4] = [11, 23, 24, 105];

impl ConnectError {
    /// Returns what the error proves about the server.
    pub(crate) fn proof(&self) -> Proof {
        match self {
            Self::LoginRejected { .. }
            | Self::PasswordMissing(_)
            | Self::TooManyConnections(_)
            | Self::NotReady(_) => Proof::Alive,
            // A session began, but to an unexpected server or in an unexpected state.
            Self::WrongServer { .. } | Self::InRecovery | Self::NotReadOnly | Self::SharedByPooler => {
                Proof::Alive
            }
            Self::NameNotResolved(_) | Self::Abandoned => Proof::NotAsked,
            Self::Unreachable(error) => of_socket(error),
            Self::TimedOut { .. } => Proof::Silence,
            // The client checks the certificate after the server has shown it.
            Self::Tls(error) => {
                if was_cut(error.as_ref()) {
                    Proof::Silence
                } else {
                    Proof::Alive
                }
            }
            Self::Protocol(error) if error.code().is_some() => Proof::Alive,
            // All other errors were found in the server's bytes, or in its request for a password.
            Self::Protocol(error) if error.is_closed() || was_cut(error) => Proof::Silence,
            Self::Protocol(_) => Proof::Alive,
            Self::Setup(diesel::ConnectionError::CouldntSetupConfiguration(DieselError::DatabaseError(
                kind,
                _,
            ))) if !matches!(
                kind,
                DatabaseErrorKind::UnableToSendCommand | DatabaseErrorKind::ClosedConnection
            ) =>
            {
                Proof::Alive
            }
            Self::Setup(_) => Proof::Silence,
        }
    }
}

/// Returns what an error of the socket proves.
pub(super) fn of_socket(error: &io::Error) -> Proof {
    match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::NotFound => Proof::NotListening,
        ErrorKind::AddrNotAvailable | ErrorKind::PermissionDenied | ErrorKind::OutOfMemory => Proof::NotAsked,
        _ if error.raw_os_error().is_some_and(|code| OWN_SHORTAGE.contains(&code)) => Proof::NotAsked,
        _ => Proof::Silence,
    }
}

/// Returns `true` if any cause in the chain is a connection's sudden end.
fn was_cut(error: &(dyn StdError + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        // A library reports invalid bytes with an error of this type as well.
        let found = |io: &io::Error| matches!(io.kind(), ErrorKind::InvalidData | ErrorKind::InvalidInput);
        if error.downcast_ref::<io::Error>().is_some_and(|io| !found(io)) {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_postgres::NoTls;

    use super::*;

    /// Returns the error of a session whose server reads the first message, sends `answer` and closes.
    async fn answered(answer: &[u8]) -> ConnectError {
        let (client, mut server) = tokio::io::duplex(4096);
        let serve = async {
            let mut first = [0; 1024];
            let _ = server.read(&mut first).await;
            let _ = server.write_all(answer).await;
            drop(server);
        };
        let mut config = tokio_postgres::Config::new();
        config.user("app").password("sesame");
        let (outcome, ()) = tokio::join!(config.connect_raw(client, NoTls), serve);
        outcome.map(drop).expect_err("it is refused").into()
    }

    async fn refused_with(sqlstate: &str) -> ConnectError {
        let fields = format!("SFATAL\0VFATAL\0C{sqlstate}\0Mno\0\0");
        let length = u32::try_from(fields.len() + 4).expect("a short message").to_be_bytes();
        answered(&[b"E", &length[..], fields.as_bytes()].concat()).await
    }

    fn socket(error: impl Into<io::Error>) -> ConnectError {
        ConnectError::Unreachable(error.into())
    }

    #[tokio::test]
    async fn every_code_of_the_server_proves_it_alive() {
        for code in [
            "53300", "53200", "53100", "28000", "28P01", "3D000", "42501", "55000", "57P03", "0A000", "XX000",
        ] {
            assert_eq!(refused_with(code).await.proof(), Proof::Alive, "{code}");
        }
    }

    /// A write that opened a session during a planned switchover failed at once, as if the login had been rejected.
    #[tokio::test]
    async fn a_server_that_shuts_down_does_not_refuse_the_login() {
        for code in ["57P01", "57P02", "57P03"] {
            let error = refused_with(code).await;
            assert!(matches!(error, ConnectError::NotReady(_)) && !error.is_refusal(), "{code}: {error:?}");
        }
    }

    /// Rights to a database, or its settings, can also be the reason for a rejected login.
    #[tokio::test]
    async fn a_database_that_allows_no_connections_rejects_the_login() {
        for code in ["28000", "28P01", "3D000", "42501", "55000"] {
            let error = refused_with(code).await;
            assert!(
                matches!(&error, ConnectError::LoginRejected { sqlstate, .. } if sqlstate.to_string() == code),
                "{error:?}"
            );
        }
    }

    #[tokio::test]
    async fn bytes_that_are_no_answer_of_postgres_prove_something_alive_and_silence_proves_nothing() {
        assert_eq!(answered(b"R\0\0\0\x08\0\0\0\x63").await.proof(), Proof::Alive);
        assert_eq!(answered(b"").await.proof(), Proof::Silence);
    }

    #[tokio::test]
    async fn a_name_that_does_not_resolve_says_nothing_about_the_server() {
        let error =
            tokio::net::lookup_host("no-such-host.invalid:5432").await.map(drop).expect_err("no such host");
        assert_eq!(ConnectError::NameNotResolved(error).proof(), Proof::NotAsked);
    }

    #[test]
    fn errors_of_the_socket_are_told_apart() {
        let os = io::Error::from_raw_os_error;
        // By their numbers on Linux.
        let (emfile, enfile, enobufs, eaddrnotavail) = (os(24), os(23), os(105), os(99));
        let (enetunreach, ehostunreach, etimedout, econnreset) = (os(101), os(113), os(110), os(104));
        let (econnrefused, enoent, eacces) = (os(111), os(2), os(13));
        let table = [
            (vec![econnrefused, enoent], Proof::NotListening),
            (vec![emfile, enfile, enobufs, eaddrnotavail, eacces], Proof::NotAsked),
            (vec![enetunreach, ehostunreach, etimedout, econnreset], Proof::Silence),
        ];
        for (errors, proof) in table {
            for error in errors {
                let text = error.to_string();
                assert_eq!(socket(error).proof(), proof, "{text}");
            }
        }
    }

    #[test]
    fn a_handshake_that_reached_the_server_proves_it_alive() {
        let tls = |error: io::Error| ConnectError::Tls(error.into()).proof();
        assert_eq!(tls(io::Error::new(ErrorKind::InvalidData, "certificate expired")), Proof::Alive);
        assert_eq!(ConnectError::Tls("the server does not offer TLS".into()).proof(), Proof::Alive);
        assert_eq!(tls(ErrorKind::UnexpectedEof.into()), Proof::Silence);
        assert_eq!(tls(ErrorKind::ConnectionReset.into()), Proof::Silence);
    }

    #[test]
    fn the_set_s_own_limits_prove_nothing() {
        let limit = Duration::from_secs(2);
        assert_eq!(ConnectError::TimedOut { limit }.proof(), Proof::Silence);
        assert_eq!(ConnectError::Abandoned.proof(), Proof::NotAsked);
    }
}
