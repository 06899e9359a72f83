//! The configuration file of a server.
//!
//! It stands beside the data directory, because `pg_rewind` replaces the contents of that directory with the other
//! server's, and would give two servers one port.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

/// The settings of every server in a cluster, with their reasons.
const BASE: &[(&str, &str)] = &[
    // Nothing has to survive a power failure; a killed process loses nothing without it.
    ("fsync", "off"),
    ("wal_init_zero", "off"),
    ("full_page_writes", "on"),
    // `pg_rewind` needs this or data checksums.
    ("wal_log_hints", "on"),
    ("wal_level", "replica"),
    ("hot_standby", "on"),
    ("max_wal_senders", "10"),
    // No replication slots: a standby that was away for the length of a test finds its WAL.
    ("wal_keep_size", "512MB"),
    // A standby that lost its primary tries again after this; the usual 5 s would slow the tests.
    ("wal_retrieve_retry_interval", "100ms"),
    ("wal_receiver_status_interval", "100ms"),
    ("max_connections", "100"),
    ("shared_buffers", "16MB"),
    // In the folder, which is removed, and not in /dev/shm, where a killed server leaves it.
    ("dynamic_shared_memory_type", "mmap"),
    ("unix_socket_directories", ""),
    ("listen_addresses", "127.0.0.1"),
    ("log_line_prefix", "%m [%p] %u@%d "),
    ("timezone", "UTC"),
    ("jit", "off"),
];

/// The access rules: every client needs a password.
///
/// The superuser's connections never leave the machine and are opened often. They send the password as it is, and leave
/// the costly part of SCRAM to the server.
pub(super) const HBA: &str = "\
host all postgres 127.0.0.1/32 password
host replication postgres 127.0.0.1/32 password
host all all all scram-sha-256
";

/// The settings of one server, which change while it lives.
#[derive(Debug, Clone, Default)]
pub(super) struct Settings {
    /// The server that this one follows, if it is a standby.
    pub(super) source: Option<Source>,
    /// `true` if it should have a connection to that server.
    pub(super) connected: bool,
    pub(super) replay_delay: Duration,
    /// The settings of the test; later ones override earlier ones.
    pub(super) own: Vec<(String, String)>,
}

/// The server that a standby gets its WAL from.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) port: u16,
    pub(super) conninfo: String,
}

impl Settings {
    /// Writes the whole file.
    pub(super) fn render(&self, name: &str, port: u16, hba: &Path) -> String {
        let mut text = String::from("# Written by the test kit; changes are lost.\n");
        let mut line = |key: &str, value: &str| {
            // Within the quotes, both the quote and the backslash are doubled.
            let value = value.replace('\\', "\\\\").replace('\'', "''");
            let _ = writeln!(text, "{key} = '{value}'");
        };
        for (key, value) in BASE {
            line(key, value);
        }
        line("cluster_name", name);
        line("port", &port.to_string());
        line("hba_file", &hba.display().to_string());
        let conninfo = self.source.as_ref().filter(|_| self.connected).map_or("", |source| &source.conninfo);
        line("primary_conninfo", conninfo);
        line("recovery_min_apply_delay", &format!("{}ms", self.replay_delay.as_millis()));
        for (key, value) in &self.own {
            line(key, value);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::Settings;
    use std::path::Path;

    #[test]
    fn quotes_values_and_puts_those_of_the_test_last() {
        let own = vec![("search_path".to_owned(), r"it's \ here".to_owned())];
        let text =
            Settings { own, ..Settings::default() }.render("primary", 5433, Path::new("/x/pg_hba.conf"));
        assert!(text.ends_with("search_path = 'it''s \\\\ here'\n"), "{text}");
        assert!(text.contains("port = '5433'\n"), "{text}");
    }
}
