//! One server from one PostgreSQL URL.
//!
//! tokio-postgres parses the URL. Parameters that it does not know (`sslrootcert`, the stronger `sslmode`s) are
//! removed first. A URL that it would read differently from libpq is rejected. The errors of tokio-postgres are not
//! shown, because some of them quote the URL.

use std::error::Error as _;
use std::path::PathBuf;

use config::Value;
use percent_encoding::percent_decode_str;
use tokio_postgres::config::{Host, SslMode};

use super::value::Setting;
use super::{ConfigIssue, TlsMode, TlsSettings};

/// The parts of one URL.
pub(super) struct Parsed {
    pub(super) postgres: tokio_postgres::Config,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) options: Option<String>,
    pub(super) tls: TlsSettings,
    /// Parameters that the URL sets, so that no default overrides them.
    pub(super) given: Vec<String>,
}

const EXAMPLE: &str = "write it as postgres://user:password@host:5432/database";
const ENCODE: &str = "percent-encode special characters in the user name and the password: `@` is %40, `/` is %2F, \
     `?` is %3F, `:` is %3A, `%` is %25";

/// The parameters that tokio-postgres understands and that may vary here.
const PASSED_ON: &str = "user password dbname host hostaddr port application_name connect_timeout tcp_user_timeout \
     keepalives keepalives_idle keepalives_interval keepalives_retries channel_binding sslnegotiation";
const TAKEN_OUT: &str = "sslmode sslrootcert sslcert sslkey options";

fn has(names: &str, name: &str) -> bool {
    names.split(' ').any(|known| known == name)
}

/// The issues of one URL, all under its key.
struct Issues<'k>(&'k str, Vec<ConfigIssue>);

impl Issues<'_> {
    fn add(&mut self, problem: impl Into<String>, remedy: impl Into<String>) {
        self.1.push(ConfigIssue::new(self.0, problem, remedy));
    }

    fn with(mut self, problem: impl Into<String>, remedy: impl Into<String>) -> Vec<ConfigIssue> {
        self.add(problem, remedy);
        self.1
    }
}

pub(super) fn parse(key: &str, url: &str) -> Result<Parsed, Vec<ConfigIssue>> {
    let url = url.trim();
    let mut issues = Issues(key, Vec::new());
    if url.starts_with(['\'', '"']) {
        let remedy = "remove the quotes: some readers of .env files (docker run --env-file) keep them";
        return Err(issues.with("has quotes around it", remedy));
    }
    let Some(rest) = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://")) else {
        return Err(issues.with("is not a PostgreSQL URL", EXAMPLE));
    };
    if rest.chars().any(|c| c.is_whitespace() || c.is_control()) {
        let remedy = format!("remove it, or write %20 for a space; {ENCODE}");
        return Err(issues.with("has a space or a control character in it", remedy));
    }
    // tokio-postgres ends the password at the first `@`, libpq at the last one before the path.
    if let Some((before, after)) = rest.split_once('@')
        && (after.contains('@') || before.contains(['/', '?']))
    {
        return Err(issues.with("has an `@`, `/` or `?` where it ends the password early", ENCODE));
    }

    let (location, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = location.split_once('/').unwrap_or((location, ""));
    if authority.ends_with(':') {
        // Without an `@` this is likely a user and a password, and the rest belongs to the password.
        issues.add("has a `:` without a port", format!("{EXAMPLE}; {ENCODE}"));
    }
    if database.contains(['/', ',']) {
        issues.add(
            "has a `/` or a `,` in the name of the database",
            "write %2F or %2C if it belongs to the name; separate several URLs by a comma, each with its postgres://",
        );
    }

    let mut tls = Tls::default();
    let (mut options, mut given, mut passed_on) = (None, Vec::new(), Vec::new());
    // Without `@`, a `:` may separate a user and a password, whose `?` then ends the location early.
    let mut may_name = authority.contains('@') || !authority.contains(':');
    for (index, pair) in query.split('&').filter(|pair| !pair.is_empty()).enumerate() {
        let Some((name, value)) = pair.split_once('=') else {
            issues.add("has a parameter without `=`", "write `?name=value&name=value`");
            continue;
        };
        let Ok(decoded) = percent_decode_str(value).decode_utf8() else {
            issues.add("has a parameter that is not UTF-8", "encode it as UTF-8");
            continue;
        };
        let is_passed_on = has(PASSED_ON, name);
        let is_known = is_passed_on || has(TAKEN_OUT, name);
        match name {
            "options" => options = Some(decoded.into_owned()),
            _ if is_passed_on => passed_on.push(pair),
            _ if is_known => tls.set(name, &decoded, &mut issues),
            _ => unknown_parameter(index + 1, name, may_name, &mut issues),
        }
        // A `&` in a password makes the rest of the password look like a parameter.
        may_name &= is_known && name != "password";
        given.push(name.to_owned());
    }

    let mut postgres: tokio_postgres::Config =
        match format!("postgres://{location}?{}", passed_on.join("&")).parse() {
            Ok(postgres) => postgres,
            Err(error) => return Err(issues.with(rejection(&error), format!("{EXAMPLE}; {ENCODE}"))),
        };
    let place = place(&postgres).map_err(|(problem, remedy)| issues.add(problem, remedy)).ok();
    if postgres.get_password().is_some_and(|password| str::from_utf8(password).is_err()) {
        issues.add("has a password that is not UTF-8", "percent-encode it as UTF-8");
    }
    let socket = postgres.get_hosts().iter().any(|host| matches!(host, Host::Unix(_)));
    let tls = tls.finish(socket, &mut issues);
    // The mode for the server; the TLS connector enforces the rest.
    postgres.ssl_mode(match tls.mode {
        TlsMode::Disable => SslMode::Disable,
        TlsMode::Prefer if cfg!(feature = "tls") => SslMode::Prefer,
        TlsMode::Prefer => SslMode::Disable,
        TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => SslMode::Require,
    });
    match place {
        Some((host, port)) if issues.1.is_empty() => Ok(Parsed { postgres, host, port, options, tls, given }),
        _ => Err(issues.1),
    }
}

/// Reports an unknown parameter, by name only if that cannot be a password.
fn unknown_parameter(number: usize, name: &str, may_name: bool, issues: &mut Issues<'_>) {
    if let "target_session_attrs" | "load_balance_hosts" = name {
        return issues.add(
            format!("has `{name}`, which contradicts what this crate does"),
            "remove it: roles are discovered, and reads are balanced over the nodes",
        );
    }
    let remedy = match super::nearest(name, PASSED_ON.split(' ').chain(TAKEN_OUT.split(' '))) {
        Some(near) => format!("did you mean `{near}`? Otherwise remove it"),
        None => "remove it; docs/configuration.md lists the parameters that exist".to_owned(),
    };
    let is_word =
        (1..=40).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_');
    issues.add(
        if may_name && is_word {
            format!("has an unknown parameter `{name}`")
        } else {
            format!("has an unknown parameter (number {number} after the `?`)")
        },
        remedy,
    );
}

/// Returns the problem that tokio-postgres found, unless it may quote the URL.
fn rejection(error: &tokio_postgres::Error) -> String {
    let source = error.source().map(ToString::to_string).unwrap_or_default();
    PASSED_ON
        .split(' ')
        .find(|name| source == format!("invalid value for option `{name}`"))
        .map_or_else(|| "cannot be understood".to_owned(), |name| format!("has an invalid {name}"))
}

/// Returns the one host and port, or the problem with them and the remedy.
fn place(postgres: &tokio_postgres::Config) -> Result<(String, u16), (&'static str, String)> {
    let (hosts, ports) = (postgres.get_hosts(), postgres.get_ports());
    if hosts.len() > 1 || ports.len() > 1 || postgres.get_hostaddrs().len() > 1 {
        let remedy = "give each server its own URL (one node per server): replicas go to DATABASE_REPLICA_URL, \
                      separated by commas";
        return Err(("names several hosts", remedy.to_owned()));
    }
    let host = match hosts {
        [Host::Tcp(host)] if host.chars().all(|c| c.is_alphanumeric() || ".-_:%".contains(c)) => host.clone(),
        [Host::Unix(directory)] if directory.to_str().is_some_and(|d| !d.contains(char::is_control)) => {
            directory.to_string_lossy().into_owned()
        }
        [_, ..] => return Err(("has a host with a character that no host has", ENCODE.to_owned())),
        [] => postgres.get_hostaddrs().first().map(ToString::to_string).unwrap_or_default(),
    };
    if host.is_empty() {
        let remedy = format!("{EXAMPLE}; for a Unix socket postgres:///database?host=/directory");
        return Err(("names no host", remedy));
    }
    match ports.first().copied().unwrap_or(5432) {
        0 => Err(("has the port 0", "leave the port out for 5432".to_owned())),
        port => Ok((host, port)),
    }
}

/// The TLS parameters as the URL sets them.
#[derive(Default)]
struct Tls {
    mode: Option<TlsMode>,
    root: Option<String>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl Tls {
    fn set(&mut self, name: &str, value: &str, issues: &mut Issues<'_>) {
        match name {
            _ if value.is_empty() => {
                issues.add(format!("has an empty `{name}`"), "give it a value, or remove it");
            }
            "sslmode" => {
                self.mode = TlsMode::read(&Value::from(value));
                if self.mode.is_none() {
                    issues.add("has an unknown `sslmode`", format!("use {}", TlsMode::VALUES));
                }
            }
            "sslrootcert" => self.root = Some(value.to_owned()),
            "sslcert" => self.certificate = Some(value.into()),
            _ => self.key = Some(value.into()),
        }
    }

    /// Applies libpq's rules for the parameters together.
    fn finish(self, socket: bool, issues: &mut Issues<'_>) -> TlsSettings {
        let system = self.root.as_deref() == Some("system");
        let mode = match self.mode {
            // A Unix socket has no TLS; libpq ignores `sslmode` for it.
            _ if socket => TlsMode::Disable,
            None if system => TlsMode::VerifyFull,
            Some(TlsMode::Require) if self.root.is_some() && !system => TlsMode::VerifyCa,
            mode => mode.unwrap_or(TlsSettings::default().mode),
        };
        if system && !socket && mode != TlsMode::VerifyFull {
            issues.add(
                "has `sslrootcert=system` with a weaker `sslmode`",
                "use sslmode=verify-full: anyone can get a certificate from a public authority",
            );
        }
        if self.certificate.is_some() != self.key.is_some() {
            issues.add(
                "has only one of `sslcert` and `sslkey`",
                "give both: the certificate and its private key",
            );
        }
        if !cfg!(feature = "tls") && mode >= TlsMode::Require {
            issues.add(
                format!("asks for TLS (sslmode={}), which this program was built without", mode.as_str()),
                "enable the feature `tls` of the crate pointsman",
            );
        }
        TlsSettings {
            mode,
            root_certificate: self.root.filter(|_| !system).map(PathBuf::from),
            client_certificate: self.certificate,
            client_key: self.key,
        }
    }
}
