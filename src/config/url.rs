//! One server from one PostgreSQL URL.
//!
//! tokio-postgres parses the URL, after what it does not know was taken out (`sslrootcert`, the
//! stronger `sslmode`s) and what would be read differently here than by libpq was refused. Its
//! errors are not shown, because some of them quote the URL.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use tokio_postgres::config::Host;

use super::{ConfigIssue, TlsMode, TlsSettings};

/// What one URL says.
pub(super) struct Parsed {
    pub(super) postgres: tokio_postgres::Config,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) options: Option<String>,
    pub(super) tls: TlsSettings,
    /// The query parameters that were given, so that a default doesn't overwrite them.
    pub(super) given: Vec<String>,
}

const EXAMPLE: &str = "write it as postgres://user:password@host:5432/database";
const ENCODE: &str = "percent-encode special characters in the user name and the password: `@` is %40, `/` is %2F, \
     `?` is %3F, `:` is %3A, `%` is %25";

/// The parameters that tokio-postgres understands and that may vary here.
const PASSED_ON: &[&str] = &[
    "user",
    "password",
    "dbname",
    "host",
    "hostaddr",
    "port",
    "application_name",
    "connect_timeout",
    "tcp_user_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "channel_binding",
    "sslnegotiation",
];

const TAKEN_OUT: &[&str] = &["sslmode", "sslrootcert", "sslcert", "sslkey", "options"];

pub(super) fn parse(key: &str, url: &str) -> Result<Parsed, Vec<ConfigIssue>> {
    let url = url.trim();
    let mut faults = Vec::new();
    if url.starts_with(['\'', '"']) {
        let remedy = "remove the quotes: some readers of .env files (docker run --env-file) keep them";
        return Err(vec![ConfigIssue::new(key, "has quotes around it", remedy)]);
    }
    let Some(rest) = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://")) else {
        return Err(vec![ConfigIssue::new(key, "is not a PostgreSQL URL", EXAMPLE)]);
    };
    if rest.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(vec![ConfigIssue::new(
            key,
            "has a space or a control character in it",
            format!("remove it, or write %20 for a space; {ENCODE}"),
        )]);
    }
    if ambiguous(rest) {
        return Err(vec![ConfigIssue::new(
            key,
            "has an `@`, `/` or `?` where it ends the password early",
            ENCODE,
        )]);
    }

    let (location, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = location.split('/').next().unwrap_or_default();
    if authority.ends_with(':') {
        // Without an `@` this is likely a user and a password, and what follows is part of the latter.
        faults.push(ConfigIssue::new(key, "has a `:` without a port", format!("{EXAMPLE}; {ENCODE}")));
    }
    let database = location.split_once('/').map_or("", |(_, database)| database);
    if database.contains(['/', ',']) {
        faults.push(ConfigIssue::new(
            key,
            "has a `/` or a `,` in the name of the database",
            "write %2F or %2C if it belongs to the name; separate several URLs by a comma, each with its postgres://",
        ));
    }

    let mut tls = Tls::default();
    let mut options = None;
    let mut given = Vec::new();
    let mut passed_on = Vec::new();
    // Without `@`, a `:` may be that of a user and a password, whose `?` then ends the location early.
    let mut named = authority.contains('@') || !authority.contains(':');
    for (index, pair) in query.split('&').filter(|pair| !pair.is_empty()).enumerate() {
        let Some((name, value)) = pair.split_once('=') else {
            faults.push(ConfigIssue::new(
                key,
                "has a parameter without `=`",
                "write `?name=value&name=value`",
            ));
            continue;
        };
        let Ok(decoded) = percent_decode_str(value).decode_utf8() else {
            faults.push(ConfigIssue::new(key, "has a parameter that is not UTF-8", "encode it as UTF-8"));
            continue;
        };
        match name {
            "options" => options = Some(decoded.into_owned()),
            name if TAKEN_OUT.contains(&name) => tls.set(key, name, &decoded, &mut faults),
            name if PASSED_ON.contains(&name) => passed_on.push(pair),
            name => {
                let shown = named && looks_like_a_parameter(name);
                faults.push(unknown_parameter(key, index + 1, name, shown));
            }
        }
        // A `&` in a password makes what follows it look like a parameter.
        named &= name != "password" && (TAKEN_OUT.contains(&name) || PASSED_ON.contains(&name));
        given.push(name.to_owned());
    }

    let plain = format!("postgres://{location}?{}", passed_on.join("&"));
    let mut postgres = match plain.parse::<tokio_postgres::Config>() {
        Ok(postgres) => postgres,
        Err(error) => {
            faults.push(ConfigIssue::new(key, rejection(&error), format!("{EXAMPLE}; {ENCODE}")));
            return Err(faults);
        }
    };
    let place = place(key, &postgres, &mut faults);
    if postgres.get_password().is_some_and(|password| str::from_utf8(password).is_err()) {
        faults.push(ConfigIssue::new(key, "has a password that is not UTF-8", "percent-encode it as UTF-8"));
    }
    let socket = postgres.get_hosts().iter().any(|host| matches!(host, Host::Unix(_)));
    let tls = tls.finish(key, socket, &mut faults);
    postgres.ssl_mode(negotiated(tls.mode));
    match place {
        Some((host, port)) if faults.is_empty() => Ok(Parsed { postgres, host, port, options, tls, given }),
        _ => Err(faults),
    }
}

/// Whether part of a password would be taken for a host, a path or a parameter.
fn ambiguous(rest: &str) -> bool {
    match rest.find('@') {
        Some(at) => rest[at + 1..].contains('@') || rest[..at].contains(['/', '?']),
        None => false,
    }
}

/// Returns `true` if a parameter could have this name: words, with underscores between them.
fn looks_like_a_parameter(name: &str) -> bool {
    (1..=40).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_')
}

/// The fault of a parameter that isn't known. Its name is shown only if no part of a password can be in its place.
fn unknown_parameter(key: &str, number: usize, name: &str, shown: bool) -> ConfigIssue {
    if let "target_session_attrs" | "load_balance_hosts" = name {
        return ConfigIssue::new(
            key,
            format!("has `{name}`, which contradicts what this crate does"),
            "remove it: roles are discovered, and reads are balanced over the nodes",
        );
    }
    let remedy = match super::nearest(name, PASSED_ON.iter().chain(TAKEN_OUT).copied()) {
        Some(near) => format!("did you mean `{near}`? Otherwise remove it"),
        None => "remove it; docs/configuration.md lists the parameters that exist".to_owned(),
    };
    let problem = if shown {
        format!("has an unknown parameter `{name}`")
    } else {
        format!("has an unknown parameter (number {number} after the `?`)")
    };
    ConfigIssue::new(key, problem, remedy)
}

/// What tokio-postgres found, as far as it is known not to quote the URL.
fn rejection(error: &tokio_postgres::Error) -> String {
    use std::error::Error as _;
    let source = error.source().map(ToString::to_string).unwrap_or_default();
    PASSED_ON
        .iter()
        .find(|name| source == format!("invalid value for option `{name}`"))
        .map_or_else(|| "cannot be understood".to_owned(), |name| format!("has an invalid {name}"))
}

/// The one host and port, with what is wrong about them.
fn place(
    key: &str,
    postgres: &tokio_postgres::Config,
    faults: &mut Vec<ConfigIssue>,
) -> Option<(String, u16)> {
    let (hosts, ports) = (postgres.get_hosts(), postgres.get_ports());
    if hosts.len() > 1 || ports.len() > 1 || postgres.get_hostaddrs().len() > 1 {
        faults.push(ConfigIssue::new(
            key,
            "names several hosts",
            "give each server a URL of its own (one node per server): replicas go to DATABASE_REPLICA_URL, \
             separated by commas",
        ));
        return None;
    }
    let host = match hosts {
        [Host::Tcp(host)] if host.is_empty() => None,
        [Host::Tcp(host)] if host.chars().all(|c| c.is_alphanumeric() || ".-_:%".contains(c)) => {
            Some(host.clone())
        }
        [Host::Unix(directory)] if directory.to_str().is_some_and(|d| !d.contains(char::is_control)) => {
            directory.to_str().map(str::to_owned)
        }
        [_, ..] => {
            faults.push(ConfigIssue::new(key, "has a host with a character that no host has", ENCODE));
            return None;
        }
        [] => postgres.get_hostaddrs().first().map(ToString::to_string),
    };
    let Some(host) = host else {
        faults.push(ConfigIssue::new(
            key,
            "names no host",
            format!("{EXAMPLE}; for a Unix socket postgres:///database?host=/directory"),
        ));
        return None;
    };
    let port = ports.first().copied().unwrap_or(5432);
    if port == 0 {
        faults.push(ConfigIssue::new(key, "has the port 0", "leave the port out for 5432"));
        return None;
    }
    Some((host, port))
}

/// What tokio-postgres has to ask the server for; the rest is up to the TLS connector.
fn negotiated(mode: TlsMode) -> tokio_postgres::config::SslMode {
    use tokio_postgres::config::SslMode;
    match mode {
        TlsMode::Disable => SslMode::Disable,
        TlsMode::Prefer if cfg!(feature = "tls") => SslMode::Prefer,
        TlsMode::Prefer => SslMode::Disable,
        TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => SslMode::Require,
    }
}

/// The TLS parameters as they were given.
#[derive(Default)]
struct Tls {
    mode: Option<TlsMode>,
    root: Option<String>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl Tls {
    fn set(&mut self, key: &str, name: &str, value: &str, faults: &mut Vec<ConfigIssue>) {
        if value.is_empty() {
            faults.push(ConfigIssue::new(
                key,
                format!("has an empty `{name}`"),
                "give it a value, or remove it",
            ));
            return;
        }
        match name {
            "sslmode" => match TlsMode::parse(value) {
                Some(mode) => self.mode = Some(mode),
                None => faults.push(ConfigIssue::new(
                    key,
                    "has an unknown `sslmode`",
                    format!("use {}", TlsMode::SPELLINGS),
                )),
            },
            "sslrootcert" => self.root = Some(value.to_owned()),
            "sslcert" => self.certificate = Some(value.into()),
            _ => self.key = Some(value.into()),
        }
    }

    /// Applies libpq's rules for the parameters together.
    fn finish(self, key: &str, socket: bool, faults: &mut Vec<ConfigIssue>) -> TlsSettings {
        let system = self.root.as_deref() == Some("system");
        let mode = match self.mode {
            // A Unix socket has no TLS; libpq ignores `sslmode` for it.
            _ if socket => TlsMode::Disable,
            None if system => TlsMode::VerifyFull,
            None => super::defaults::TLS_MODE,
            Some(TlsMode::Require) if self.root.is_some() && !system => TlsMode::VerifyCa,
            Some(mode) => mode,
        };
        if system && !socket && mode != TlsMode::VerifyFull {
            faults.push(ConfigIssue::new(
                key,
                "has `sslrootcert=system` with a weaker `sslmode`",
                "use sslmode=verify-full: anyone can get a certificate from a public authority",
            ));
        }
        if self.certificate.is_some() != self.key.is_some() {
            faults.push(ConfigIssue::new(
                key,
                "has only one of `sslcert` and `sslkey`",
                "give both: the certificate and its private key",
            ));
        }
        if !cfg!(feature = "tls") && mode >= TlsMode::Require {
            faults.push(ConfigIssue::new(
                key,
                format!("asks for TLS (sslmode={}), which this program was built without", mode.as_str()),
                "enable the feature `tls` of the crate pointsman",
            ));
        }
        TlsSettings {
            mode,
            root_certificate: self.root.filter(|_| !system).map(PathBuf::from),
            client_certificate: self.certificate,
            client_key: self.key,
        }
    }
}
